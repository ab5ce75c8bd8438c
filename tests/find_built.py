"""Puts programs of others where the tests look for them: built with Go, once a machine and version.

    python tests/find_built.py --into .venv/bin spire helm

A build takes some minutes and stays in the user's cache directory. Each is built as its own go.mod and go.sum have it;
the sums of the modules themselves are below. Without Go this says so in one line and exits 0, and the tests that need
them are skipped; with SIDECAR_NO_SKIP=1 it exits 1. Only the standard library.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Source:
    """What is built: ``packages`` of a module, into programs of the same names; ``go``: the oldest that builds it."""

    name: str
    module: str
    version: str
    sum: str
    packages: tuple[str, ...]
    go: str
    variables: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()

    def kept(self) -> Path:
        """The directory in which the programs stay."""
        caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(caches) / "decision-sidecar-tests" / f"{self.name.lower()}-{self.version}"

    def programs(self) -> list[Path]:
        return [self.kept() / Path(package).name for package in self.packages]


_HELM = "helm.sh/helm/v3"
SOURCES = {
    "spire": Source(
        "SPIRE", "github.com/spiffe/spire", "v1.13.3", "h1:wDTK8tj8ShO5izjue/OFanVaehmjUxSxHtSWxBY+FJQ=",
        ("./cmd/spire-server", "./cmd/spire-agent"), "1.25",
    ),
    "helm": Source(
        "Helm", _HELM, "v3.22.0", "h1:n1if5iQgHYsujPAcO5oonH/KiSNUmqmUF0iGVjSF3AU=", ("./cmd/helm",), "1.26",
        # What Helm's own Makefile sets: without it Helm takes the cluster that it renders for to be of version 1.20.
        (
            f"{_HELM}/internal/version.version=v3.22.0",
            *(f"{_HELM}/pkg/{at}.k8sVersionMajor=1" for at in ("lint/rules", "chartutil")),
            *(f"{_HELM}/pkg/{at}.k8sVersionMinor=37" for at in ("lint/rules", "chartutil")),
        ),
        (("CGO_ENABLED", "0"),),
    ),
}  # fmt: skip


class NotBuilt(Exception):
    """No usable program; the message is the line to show."""


def build(source: Source) -> None:
    """Builds all programs; the directory is there only when they are."""
    into, go = source.kept(), shutil.which("go")
    if go is None:
        how = f"install Go {source.go} or later"
        raise NotBuilt(f"no Go to build {source.name} with: tests that need it are skipped; {how}")
    environment = {**os.environ, "GOWORK": "off", "GOFLAGS": "-buildvcs=false", **dict(source.environment)}
    told = _run(source, [go, "mod", "download", "-json", f"{source.module}@{source.version}"], Path.cwd(), environment)
    module = json.loads(told)
    if module["Sum"] != source.sum:
        what = f"{source.module} {source.version}"
        raise NotBuilt(f"{what} is not the one that the tests were written for: its sum is {module['Sum']}")
    print(f"building {source.name} {source.version} with Go; this takes some minutes, once", flush=True)
    linked = " ".join(["-s -w", *(f"-X {variable}" for variable in source.variables)])
    into.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into.parent) as near:
        flags = ["-p", "2", "-mod=readonly", "-trimpath", f"-ldflags={linked}", "-o", f"{near}{os.sep}"]
        _run(source, [go, "build", *flags, *source.packages], Path(module["Dir"]), environment)
        into.mkdir(exist_ok=True)
        for program in source.programs():
            Path(near, program.name).replace(program)


def _run(source: Source, command: list[str], where: Path, environment: dict[str, str]) -> str:
    nice = shutil.which("nice")
    gentle = [nice, "-n", "10", *command] if nice else command
    run = subprocess.run(gentle, cwd=where, env=environment, capture_output=True, text=True, check=False)
    if run.returncode:
        last = (run.stderr.strip().splitlines() or ["it gave no reason"])[-1].strip()
        raise NotBuilt(f"{source.name} {source.version} could not be built with Go ({last})")
    return run.stdout


def link(program: Path, into: Path) -> None:
    """Replaces ``into`` in one step, so that a test never starts half a program."""
    into.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into.parent) as near:
        made = Path(near) / program.name
        made.symlink_to(program)
        made.replace(into)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Puts programs of others where the tests look for them.")
    parser.add_argument("--into", type=Path, required=True, help="the directory for the links to the programs")
    parser.add_argument("names", nargs="+", choices=sorted(SOURCES), metavar="NAME", help=", ".join(sorted(SOURCES)))
    asked = parser.parse_args(arguments)
    status = 0
    for source in (SOURCES[name] for name in asked.names):
        try:
            if not all(program.is_file() for program in source.programs()):
                build(source)
        except NotBuilt as reason:
            print(reason, file=sys.stderr)
            status = 1 if os.environ.get("SIDECAR_NO_SKIP") == "1" else status
            continue
        for program in source.programs():
            link(program, asked.into / program.name)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
