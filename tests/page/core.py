"""Questions to the script of `verify.html`, answered by node."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.needs import needs_program

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent.parent / "sidecar" / "evidence" / "verify.html"
REFUSED = "refused"
_PATIENCE_SECONDS = 300  # a guard against a script that does not end, not a measure of speed


def answers(questions: Iterable[dict[str, Any]]) -> list[Any]:
    """One answer each; what the script refused is ``(REFUSED, why)``."""
    asked = json.dumps(list(questions))
    run = subprocess.run(
        [needs_program("node"), "--no-warnings", str(HERE / "answer.mjs")],
        input=asked,
        capture_output=True,
        text=True,
        timeout=_PATIENCE_SECONDS,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return [each["answer"] if "answer" in each else (REFUSED, each["refused"]) for each in json.loads(run.stdout)]
