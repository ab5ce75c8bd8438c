"""veraPDF, a validator of PDF/A: brought by Maven once, kept beside the virtual environment's own packages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.kept import kept
from tests.needs import cannot_run, needs_program

VERSION = "1.28.2"
KEPT = Path(sys.prefix) / "outside" / f"verapdf-{VERSION}.jar"
_MAIN = "org.verapdf.apps.GreenfieldCliWrapper"
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"
_PATIENCE_SECONDS = 900


def verapdf() -> list[str]:
    """The command that runs it; it takes a PDF."""
    java = needs_program("java")
    return [java, "-XX:TieredStopAtLevel=1", "-cp", str(kept(KEPT, _bring)), _MAIN]


def _bring(made: Path) -> None:
    maven, place = needs_program("mvn"), made.parent
    artifact = f"-Dartifact=org.verapdf.apps:greenfield-apps:{VERSION}"
    command = [maven, "-q", "-B", _COPY, artifact, f"-DoutputDirectory={place}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=place, timeout=_PATIENCE_SECONDS)
    brought = place / f"greenfield-apps-{VERSION}.jar"
    if done.returncode or not brought.exists():
        cannot_run(f"maven could not bring veraPDF: {(done.stdout or done.stderr)[:300]}")
    brought.rename(made)
