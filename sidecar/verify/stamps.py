"""Timestamps on the checkpoints that receipts rest on (proto/LOG.md, rule 6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from sidecar.chain.printable import number_of
from sidecar.chain.timestamp import Timestamp
from sidecar.errors import AnchorRefused, Malformed
from sidecar.verify.coverage import Coverage
from sidecar.verify.policy import Vouched
from sidecar.verify.report import Findings, Verdict

Check = Callable[[Timestamp], int]
"""When an authority saw a timestamp's checkpoint, POSIX seconds. Raises `AnchorRefused`."""


def judge_stamps(
    given: Sequence[bytes], check: Check | None, resting: Mapping[str, Vouched], findings: Findings, coverage: Coverage
) -> None:
    """``resting``: the checkpoints that receipts count by, by their texts."""
    good: dict[str, int] = {}
    bad: list[tuple[str, str]] = []
    for number, data in enumerate(given, 1):
        try:
            stamp = Timestamp.parse(data)
        except Malformed as error:
            findings.add(Verdict.MALFORMED, None, None, f"timestamp {number}: {error}")
            continue
        if stamp.checkpoint not in resting:
            coverage.leave(f"timestamp {number}: no receipt rests on the checkpoint it is for")
        elif check is None:
            coverage.leave(
                f"timestamp {number}: the trust file has no roots of authorities, or nothing here reads them"
            )
        else:
            try:
                seen = check(stamp)
                good[stamp.checkpoint] = min(seen, good.get(stamp.checkpoint, seen))
            except AnchorRefused as error:
                bad.append((stamp.checkpoint, f"timestamp {number}: {error}"))
    for text, seen in good.items():
        size = resting[text].checkpoint.size
        coverage.note(f"a timestamp authority saw the log's {number_of(size, 'entry', 'entries')} at {spelt(seen)}")
    for text, reason in bad:
        covered = text in good or bool(resting[text].witnesses)
        findings.add(Verdict.OK if covered else Verdict.TAMPERED, None, None, reason)


def spelt(seconds: int) -> str:
    """A time as people read it; the number where no calendar reaches."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return f"second {seconds}"
