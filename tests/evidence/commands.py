"""A command in this process, in a fraction of the time that the program takes; what it ends with and prints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner

from sidecar.cli import cli


@dataclass(frozen=True, slots=True)
class Done:
    """As `subprocess` has it."""

    returncode: int
    stdout: str
    stderr: str


def here(*arguments: str | Path) -> Done:
    """Run it to its end. What it raises, which the program would say in one line, goes on."""
    done = CliRunner().invoke(cli, list(map(str, arguments)), catch_exceptions=False)
    return Done(done.exit_code, done.stdout, done.stderr)
