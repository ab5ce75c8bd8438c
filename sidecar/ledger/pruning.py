"""Pruning a ledger that no sidecar has open: payloads go, with the authority's grant beside what is left.

LMDB clears nothing: what was cut stays readable in freed pages and in the unused parts of others, and its own
compacting copy promises nothing about the latter. Therefore every record is written anew into a file that takes the
old one's place. What the disk still holds of the old file is beyond a program: that is what encrypted volumes are for.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from sidecar import files
from sidecar.chain.acts import Prune
from sidecar.chain.authority_note import Grant
from sidecar.chain.entry import TAGGED
from sidecar.chain.note import parse
from sidecar.chain.pruning import PRUNABLE
from sidecar.chain.seal import Seal
from sidecar.errors import LedgerDamaged, LedgerError
from sidecar.ledger.batch import NoteKind
from sidecar.ledger.directory import Lock
from sidecar.ledger.look import FILE
from sidecar.ledger.shipping import first_of
from sidecar.ledger.store import LmdbStore

_AT_ONCE: Final = 1_000
_ROOM: Final = 1 << 30  # beyond the file's size, for pages that are copied before they are freed


@dataclass(frozen=True, slots=True)
class Cut:
    """What came of it. ``entries``: payloads that went; ``before`` and ``after``: bytes of the file."""

    entries: int
    before: int
    after: int


def carry_out(directory: Path, grant: Grant, act: Prune) -> Cut:
    """Prune what ``act`` covers; done again, it does what was left. Whether it may be done was found out before.

    Raises:
        LedgerBusy, LedgerUnknown, LedgerDamaged, LedgerError: why not, or not all of it: do it again.
    """
    lock = Lock(directory)
    try:
        before = (directory / FILE).stat().st_size
        store = LmdbStore.open(directory, 2 * before + _ROOM)
        try:
            entries = _strip(store, grant, act)
            beside = directory / f"{FILE}.new"
            for old in (beside, beside.with_name(f"{beside.name}-lock")):
                old.unlink(missing_ok=True)
            store.rewrite(beside)
        finally:
            store.close()
        _replace(beside, directory / FILE)
        return Cut(entries, before, (directory / FILE).stat().st_size)
    except OSError as error:
        raise LedgerError(f"cannot write {directory}: {error.strerror}; make room, and prune again") from None
    finally:
        lock.release()


def _strip(store: LmdbStore, grant: Grant, act: Prune) -> int:
    ends = [(first_of(store, run.first), _after(store, run.last)) for run in act.runs]
    # The grant first: a payload that is gone without it would be INCOMPLETE.
    store.allow(sha256(grant.record).digest(), grant.record)
    entries = 0
    for first, after in ends:
        while first < after:
            cut, first = store.strip(first, after, PRUNABLE, TAGGED, _AT_ONCE)
            entries += cut
    return entries


def _after(store: LmdbStore, segment: int) -> int:
    signed = store.note(segment, NoteKind.SEAL)
    if signed is None:
        raise LedgerDamaged(f"segment {segment} is not sealed; run `sidecar verify`")
    seal = Seal.parse(parse(signed).text)
    return seal.first + seal.count


def _replace(beside: Path, place: Path) -> None:
    files.sync(beside)
    beside.chmod(0o600)
    beside.replace(place)
    for lock in (place.with_name(f"{FILE}-lock"), beside.with_name(f"{beside.name}-lock")):
        lock.unlink(missing_ok=True)
    files.sync(place.parent)
