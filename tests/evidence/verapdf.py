"""veraPDF, a validator of PDF/A: brought by Maven once, kept beside the virtual environment's own packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.needs import cannot_run, needs_program

VERSION = "1.28.2"
KEPT = Path(sys.prefix) / "outside" / f"verapdf-{VERSION}.jar"
_MAIN = "org.verapdf.apps.GreenfieldCliWrapper"
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"
_PATIENCE_SECONDS = 900


def verapdf() -> list[str]:
    """The command that runs it; it takes a PDF."""
    java = needs_program("java")
    if not KEPT.exists():
        _bring()
    return [java, "-XX:TieredStopAtLevel=1", "-cp", str(KEPT), _MAIN]


def _bring() -> None:
    maven = needs_program("mvn")
    making = KEPT.with_name(f"{KEPT.name}.{os.getpid()}")
    making.mkdir(parents=True)
    artifact = f"-Dartifact=org.verapdf.apps:greenfield-apps:{VERSION}"
    command = [maven, "-q", "-B", _COPY, artifact, f"-DoutputDirectory={making}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=making, timeout=_PATIENCE_SECONDS)
    brought = making / f"greenfield-apps-{VERSION}.jar"
    if done.returncode or not brought.exists():
        shutil.rmtree(making)
        cannot_run(f"maven could not bring veraPDF: {(done.stdout or done.stderr)[:300]}")
    brought.replace(KEPT)
    shutil.rmtree(making)
