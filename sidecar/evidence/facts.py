"""What the exporter learns of a stream while it writes it, and what of that it says (proto/EVIDENCE.md, "Case")."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sidecar.chain.entry import EntryType
from sidecar.chain.payload import policy_time
from sidecar.chain.printable import number_of, without_zeros
from sidecar.chain.seal import Seal, seal_hash
from sidecar.verify.case import Statement

_SHOWN: Final = 20
_OPEN: Final = 1


@dataclass(slots=True)
class Facts:
    """One byte is remembered for each entry. ``sealed_at``: ns, of the last seal; ``committed``: segments whose seals
    commit to keys; ``seals``: the hashes of all, one after the other;
    ``latest``: texts of the last ones."""

    chain_id: bytes
    first_seq: int | None = None
    entries: int = 0
    bare: int = 0
    last_segment: int = -1
    sealed: int = -1
    sealed_at: int | None = None
    committed: list[int] = field(default_factory=list)
    crashed: list[int] = field(default_factory=list)
    open_entries: int = 0
    seals: bytearray = field(default_factory=bytearray)
    first_sealed: int | None = None
    latest: deque[str] = field(default_factory=lambda: deque(maxlen=8))
    asserted: int = 0
    vouched: int = 0
    sealed_fields: int = 0
    tagless: int = 0
    withheld_registries: int = 0
    _allows: bytearray = field(default_factory=bytearray)

    def entry(self, kind: int, ref_seq: int, seq: int, payload: Mapping[str, Any] | None) -> None:
        """The next entry; ``payload``: None where it is withheld or cannot be read."""
        if self.first_seq is None:
            self.first_seq = seq
        self.entries += 1
        self.open_entries += 1
        allowed = kind == EntryType.DECISION and payload is not None and payload.get("effect") == "ALLOW"
        self._allows.append(_OPEN if allowed else 0)
        place = ref_seq - self.first_seq
        if kind == EntryType.OUTCOME and 0 <= place < len(self._allows):
            self._allows[place] = 0
        if payload is not None and isinstance(said := payload.get("personal"), dict):
            self.sealed_fields += len(said.get("fields", ()))
        if kind == EntryType.DECISION and payload is not None:
            proof = _proof(payload)
            self.asserted += proof == "asserted"
            self.vouched += proof == "gateway"

    def seal(self, seal: Seal, text: str) -> None:
        """The open segment's seal, and its text."""
        if self.first_sealed is None:
            self.first_sealed = seal.segment
        self.seals += seal_hash(text)
        self.latest.append(text)
        self.last_segment = self.sealed = seal.segment
        self.sealed_at, self.open_entries = seal.time, 0
        (self.crashed if seal.mac_key is None else self.committed).append(seal.segment)

    def hash_of(self, segment: int) -> bytes | None:
        """The hash of a segment's seal; None: it has none here."""
        at = 32 * (segment - (self.first_sealed or 0))
        return bytes(self.seals[at : at + 32]) or None if at >= 0 else None

    def without_outcome(self) -> tuple[int, list[int]]:
        """How many allowed decisions have no outcome here, and the first of them."""
        first: list[int] = []
        at = self._allows.find(_OPEN)
        while at >= 0 and len(first) < _SHOWN:
            first.append((self.first_seq or 0) + at)
            at = self._allows.find(_OPEN, at + 1)
        return self._allows.count(_OPEN), first

    def statements(self, end: int, through: int | None, agents: tuple[str, ...] | None) -> Iterator[Statement]:
        """What is known not to be proved by the stream itself."""
        said = {
            "open_tail": self._tail(),
            "recovered": self._recovered(),
            "after": self._after(end, through),
            "missing_outcome": self._outcomes(),
            "asserted": _decisions(self.asserted, "of agents whose names nobody proved"),
            "vouched": _decisions(self.vouched, "of agents whom a gateway named"),
            "withheld": self._withheld(agents),
        }
        for kind, text in said.items():
            if text:
                yield Statement(self.chain_id, kind, text)

    def _tail(self) -> str:
        if not self.open_entries:
            return ""
        last = "the last entry is" if self.open_entries == 1 else f"the last {self.open_entries:,} entries are"
        return f"{last} in a segment that is not sealed"

    def _recovered(self) -> str:
        if not self.crashed:
            return ""
        segments = "segment" if len(self.crashed) == 1 else "segments"
        return f"{segments} {_list(self.crashed)} ended by a crash: what came after the last head is unknown"

    def _after(self, end: int, through: int | None) -> str:
        if through is not None and through >= end:
            return ""
        since = "" if through is None else f" after {without_zeros(policy_time(through))}"
        window = without_zeros(policy_time(end))
        return f"no seal shows what the chain wrote{since} up to the end of the window, {window}"

    def _outcomes(self) -> str:
        count, first = self.without_outcome()
        if not count:
            return ""
        decisions = number_of(count, "allowed decision has", "allowed decisions have")
        return f"{decisions} no outcome in this bundle: {'entry' if count == 1 else 'entries'} {_list(first)}"

    def _withheld(self, agents: tuple[str, ...] | None) -> str:
        if agents is None or not self.bare:
            return ""
        return (
            f"{number_of(self.bare, 'entry of others is', 'entries of others are')} withheld; of those without an "
            f"agent's tag (asserted agents, rejected requests, registries: {self.tagless:,}) nothing shows whom they "
            f"concern. Where registries are withheld ({self.withheld_registries:,}), keys, roles and attributes of "
            "those who signed are not checked. Entries of other agents that name an agent of this case as executor, "
            "approver or delegator are withheld too"
        )


def _proof(payload: Mapping[str, Any]) -> object:
    agent = payload.get("agent")
    return agent.get("proof") if isinstance(agent, dict) else None


def _decisions(count: int, whose: str) -> str:
    return f"{number_of(count, 'decision is', 'decisions are')} {whose}" if count else ""


def _list(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:_SHOWN]))
    return f"{shown}, and more" if len(numbers) >= _SHOWN else shown
