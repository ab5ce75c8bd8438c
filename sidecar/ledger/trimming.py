"""What a ledger lets go of by itself: entries of segments that a log receipted, so that its collector has them.

Notes stay, and the entries that say what the chain is, what was in force and what was erased (GENESIS, OPEN, POLICY,
REGISTRY, TOMBSTONE). What is
left is the chain's end, with enough to follow every signing key of it: its stream starts with context (proto/LEDGER.md,
"A ledger that keeps its end"), and whoever verifies it is told that it is not whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sidecar.chain import note, payload
from sidecar.chain.entry import TAGGED, EntryType, Header, StoredEntry, tagged
from sidecar.chain.seal import Seal
from sidecar.errors import Malformed
from sidecar.ledger.batch import NoteKind
from sidecar.ledger.port import Kept, Store

STAYING: Final = frozenset(
    {EntryType.GENESIS, EntryType.OPEN, EntryType.POLICY, EntryType.REGISTRY, EntryType.TOMBSTONE}
)
"""What is never let go of. TOMBSTONEs tell which keys must not come back."""

_AT_ONCE: Final = 256
_TYPE_AT: Final = 8
_MOST_WAITING: Final = 100_000


@dataclass(frozen=True, slots=True)
class Keep:
    """How much stays. ``ns``: what was sealed later than so long ago; ``size``: at most so many bytes in use, as far as
    receipted segments can go; 0: that is no reason to let anything go."""

    ns: int = 0
    size: int = 0


class Trimmer:
    """One ledger's. ``opened``: the number of the entry that the open segment starts with; ``now``: wall clock, ns."""

    def __init__(self, store: Store, keep: Keep, opened: Callable[[], int], now: Callable[[], int]) -> None:
        self._store, self._keep, self._opened, self._now = store, keep, opened, now

    def trim(self, receipted: int) -> int:
        """Let go of what may go of the segments up to ``receipted``; how many entries went. Raises LedgerError."""
        if not (self._keep.ns or self._keep.size):
            return 0
        target = self._target(receipted)
        self._store.keep_from(target)  # first: from then on nobody takes what is left of it for a whole ledger
        gone, at = 0, self._store.let_go_upto()
        while at < target.seq:
            bodies = list(self._store.entries_from(at, target.seq, _AT_ONCE))
            going = [(seq, body) for seq, body in bodies if body[_TYPE_AT] not in STAYING]
            at = bodies[-1][0] + 1 if len(bodies) == _AT_ONCE else target.seq
            self._store.let_go([seq for seq, _ in going], [i for _, b in going if (i := decision_of(b))], at)
            gone += len(going)
        return gone

    def _target(self, receipted: int) -> Kept:
        """Where what stays begins: not before where it begins now."""
        found = self._store.kept() or Kept(0, 0)
        last = self._opened() - 1  # the last sealed entry stays: a start after a crash goes on from it
        now = self._now()
        waiting = min(self._store.waiting(now, _MOST_WAITING), default=last)
        over = self._store.in_use() - self._keep.size if self._keep.size else 0
        while found.segment <= receipted:
            signed = self._store.note(found.segment, NoteKind.SEAL)
            if signed is None:
                break
            seal = Seal.parse(note.parse(signed).text)
            after = seal.first + seal.count
            old = bool(self._keep.ns) and seal.time < now - self._keep.ns
            if not (old or over > 0) or after > min(last, waiting):
                break
            over -= sum(map(len, self._store.entries(seal.first, seal.count))) if over > 0 else 0
            found = Kept(found.segment + 1, after)
        return found


def decision_of(body: bytes) -> bytes | None:
    """The id by which the index finds a DECISION; None for any other entry, or one without payload."""
    if len(body) <= TAGGED or body[_TYPE_AT] != EntryType.DECISION:
        return None
    try:
        header = Header.decode(tagged(body)[0])
        value = payload.parse(EntryType.DECISION, StoredEntry.parse(body).payload(header.payload_len))
        return UUID(value["decision_id"]).bytes
    except Malformed:
        return None
