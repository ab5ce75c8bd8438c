"""The list of decisions that wait for approvals: from the ledger when it is opened, and kept up with what is recorded.

What is not on this list does not wait, whatever else is stored: the ledger's index names those that wait, a row less
only makes somebody ask anew, and a row too many is found out by the entries that refer to its decision.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

from sidecar.chain.entry import EntryType
from sidecar.decide.approvals import Now, Pending, given, standing
from sidecar.errors import LedgerDamaged, LedgerError, TooMany, WrongState
from sidecar.ledger import Ledger, unopened

PER_AGENT: Final = 100
IN_ALL: Final = 10_000
WATCHERS: Final = 1_024
WATCHES: Final = 100
"""Of one principal: whoever held all of them would keep every other agent from hearing of its approvals."""
LOOK_EVERY: Final = 1.0  # seconds: what nobody tells of is the time, another policy, another registry


class Waiting:
    """The decisions that wait. ``now`` tells what they are held against. Used on the event loop's thread alone."""

    def __init__(self, ledger: Ledger, now: Callable[[], Now]) -> None:
        self._ledger, self._now = ledger, now
        self._pending: dict[str, Pending] = {}
        self._expected: Counter[str] = Counter()  # by agent, what is being recorded
        self._events: dict[str, set[asyncio.Event]] = {}
        self._watches: Counter[str] = Counter()  # by principal
        self._ended = False
        for seq in ledger.waiting(IN_ALL):
            self._resume(seq)

    @property
    def watchers(self) -> int:
        """How many watch."""
        return self._watches.total()

    def __len__(self) -> int:
        return len(self._live())

    @contextmanager
    def room(self, agent: str) -> Iterator[None]:
        """Room for one decision more, kept while it is recorded. Raises TooMany where none may wait any more."""
        live = self._live()
        of_agent = sum(each.agent["id"] == agent for each in live) + self._expected[agent]
        if of_agent >= PER_AGENT or len(live) + self._expected.total() >= IN_ALL:
            raise TooMany(f"approval: {of_agent} decisions of this agent wait for approvals; see to those first")
        self._expected[agent] += 1
        try:
            yield
        finally:
            self._expected -= Counter((agent,))  # which forgets an agent of whom none is left

    def add(self, seq: int, payload: Mapping[str, Any]) -> None:
        """A decision was recorded; from now on it waits, if it has to."""
        pending = Pending.of(seq, payload)
        if pending is not None:
            self._pending[pending.decision_id] = pending

    def find(self, decision_id: str) -> Pending:
        """A decision that waits, or waited.

        Raises:
            NotFound: there is no such decision. WrongState: it required no approval.
        """
        found = self._pending.get(decision_id)
        if found is not None:
            return found
        decision = self._ledger.decision(decision_id)
        past = self._read(decision.seq, decision.payload)
        if past is None:
            raise WrongState("decision_id: that decision requires no approval, or what it asked was erased")
        past.settled = past.settled or "expired"
        return past

    def open(self) -> list[Pending]:
        """Those that still wait for somebody: each agent's oldest first, then each one's next, and so on."""
        now = self._now()
        rank: dict[str, int] = {}
        ranked: list[tuple[int, int, Pending]] = []
        for each in sorted(self._live(), key=lambda pending: pending.seq):
            if standing(each, now) == "pending":
                agent = each.agent["id"]
                rank[agent] = rank.get(agent, 0) + 1
                ranked.append((rank[agent], each.seq, each))
        return [each for _, _, each in sorted(ranked, key=lambda item: item[:2])]

    def changed(self, pending: Pending) -> None:
        """Something was recorded of it."""
        for event in self._events.get(pending.decision_id, ()):
            event.set()

    async def watch(self, pending: Pending, by: str) -> AsyncIterator[None]:
        """Now, and whenever it may have changed; ``by``: the principal who watches. Raises TooMany; LedgerError at the
        sidecar's end."""
        with self._watching(pending.decision_id, by) as event:
            while not self._ended:
                yield
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_EVERY):
                        await event.wait()
                event.clear()
        raise LedgerError("the sidecar stops; watch again when it is back")

    def end(self) -> None:
        """Let go of those who watch."""
        self._ended = True
        for events in self._events.values():
            for event in events:
                event.set()

    @contextmanager
    def _watching(self, decision_id: str, by: str) -> Iterator[asyncio.Event]:
        if self._watches[by] >= WATCHES or self.watchers >= WATCHERS:
            raise TooMany(f"approval: too many watch, {self._watches[by]} for you; ask again now and then instead")
        event = asyncio.Event()
        self._watches[by] += 1
        self._events.setdefault(decision_id, set()).add(event)
        try:
            yield event
        finally:
            self._watches -= Counter((by,))  # which forgets whom none is left of
            self._events[decision_id].discard(event)
            if not self._events[decision_id]:
                del self._events[decision_id]

    def _live(self) -> list[Pending]:
        """Forget what has expired; the rest that is not settled."""
        time = self._now().time
        self._pending = {name: each for name, each in self._pending.items() if time < each.terms.expires}
        return [each for each in self._pending.values() if not each.settled]

    def look_again(self) -> None:
        """Some fields were erased: what was asked with them cannot be shown any more, so it is over."""
        for each in self._pending.values():
            if unopened(self._ledger.payload(each.seq)):
                each.settled = each.settled or "expired"
                self.changed(each)

    def _resume(self, seq: int) -> None:
        payload = self._ledger.payload(seq)
        pending = self._read(seq, payload)
        if pending is None and unopened(payload):
            return
        if pending is None:
            raise LedgerDamaged("the index of what waits names another entry than a decision that does; verify it")
        self._pending[pending.decision_id] = pending

    def _read(self, seq: int, payload: Mapping[str, Any]) -> Pending | None:
        """A decision as its entry and those that refer to it have it; None also where what it asked was erased."""
        shown = payload["type"] == EntryType.DECISION.name and not unopened(payload)
        pending = Pending.of(seq, payload) if shown else None
        for place, kind in self._ledger.about(seq) if pending is not None else ():
            assert pending is not None
            _learn(pending, place, kind, self._ledger.payload(place))
        return pending


def _learn(pending: Pending, seq: int, kind: EntryType, payload: Mapping[str, Any]) -> None:
    if kind is EntryType.DECISION and payload["effect"] == "ALLOW":
        pending.settled = "used"
    elif kind is EntryType.APPROVAL and payload["verdict"] == "reject":
        pending.settled = pending.settled or "rejected"
    elif kind is EntryType.APPROVAL and "statement" in payload["by"]:
        pending.approvals.append(given(seq, payload["by"]["id"], payload["by"]["statement"]))
