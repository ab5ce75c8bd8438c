"""The protocol: ``EXECUTABLE verify BUNDLE --trust T --json``, and what of its answer verifiers must agree on.

Any verifier is tried by hand so, from a directory that `python -m tests.conformance.make` wrote::

    python -m tests.conformance.driving DIRECTORY EXECUTABLE [ARGUMENT]...
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EXITS = {
    "OK": 0, "REDACTED": 0, "PRUNED": 0, "UNANCHORED": 4, "INCOMPLETE": 3, "CLOCK": 3, "FORK": 1, "TAMPERED": 1,
    "MALFORMED": 1,
}  # fmt: skip
_FINE = {"OK", "REDACTED", "PRUNED", "UNANCHORED"}
_SECONDS = 60.0


@dataclass(frozen=True)
class Answer:
    """Verdict, and the first bad place: chain (hex), segment, seq; None: there is none."""

    verdict: str
    first_bad: tuple[str | None, int | None, int | None] | None


def answer_of(printed: dict[str, Any]) -> Answer:
    """What a verifier's JSON says."""
    bad = next((each for each in printed["findings"] if each["verdict"] not in _FINE), None)
    return Answer(printed["verdict"], None if bad is None else (bad["chain"], bad["segment"], bad["seq"]))


def due(row: dict[str, Any]) -> Answer:
    """What a row of expected.json says."""
    bad = row["first_bad"]
    return Answer(row["verdict"], None if bad is None else (bad["chain"], bad["segment"], bad["seq"]))


def ask(executable: Sequence[str], bundle: Path, trust: Path | None) -> Answer:
    """Run a verifier; an exit code that does not go with the verdict is no answer. Raises AssertionError."""
    command = [*executable, "verify", str(bundle), *([] if trust is None else ["--trust", str(trust)]), "--json"]
    done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
    assert done.stdout, f"{command}: exit {done.returncode}: {done.stderr.decode(errors='replace')}"
    found = answer_of(json.loads(done.stdout))
    assert done.returncode == EXITS[found.verdict], f"{command}: {found.verdict} with exit {done.returncode}"
    return found


def differences(executable: Sequence[str], directory: Path) -> list[str]:
    """What a verifier says otherwise than the table of a directory of bundles."""
    table = json.loads((directory / "expected.json").read_text())
    wrong = []
    for name, row in table.items():
        try:
            trust = None if row["trust"] is None else directory / row["trust"]
            found = ask(executable, directory / f"{name}.zip", trust)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            wrong.append(f"{name}: {error}")
            continue
        if found != due(row):
            wrong.append(f"{name}: due {due(row)}, found {found}")
    return wrong


if __name__ == "__main__":
    if len(sys.argv) < 3 or not Path(sys.argv[1]).is_dir():
        sys.exit("usage: python -m tests.conformance.driving DIRECTORY EXECUTABLE [ARGUMENT]...")
    found_wrong = differences(sys.argv[2:], Path(sys.argv[1]))
    print("\n".join(found_wrong) or "all as it is due")
    sys.exit(bool(found_wrong))
