"""`sidecar bench`, evidence: a ledger exported with all its documents, by the command, verification included."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from sidecar.cli.bench_figures import Findings
from sidecar.cli.bench_ledger import prefilled
from sidecar.cli.bench_work import Work
from sidecar.errors import UsageError

_DAY: Final = 1_000_000  # entries
_JUDGED: Final = 100_000  # entries from which on the start of processes no longer counts
_ALLOWED: Final = 60.0  # seconds for a day
_WINDOW: Final = ("--from", "2020-01-01", "--to", "2100-01-01")


def measure_export(findings: Findings, work: Work, place: Path, entries: int, rounds: int) -> None:
    """Seconds of an export, and what a day of a million entries takes at that speed."""
    place.mkdir()
    ledger = prefilled(place / "ledger", work, entries)
    took = [_export(ledger, place / "ledger.custodian.pem", place / f"{number}.zip") for number in range(rounds)]
    found = findings.add(f"export of {entries:,} entries with all documents", "s", took)
    small = "" if entries >= _JUDGED else f"the ledger has {entries:,} entries, not {_JUDGED:,}"
    day = found.median * _DAY / entries
    findings.hold(f"export of {_DAY:,} entries at that speed", day, _ALLOWED, at_most=True, unit="s", judged=small)


def _export(ledger: Path, key: Path, out: Path) -> float:
    program = (sys.executable, "-m", "sidecar", "evidence", "export", ledger)
    began = time.perf_counter()
    done = subprocess.run(
        [*program, *_WINDOW, "--custodian-key", key, "--out", out], capture_output=True, text=True, check=False
    )
    took = time.perf_counter() - began
    if done.returncode or not done.stdout.startswith("UNANCHORED\n"):
        raise UsageError(f"the bench's ledger is not exported ({done.stderr.strip()[:200]}); please report this")
    out.unlink()
    return took
