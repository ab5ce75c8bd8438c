"""Charts as Helm renders them: values in, manifests out."""

from __future__ import annotations

import copy
import functools
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tests.needs import needs_program

HERE: Final = Path(__file__).resolve().parent
CHARTS: Final = HERE.parents[1] / "charts"
SIDECAR: Final = CHARTS / "sidecar"
INSTALLS: Final = sorted(path.stem for path in (HERE / "installs").glob("*.yaml"))
CONSUMER: Final = "consumer"

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ran:
    """How Helm ended."""

    status: int
    out: str
    err: str


def helm(*arguments: str | Path) -> Ran:
    """One Helm command, run to its end; it has no cluster and no configuration of its own."""
    command = [needs_program("helm"), *map(str, arguments)]
    with tempfile.TemporaryDirectory() as home:
        run = subprocess.run(command, capture_output=True, text=True, timeout=120, env={"HOME": home}, check=False)
    return Ran(run.returncode, run.stdout, run.stderr)


def template(chart: Path, *arguments: str | Path) -> Ran:
    """A release named `billing` in the namespace `agents`."""
    return helm("template", "billing", chart, "--namespace", "agents", *arguments)


@functools.cache
def text_of(install: str) -> str:
    """All that an install of tests/charts/installs renders, or the consumer's chart."""
    if install == CONSUMER:
        with tempfile.TemporaryDirectory() as place:
            ran = template(consumer(Path(place)))
    else:
        ran = template(SIDECAR, "--values", HERE / "installs" / f"{install}.yaml")
    assert ran.status == 0, ran.err
    return ran.out


def consumer(place: Path) -> Path:
    """The chart of a workload that depends on ours, with ours in it, as `helm dependency build` lays it."""
    chart = place / CONSUMER
    shutil.copytree(HERE / CONSUMER, chart)
    shutil.copytree(SIDECAR, chart / "charts" / "sidecar")
    return chart


def manifests_of(install: str) -> list[Manifest]:
    """Parsed, in Helm's order; the caller's own."""
    return copy.deepcopy(_parsed(install))


@functools.cache
def _parsed(install: str) -> list[Manifest]:
    return [each for each in yaml.safe_load_all(text_of(install)) if each]


def of_kind(install: str, *kinds: str) -> list[Manifest]:
    return [each for each in manifests_of(install) if each["kind"] in kinds]


def pods_of(install: str) -> Iterator[tuple[str, Manifest]]:
    """Every pod that would come to be of an install."""
    return pods_in(manifests_of(install))


def pods_in(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Every pod that would come to be: where it is said, and metadata and spec."""
    for manifest in manifests:
        name = f"{manifest['kind']}/{manifest['metadata']['name']}"
        if manifest["kind"] == "Pod":
            yield name, manifest
        elif "template" in manifest.get("spec", {}):
            yield name, manifest["spec"]["template"]


def workload_of(install: str) -> Manifest:
    """The pod that is not the test's."""
    (found,) = [pod for name, pod in pods_of(install) if not name.startswith("Pod/")]
    return found


def containers_of(pod: Manifest) -> list[Manifest]:
    """In the order in which they start."""
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def container(pod: Manifest, name: str) -> Manifest:
    (found,) = [each for each in containers_of(pod) if each["name"] == name]
    return found


def configuration_of(install: str, name: str) -> dict[str, str]:
    """The data of a ConfigMap."""
    (found,) = [each for each in of_kind(install, "ConfigMap") if each["metadata"]["name"] == name]
    return found["data"]
