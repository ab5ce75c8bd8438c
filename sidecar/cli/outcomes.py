"""`sidecar show --outcomes`: allows and outcomes that do not go together.

One pass. Remembered are one byte for each entry, and of each ALLOW that has no outcome yet what will be said of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sidecar.chain.digests import arguments_digest
from sidecar.chain.entry import EntryType, Header
from sidecar.chain.payload import policy_time
from sidecar.chain.printable import to_milliseconds
from sidecar.cli.words import plain
from sidecar.errors import Malformed

OPEN: Final = "allow without outcome"
NO_ALLOW: Final = "outcome without allow"
CHANGED: Final = "changed arguments"
SECOND: Final = "second outcome"
REFUSED: Final = "refused outcome"
KINDS: Final = (OPEN, NO_ALLOW, CHANGED, SECOND, REFUSED)
_REFUSALS: Final = {"decision_id": NO_ALLOW, "arguments_digest": CHANGED, "outcome": SECOND}
_OTHER, _NO_ALLOW, _SHADOW, _ALLOW, _DONE, _GONE = range(6)  # what an entry is, as far as outcomes go


@dataclass(frozen=True, slots=True)
class _Allow:
    decision_id: str
    wall_ns: int
    arguments: bytes
    who: Mapping[str, str]


class Outcomes:
    """Takes the entries of a ledger or segment file in their order. ``now``: ns since 1970, for ages."""

    def __init__(self, now: int) -> None:
        self._now = now
        self._first: int | None = None
        self._states = bytearray()
        self._open: dict[int, _Allow] = {}
        self._names: dict[str, str] = {}

    def findings(self, entries: Iterable[tuple[Header, dict[str, Any] | None]]) -> Iterator[dict[str, Any]]:
        """What does not go together, as it is found; at the end the allows without outcome, oldest first.

        An entry without its payload was pruned: of it, and of what is about it, nothing is said.

        Raises:
            Malformed: the entries are not in their order.
        """
        for header, payload in entries:
            if self._first is None:
                self._first = header.seq
            if header.seq != self._first + len(self._states):
                raise Malformed(f"entry {header.seq} is out of its order; run `sidecar verify`")
            if payload is None:
                self._states.append(_GONE)
                self._settled(header)
                continue
            self._states.append(self._state(header, payload))
            yield from self._about(header, payload)
        for seq, allow in self._open.items():
            yield {
                **_finding(OPEN, allow.decision_id, seq, allow.wall_ns), **allow.who,
                "age_seconds": max(0, self._now - allow.wall_ns) // 1_000_000_000,
            }  # fmt: skip

    def _settled(self, header: Header) -> None:
        """An outcome whose payload was pruned: its decision has one."""
        if header.type is EntryType.OUTCOME and self._open.pop(header.ref_seq, None) is not None:
            self._states[header.ref_seq - (self._first or 0)] = _DONE

    def _state(self, header: Header, payload: Mapping[str, Any]) -> int:
        if header.type is not EntryType.DECISION:
            return _OTHER
        if payload["effect"] != "ALLOW":
            return _NO_ALLOW if payload["enforced"] else _SHADOW
        asked = payload["request"]
        who = {"agent": payload["agent"]["id"], "executor": asked["executor"], "action": asked["action"]}
        self._open[header.seq] = _Allow(
            payload["decision_id"], header.wall_ns, arguments_digest(asked["arguments"].encode()),
            {name: self._names.setdefault(value, value) for name, value in who.items()},
        )  # fmt: skip
        return _ALLOW

    def _about(self, header: Header, payload: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        if header.type is EntryType.REJECTED and payload["call"] == "ReportOutcome":
            what = payload["field"] or payload["cause"].partition(":")[0]
            kind = _REFUSALS.get(what, REFUSED)
            found = _finding(kind, payload["decision_id"], header.seq, header.wall_ns)
            yield {**found, "by": payload["principal"], "said": payload["cause"], "count": payload["count"]}
        elif header.type is EntryType.OUTCOME:
            for kind, said in self._outcome(header.ref_seq, payload):
                found = _finding(kind, payload["decision_id"], header.seq, header.wall_ns)
                yield {**found, "by": payload["by"]["id"], "said": said, "count": 1}

    def _outcome(self, decision: int, payload: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        assert self._first is not None
        if decision < self._first:
            return  # in an earlier segment than this file begins with
        place = decision - self._first
        state = self._states[place]
        if state == _GONE:
            return
        if state in (_OTHER, _NO_ALLOW):
            yield NO_ALLOW, "recorded, and what it is about is no ALLOW"
            return
        self._states[place] = _DONE
        allow = self._open.pop(decision, None)
        if state == _DONE:
            yield SECOND, "recorded, and its decision has one already"
        elif allow is not None and payload["arguments_digest"] not in (None, allow.arguments.hex()):
            yield CHANGED, "recorded, and its arguments are not those decided on"


def line(finding: Mapping[str, Any]) -> str:
    """A finding as a person reads it."""
    time = to_milliseconds(policy_time(int(finding["wall_ns"])))
    start = f"{finding['seq']:>8}  {time}  {finding['finding']:<21} {finding['decision_id'] or 'no decision named'}"
    if finding["finding"] == OPEN:
        by = f", by {finding['executor']}" if finding["executor"] else ""
        age = _age(finding["age_seconds"])
        return plain(f"{start}  {finding['agent']} {finding['action']}{by}, open for {age}")
    times = f" (×{finding['count']})" if finding["count"] > 1 else ""
    return plain(f"{start}  {finding['by'] or 'unproved'}: {finding['said']}{times}")


def _finding(kind: str, decision_id: str, seq: int, wall_ns: int) -> dict[str, Any]:
    return {"finding": kind, "decision_id": decision_id, "seq": seq, "wall_ns": str(wall_ns)}


def _age(seconds: int) -> str:
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds // unit} {name}"
    return f"{seconds} s"
