"""Bundles of a chain whose authority let payloads be pruned, and of one in which approvers had a say."""

from __future__ import annotations

from sidecar.chain.stream import Kind
from tests.conformance.chains import OURS, approved, bundle, disclosure, notary, pruned, source, window
from tests.conformance.packing import Files, packed
from tests.conformance.published import Row, published, rows, with_rows
from tests.scribe import Scribe, flip


def of(s: Scribe, first: int, last: int, agents: tuple[str, ...] | None = None) -> Files:
    """A good bundle of some segments."""
    start, end = window(s, first, last)
    return bundle([source(s, notary(s), last)], start, end, agents=agents, keys=disclosure(s))


def without_notes(files: Files) -> Files:
    return with_rows(files, [row for row in rows(files) if row[0] is not Kind.AUTHORITY])


@published("good-pruned", "PRUNED", of=pruned)
def _() -> bytes:
    return packed(of(pruned(), 0, 3))


@published("good-pruned-window", "PRUNED", of=pruned)
def _() -> bytes:
    return packed(of(pruned(), 1, 3))


@published("good-after-what-was-pruned", "OK", of=pruned)
def _() -> bytes:
    return packed(of(pruned(), 2, 3))


@published("good-pruned-agent", "PRUNED", of=pruned)
def _() -> bytes:
    return packed(of(pruned(), 0, 3, (OURS,)))


@published("29-pruned-without-the-note", "INCOMPLETE", 0, 0, 3, of=pruned)
def _() -> bytes:
    return packed(without_notes(of(pruned(), 0, 3)))


@published("29-pruned-agent-without-the-note", "INCOMPLETE", 0, 0, 3, of=pruned)
def _() -> bytes:
    return packed(without_notes(of(pruned(), 0, 3, (OURS,))))


@published("29-pruned-by-a-note-that-was-altered", "MALFORMED", 0, 0, 3, of=pruned)
def _() -> bytes:
    def altered(row: Row) -> Row:
        return (row[0], flip(row[1], len(row[1]) - 3)) if row[0] is Kind.AUTHORITY else row

    return packed(with_rows(of(pruned(), 0, 3), list(map(altered, rows(of(pruned(), 0, 3))))))


@published("29-note-in-another-place", "MALFORMED", 0, 0, 0, of=pruned)
def _() -> bytes:
    there = rows(of(pruned(), 0, 3))
    notes = [row for row in there if row[0] is Kind.AUTHORITY]
    rest = [row for row in there if row[0] is not Kind.AUTHORITY]
    return packed(with_rows(of(pruned(), 0, 3), [*rest[:2], *notes, *rest[2:]]))


@published("good-approved", "OK", of=approved)
def _() -> bytes:
    return packed(of(approved(), 0, 1))


@published("good-approved-window-after-the-question", "OK", of=approved)
def _() -> bytes:
    return packed(of(approved(), 1, 1))


@published("32-approval-left-out", "TAMPERED", 0, 0, 4, of=approved)
def _() -> bytes:
    files = of(approved(), 0, 1)
    there = [r for r in rows(files) if not (r[0] is Kind.ENTRY and int.from_bytes(r[1][16:24], "big") == 4)]
    return packed(with_rows(files, there))
