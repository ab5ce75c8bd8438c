"""The Dockerfile holds to its own rules. What it makes is looked at in `tests/soak/test_soak_image.py`."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from tests.image.dockerfile import HOME, Instruction, dockerignore, ignored, parse
from tests.needs import needs_program

TEXT = (HOME / "Dockerfile").read_text()
PARTS = "authzen", "git", "mcp", "spiffe", "collector", "otel"  # the extras that the image has


def instructions(word: str) -> list[Instruction]:
    return [each for each in parse(TEXT) if each.word == word]


def test_the_linter_finds_nothing() -> None:
    ran = subprocess.run([needs_program("hadolint"), HOME / "Dockerfile"], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (0, "")


def test_the_linter_would_find_something(tmp_path: Path) -> None:
    worse = tmp_path / "Dockerfile"
    worse.write_text(
        TEXT.replace("--no-install-recommends ", "").replace("FROM scratch AS sbom", "FROM debian AS sbom")
    )
    ran = subprocess.run([needs_program("hadolint"), worse], capture_output=True, text=True, timeout=60)
    assert ran.returncode and {"DL3015", "DL3006"} <= set(re.findall(r"DL\d+", ran.stdout))


def test_bases_are_pinned_by_tag_and_build_argument() -> None:
    asked = [each.rest.split(" AS ")[0] for each in instructions("FROM")]
    assert asked == ["golang:${GO}", "debian:${DEBIAN}", "scratch", "scratch"]
    pins = dict(each.rest.split("=") for each in instructions("ARG") if "=" in each.rest)
    assert re.fullmatch(r"\d+\.\d+-slim", pins["DEBIAN"]) and re.fullmatch(r"1\.\d+\.\d+-\w+", pins["GO"])
    assert "sha256:" not in TEXT and "latest" not in TEXT


def test_what_is_also_said_elsewhere_is_the_same() -> None:
    pins = dict(each.rest.split("=") for each in instructions("ARG") if "=" in each.rest)
    makefile = re.search(r"^OPA_VERSION := (\S+)$", (HOME / "Makefile").read_text(), re.MULTILINE)
    assert makefile and pins["OPA_VERSION"] == makefile[1]
    assert pins["VERSION"] == tomllib.loads((HOME / "pyproject.toml").read_text())["project"]["version"]


def test_no_line_is_for_one_architecture() -> None:
    steps = "\n".join(each.rest for each in parse(TEXT))
    assert not re.findall(r"amd64|arm64|x86[_-]64|aarch64", steps)


def test_it_runs_as_somebody_without_rights_and_starts_the_sidecar() -> None:
    (user,) = instructions("USER")
    assert re.fullmatch(r"([1-9]\d*):\1", user.rest)
    values = yaml.safe_load((HOME / "charts/sidecar/values.yaml").read_text())
    assert user.rest.split(":")[0] == str(values["users"]["sidecar"])  # ssh asks the image who that is
    assert instructions("ENTRYPOINT")[0].rest == '["sidecar"]'
    assert instructions("STOPSIGNAL")[0].rest == "SIGTERM"
    assert 'CMD ["sidecar", "health"' in instructions("HEALTHCHECK")[0].rest


def test_what_is_built_in_reaches_the_engine_and_nothing_else_does() -> None:
    patterns = dockerignore()
    wanted = [each for each in instructions("COPY") if not each.flags]
    sources = [source for each in wanted for source in each.rest.split()[:-1]]
    assert {"sidecar/", "requirements-image.lock", "requirements-build.lock"} <= set(sources)
    for source in sources:
        assert (HOME / source).exists() and not ignored(patterns, source.rstrip("/"))
    assert not ignored(patterns, "sidecar/cli/serve.py")
    for stray in (
        "auditor.pem",
        "ledger/ledger.mdb",
        ".venv/bin/python",
        ".git/config",
        "tests/needs.py",
        "sidecar.toml",
    ):
        assert ignored(patterns, stray), stray
    assert ignored(patterns, "sidecar/cli/__pycache__/serve.cpython-311.pyc")


def locked(name: str) -> dict[str, str]:
    """Version by project."""
    text = (HOME / name).read_text()
    return dict(re.findall(r"^([a-z0-9._-]+)==([^ ;\\]+)", text, re.MULTILINE))


@pytest.mark.parametrize("name", ["requirements-image.lock", "requirements-build.lock"])
def test_locks_are_whole_and_agree_with_that_of_the_tests(name: str) -> None:
    lines = (HOME / name).read_text().split("\n")
    starts = [i for i, line in enumerate(lines) if re.match(r"[a-z0-9]", line)]
    assert starts and all("--hash=sha256:" in lines[i + 1] for i in starts)
    tested = locked("requirements.lock")
    both = {each: version for each, version in locked(name).items() if each in tested}
    assert both and both == {each: tested[each] for each in both}


def test_the_image_has_the_extras_and_nothing_of_the_tests() -> None:
    project = tomllib.loads((HOME / "pyproject.toml").read_text())["project"]
    has = locked("requirements-image.lock")
    lines = project["dependencies"] + [line for part in PARTS for line in project["optional-dependencies"][part]]
    for requirement in map(Requirement, lines):
        assert requirement.specifier.contains(has[requirement.name.lower()]), requirement
    assert not {"pytest", "mypy", "moto", "setuptools", "pip", "debsbom"} & has.keys()
