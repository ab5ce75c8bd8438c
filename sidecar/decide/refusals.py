"""Recording refused requests without letting a peer fill the ledger with them.

Each peer has a small budget of REJECTED entries, another for each principal proved there, and another for what speaks
against the ledger itself, so that junk cannot hide those; what exceeds it is counted, and the count goes into the next
such entry. Peers beyond a bound share one budget, so that memory is bounded too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sidecar.chain.entry import EntryType
from sidecar.decide import entries
from sidecar.decide.entries import Refusal
from sidecar.ledger import Draft

BURST = 10
PER_SECOND = 1.0
MAX_PEERS = 1_024
OTHERS = "other peers"

_Place = tuple[str, str, bool]  # peer, principal, alarm


@dataclass(slots=True)
class _Peer:
    tokens: float
    since: float
    last: Refusal
    unrecorded: int = 0


class RefusalBook:
    """Decides which refusals are written, and with which count. ``now`` is a monotonic clock in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._peers: dict[_Place, _Peer] = {}

    def note(self, peer: str, refusal: Refusal) -> Draft | None:
        """The entry to write for this refusal, or None where it is only counted."""
        place = (peer, refusal.principal, refusal.alarm)
        if place not in self._peers and len(self._peers) >= MAX_PEERS:
            place = (OTHERS, "", refusal.alarm)
        state = self._peers.setdefault(place, _Peer(BURST, self._now(), refusal))
        now = self._now()
        state.tokens = min(BURST, state.tokens + (now - state.since) * PER_SECOND)
        state.since = now
        state.unrecorded += 1
        state.last = refusal
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

    def _write(self, place: _Place, state: _Peer) -> Draft:
        count, state.unrecorded = state.unrecorded, 0
        return Draft(EntryType.REJECTED, entries.rejected(state.last, place[0], count))
