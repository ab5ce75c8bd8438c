"""Puts a Helm where the tests look for it: built with Go, once a machine and version.

    python tests/find_helm.py --into .venv/bin/helm

The build takes some minutes and stays in the user's cache directory. Helm is built as its own go.mod and go.sum have
it; the sum of the module itself is below. Without Go this says so in one line and exits 0, and the tests that need
Helm are skipped; with SIDECAR_NO_SKIP=1 it exits 1. Only the standard library.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

MODULE, VERSION = "helm.sh/helm/v3", "v3.22.0"
SUM = "h1:n1if5iQgHYsujPAcO5oonH/KiSNUmqmUF0iGVjSF3AU="
# What Helm's own Makefile sets: without it Helm takes the cluster that it renders for to be of version 1.20.
_KUBERNETES = {"k8sVersionMajor": "1", "k8sVersionMinor": "37"}
_PLACES = (f"{MODULE}/pkg/lint/rules", f"{MODULE}/pkg/chartutil")
_SET = [f"-X {place}.{name}={value}" for place in _PLACES for name, value in _KUBERNETES.items()]
_LINKED = " ".join(["-s -w", f"-X {MODULE}/internal/version.version={VERSION}", *_SET])


class NoHelm(Exception):
    """No usable Helm; the message is the line to show."""


def kept() -> Path:
    """Where the program stays."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "decision-sidecar-tests" / f"helm-{VERSION}" / "helm"


def build(into: Path) -> None:
    """Builds Helm; ``into`` is there only when it is whole."""
    go = shutil.which("go")
    if go is None:
        raise NoHelm("no Go to build Helm with: tests that need it are skipped; install Go 1.26 or later")
    environment = {**os.environ, "GOWORK": "off", "GOFLAGS": "-buildvcs=false", "CGO_ENABLED": "0"}
    told = _run([go, "mod", "download", "-json", f"{MODULE}@{VERSION}"], Path.cwd(), environment)
    module = json.loads(told)
    if module["Sum"] != SUM:
        raise NoHelm(f"{MODULE} {VERSION} is not the one that the tests were written for: its sum is {module['Sum']}")
    print(f"building Helm {VERSION} with Go; this takes some minutes, once", flush=True)
    into.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into.parent) as near:
        made = Path(near) / "helm"
        flags = ["-p", "2", "-mod=readonly", "-trimpath", f"-ldflags={_LINKED}", "-o", str(made)]
        _run([go, "build", *flags, "./cmd/helm"], Path(module["Dir"]), environment)
        made.replace(into)


def _run(command: list[str], where: Path, environment: dict[str, str]) -> str:
    nice = shutil.which("nice")
    gentle = [nice, "-n", "10", *command] if nice else command
    run = subprocess.run(gentle, cwd=where, env=environment, capture_output=True, text=True, check=False)
    if run.returncode:
        last = (run.stderr.strip().splitlines() or ["it gave no reason"])[-1].strip()
        raise NoHelm(f"Helm {VERSION} could not be built with Go ({last})")
    return run.stdout


def link(program: Path, into: Path) -> None:
    """Replaces ``into`` in one step, so that a test never starts half a program."""
    into.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into.parent) as near:
        made = Path(near) / into.name
        made.symlink_to(program)
        made.replace(into)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Puts a Helm where the tests look for it.")
    parser.add_argument("--into", type=Path, required=True, help="where the link to the program goes")
    asked = parser.parse_args(arguments)
    try:
        if not kept().is_file():
            build(kept())
    except NoHelm as reason:
        print(reason, file=sys.stderr)
        return 1 if os.environ.get("SIDECAR_NO_SKIP") == "1" else 0
    link(kept(), asked.into)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
