"""Puts a SPIRE server and agent where the tests look for them: built with Go, once a machine and version.

    python tests/find_spire.py --into .venv/bin

The build takes some minutes and stays in the user's cache directory. SPIRE is built as its own go.mod and go.sum have
it; the sum of the module itself is below. Without Go this says so in one line and exits 0, and the tests that need
SPIRE are skipped; with SIDECAR_NO_SKIP=1 it exits 1. Only the standard library.
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

MODULE, VERSION = "github.com/spiffe/spire", "v1.13.3"
SUM = "h1:wDTK8tj8ShO5izjue/OFanVaehmjUxSxHtSWxBY+FJQ="
PROGRAMS = ("spire-server", "spire-agent")


class NoSpire(Exception):
    """No usable SPIRE; the message is the line to show."""


def kept() -> Path:
    """Where the programs stay."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "decision-sidecar-tests" / f"spire-{VERSION}"


def build(into: Path) -> None:
    """Builds both programs; ``into`` is there only when both are."""
    go = shutil.which("go")
    if go is None:
        raise NoSpire("no Go to build SPIRE with: tests that need it are skipped; install Go 1.25 or later")
    environment = {**os.environ, "GOWORK": "off", "GOFLAGS": "-buildvcs=false"}
    told = _run([go, "mod", "download", "-json", f"{MODULE}@{VERSION}"], Path.cwd(), environment)
    module = json.loads(told)
    if module["Sum"] != SUM:
        raise NoSpire(f"{MODULE} {VERSION} is not the one that the tests were written for: its sum is {module['Sum']}")
    print(f"building SPIRE {VERSION} with Go; this takes some minutes, once", flush=True)
    into.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into.parent) as near:
        flags = ["-p", "2", "-mod=readonly", "-trimpath", "-ldflags=-s -w", "-o", f"{near}{os.sep}"]
        _run([go, "build", *flags, *(f"./cmd/{name}" for name in PROGRAMS)], Path(module["Dir"]), environment)
        into.mkdir(exist_ok=True)
        for name in PROGRAMS:
            Path(near, name).replace(into / name)


def _run(command: list[str], where: Path, environment: dict[str, str]) -> str:
    run = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, check=False)
    if run.returncode:
        last = (run.stderr.strip().splitlines() or ["it gave no reason"])[-1].strip()
        raise NoSpire(f"SPIRE {VERSION} could not be built with Go ({last})")
    return run.stdout


def link(program: Path, into: Path) -> None:
    """Replaces ``into`` in one step, so that a test never starts half a program."""
    into.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into.parent) as near:
        made = Path(near) / program.name
        made.symlink_to(program)
        made.replace(into)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Puts a SPIRE server and agent where the tests look for them.")
    parser.add_argument("--into", type=Path, required=True, help="the directory for the links to the programs")
    asked = parser.parse_args(arguments)
    try:
        if not all((kept() / name).is_file() for name in PROGRAMS):
            build(kept())
    except NoSpire as reason:
        print(reason, file=sys.stderr)
        return 1 if os.environ.get("SIDECAR_NO_SKIP") == "1" else 0
    for name in PROGRAMS:
        link(kept() / name, asked.into / name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
