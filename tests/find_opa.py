"""Puts an OPA that is new enough where the tests look for it: from PATH, or built with Go.

    python tests/find_opa.py --into .venv/bin/opa --build v1.22.2

Without either it says so in one line and exits 0, and the tests that need OPA are skipped; with SIDECAR_NO_SKIP=1 it
exits 1. Only the standard library, so that it runs before anything is installed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# GHSA-g2pf-6v5v-qcc8: before 1.21.3 the signature of a bundle could be bypassed.
MINIMUM = (1, 21, 3)
MODULE = "github.com/open-policy-agent/opa"


class NoOpa(Exception):
    """No usable OPA; the message is the line to show."""


def version(opa: Path) -> tuple[int, ...] | None:
    """The version a program says it has, or None when it does not run or is no OPA."""
    try:
        said = subprocess.run([opa, "version"], capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"^Version: (\d+)\.(\d+)\.(\d+)", said, re.MULTILINE)
    return tuple(map(int, found.groups())) if found else None


def usable(opa: Path) -> bool:
    has = version(opa)
    return has is not None and has >= MINIMUM


def on_path(besides: Path) -> Path | None:
    """The first usable OPA on PATH that is not ``besides`` itself."""
    for directory in os.environ.get("PATH", os.defpath).split(os.pathsep):
        found = shutil.which("opa", path=directory) if directory else None
        if found and Path(found).absolute() != besides.absolute() and usable(Path(found)):
            return Path(found).resolve()
    return None


def put(opa: Path, into: Path) -> None:
    """Replaces ``into`` in one step, so that a test never starts half a program."""
    into.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into.parent) as near:
        link = Path(near) / "opa"
        link.symlink_to(opa)
        link.replace(into)


def build(wanted: str, into: Path) -> None:
    """Builds OPA with Go beside ``into`` and moves it there."""
    go = shutil.which("go")
    if go is None:
        raise NoOpa(
            "OPA not found and no Go to build it: tests that need it are skipped; "
            "put opa >= 1.21.3 on PATH or install Go"
        )
    print(f"building OPA {wanted} with Go; this takes a minute or two, once", flush=True)
    into.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into.parent) as near:
        environment = {**os.environ, "GOBIN": str(Path(near).absolute())}
        run = subprocess.run(
            [go, "install", f"{MODULE}@{wanted}"], env=environment, capture_output=True, text=True, check=False
        )
        built = Path(near) / "opa"
        if run.returncode or not usable(built):
            last = (run.stderr.strip().splitlines() or ["it gave no reason"])[-1].strip()
            raise NoOpa(f"OPA {wanted} could not be built with Go ({last}): put opa >= 1.21.3 on PATH")
        built.replace(into)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Puts an OPA that is new enough where the tests look for it.")
    parser.add_argument("--into", type=Path, required=True, help="where the program goes")
    parser.add_argument("--build", required=True, metavar="VERSION", help="the version to build, as v1.22.2")
    asked = parser.parse_args(arguments)
    if usable(asked.into):
        return 0
    try:
        found = on_path(besides=asked.into)
        if found:
            put(found, asked.into)
        else:
            build(asked.build, asked.into)
    except NoOpa as reason:
        print(reason, file=sys.stderr)
        return 1 if os.environ.get("SIDECAR_NO_SKIP") == "1" else 0
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
