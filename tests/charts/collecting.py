"""Installs of charts/collector, and what they render. `python -m tests.charts.collecting` renews the golden files."""

from __future__ import annotations

import copy
import functools
import re
import tempfile
from pathlib import Path
from typing import Any, Final

import yaml

from .rendering import CHARTS, HERE, Manifest, helm

COLLECTOR: Final = CHARTS / "collector"
WITNESS: Final = "witness.example.org+9c2f3a10+BAbcAbcAbcAbcAbcAbcAbcAbcAbcAbcAbcAbcAbcAbcAbc="
INSTALLS: Final = sorted(path.stem for path in (HERE / "collectors").glob("*.yaml"))


def rendered(values: dict[str, Any]) -> list[Manifest]:
    """A release `fleet` in the namespace `audit`."""
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "values.yaml"
        file.write_text(yaml.safe_dump(values))
        return [each for each in yaml.safe_load_all(_template(file)) if each]


def _template(values: Path) -> str:
    ran = helm("template", "fleet", COLLECTOR, "--namespace", "audit", "--values", values)
    assert ran.status == 0, ran.err
    return ran.out


@functools.cache
def text_of(install: str) -> str:
    """What an install of tests/charts/collectors renders."""
    return _template(HERE / "collectors" / f"{install}.yaml")


def manifests_of(install: str) -> list[Manifest]:
    """Parsed; the caller's own."""
    return copy.deepcopy(_parsed(install))


@functools.cache
def _parsed(install: str) -> list[Manifest]:
    return [each for each in yaml.safe_load_all(text_of(install)) if each]


def one(manifests: list[Manifest], kind: str, name: str = "") -> Manifest:
    (found,) = (each for each in manifests if each["kind"] == kind and name in each["metadata"]["name"])
    return found


def configuration(manifests: list[Manifest]) -> str:
    """The collector's own."""
    (text,) = (each["data"]["collector.toml"] for each in manifests if "collector.toml" in each.get("data", {}))
    assert isinstance(text, str)
    return text


def file_of(install: str) -> Path:
    return HERE / "collectors" / "golden" / f"{install}.yaml"


def expected(install: str) -> str:
    """Without trailing blanks, and without what Helm makes anew each time."""
    text = re.sub(r"^(  (?:ca\.crt|tls\.crt|tls\.key)): .*$", r"\1: made anew", text_of(install), flags=re.MULTILINE)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


if __name__ == "__main__":
    for _install in INSTALLS:
        file_of(_install).write_text(expected(_install))
