"""The types hold, as `make check` finds: half a minute of one processor, which here passes beside other tests."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.program import BIN

REPOSITORY = Path(__file__).parent.parent


def test_mypy_finds_nothing() -> None:
    done = subprocess.run([BIN / "mypy"], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
