"""Recording refused requests without letting a peer fill the ledger with them.

Each peer has a small budget of REJECTED entries, and another for what speaks against the ledger itself, so that junk
cannot hide it; what exceeds it is counted, and the count goes into that peer's next entry. Peers beyond a bound share
one budget, so that memory is bounded too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sidecar.chain.entry import EntryType
from sidecar.decide import entries
from sidecar.ledger import Draft

BURST = 10
PER_SECOND = 1.0
MAX_PEERS = 1_024
OTHERS = "other peers"


@dataclass(slots=True)
class _Peer:
    tokens: float
    since: float
    unrecorded: int = 0
    last: tuple[str, str, str] = ("", "", "")


@dataclass(frozen=True, slots=True)
class Refusal:
    """One refused request: gRPC status name, field, cause."""

    code: str
    field: str
    cause: str

    @property
    def alarm(self) -> bool:
        """Whether it says something against this ledger: a receipt it does not hold. Never counted among others."""
        return self.code == "FAILED_PRECONDITION" and self.cause.startswith("last_receipt")


class RefusalBook:
    """Decides which refusals are written, and with which count. ``now`` is a monotonic clock in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._peers: dict[tuple[str, bool], _Peer] = {}

    def note(self, peer: str, refusal: Refusal) -> Draft | None:
        """The entry to write for this refusal, or None where it is only counted."""
        place = (peer, refusal.alarm)
        if place not in self._peers and len(self._peers) >= MAX_PEERS:
            place = (OTHERS, refusal.alarm)
        state = self._peers.setdefault(place, _Peer(BURST, self._now()))
        now = self._now()
        state.tokens = min(BURST, state.tokens + (now - state.since) * PER_SECOND)
        state.since = now
        state.unrecorded += 1
        state.last = (refusal.code, refusal.field, refusal.cause)
        if state.tokens < 1:
            return None
        state.tokens -= 1
        return self._write(place, state)

    def remainder(self, *, everything: bool = False) -> list[Draft]:
        """Entries for what was only counted, of peers whose budget allows again, or of all at shutdown."""
        drafts = []
        for place, state in list(self._peers.items()):
            refilled = min(BURST, state.tokens + (self._now() - state.since) * PER_SECOND)
            if state.unrecorded and (everything or refilled >= 1):
                state.tokens, state.since = refilled - 1, self._now()
                drafts.append(self._write(place, state))
            elif not state.unrecorded and refilled >= BURST:
                del self._peers[place]
        return drafts

    def _write(self, place: tuple[str, bool], state: _Peer) -> Draft:
        code, field, cause = state.last
        count, state.unrecorded = state.unrecorded, 0
        return Draft(EntryType.REJECTED, entries.rejected(code, field, cause, place[0], count))
