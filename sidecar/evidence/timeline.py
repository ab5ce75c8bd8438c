"""What one agent did in a window, in the order of the ledger: each attempt with all that belongs to it, and the gaps.

One pass. A decision's row gathers what comes later about it (approvals, outcomes, refused reports), also from after
the window. Between the rows stands what bears on them: policies and registries put in force or refused, and, marked as
gaps, whatever keeps the account from being whole. As it is recorded: nothing here says that it is true.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sidecar.chain.entry import EntryType, Header
from sidecar.chain.payload import policy_time
from sidecar.chain.printable import to_milliseconds
from sidecar.chain.recorded import entry
from sidecar.chain.stream import Kind
from sidecar.errors import Malformed, UsageError

from . import gaps, rows
from .range import Range, Restore

MAX_ROWS: Final = 100_000
_MAX_BYTES: Final = 512 << 20  # of the payloads behind the rows
_ACTS: Final = 100
_SECOND: Final = 1_000_000_000
_MOST_BEHIND: Final = _SECOND  # that the wall clock may depart from the boot-time clock (LEDGER.md, "Clock")


@dataclass(slots=True)
class Row:
    """One thing that happened at entry ``seq``. ``gap``: it keeps the account from being whole.

    ``kind``: decision, outcome or approval (of a decision outside the window), refusal, policy, registry, erasure; or
    of a gap: down, clock, missing, withheld, unreadable, outside. ``said``: it in a sentence; ``about``: all of it.
    """

    kind: str
    seq: int
    wall_ns: int
    said: str
    gap: bool = False
    about: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        told = {"kind": self.kind, "gap": self.gap, "seq": rows.number(self.seq), "time": rows.at(self.wall_ns)}
        return {**told, "said": self.said, **self.about}


@dataclass(frozen=True, slots=True)
class Timeline:
    """``read``: how much of a ledger was looked at to make it."""

    within: Range
    read: Mapping[str, Any]
    rows: tuple[Row, ...]

    def to_json(self) -> dict[str, Any]:
        """``timeline.json`` (proto/CERTIFICATE.md, "Timeline")."""
        start, end = (None if each is None else policy_time(each) for each in (self.within.start, self.within.end))
        return {
            "format": "sidecar/v1/timeline",
            "agent": self.within.agent,
            "from": start,
            "to": end,
            "read": dict(self.read),
            "rows": [row.to_json() for row in self.rows],
        }


def timeline(
    stream: Iterable[tuple[Kind, bytes]], within: Range, *, most: int = MAX_ROWS, restore: Restore = lambda _, __: None
) -> Timeline:
    """The account of a stream. ``restore`` puts sealed personal values back where it can.

    Raises:
        UsageError: more than ``most`` entries belong in it.
    """
    account = _Account(within, most, restore)
    account.take(stream)
    return account.told()


def timelines(told: Sequence[Timeline]) -> dict[str, Any]:
    """One account as it is; several in one object."""
    if len(told) == 1:
        return told[0].to_json()
    return {"format": "sidecar/v1/timelines", "chains": [each.to_json() for each in told]}


class _Account:
    def __init__(self, within: Range, most: int, restore: Restore) -> None:
        self._range, self._most, self._restore = within, most, restore
        self._rows: list[Row] = []
        self._held = self._bytes = 0
        self._decisions: dict[int, Row] = {}
        self._by_id: dict[str, Row] = {}
        self._policies: dict[tuple[str, str], Mapping[str, Any]] = {}
        self._first: Header | None = None
        self._last: Header | None = None
        self._base = 0
        self._entries = 0
        self._chain = b""
        self._trouble = ""
        self._allowed: list[dict[str, Any]] = []

    # --- reading

    def take(self, stream: Iterable[tuple[Kind, bytes]]) -> None:
        try:
            for kind, body in stream:
                if kind is Kind.ENTRY:
                    self._entry(body)
                elif kind is Kind.AUTHORITY and len(self._allowed) < _ACTS and (act := rows.authority(body)):
                    self._allowed.append(act)
                elif kind is Kind.BARE:
                    self._bare(body)
        except Malformed as error:
            self._trouble = str(error)

    def _entry(self, body: bytes) -> None:
        self._entries += 1
        try:
            header, payload = entry(body)
            self._restore(header, payload)
        except Malformed as error:
            self._unreadable(body, str(error))
            return
        self._order(header)
        self._clock(header)
        take = self._TAKE.get(header.type)
        if take is not None:
            take(self, header, payload)
        self._first, self._last = self._first or header, header

    def _bare(self, body: bytes) -> None:
        """An entry whose payload is not here; those in a row make one gap."""
        self._entries += 1
        try:
            header = Header.decode(body[:184])
        except Malformed as error:
            self._unreadable(body, str(error))
            return
        self._order(header)
        self._clock(header)
        self._first, self._last = self._first or header, header
        before = self._rows[-1] if self._rows else None
        if before is not None and before.kind == "withheld" and before.about["through"] == header.seq - 1:
            before.about["through"] = rows.number(header.seq)
            before.said = gaps.withheld(before.seq, header.seq)
        else:
            said = gaps.withheld(header.seq, header.seq)
            self._gap("withheld", header, said, about={"through": rows.number(header.seq)})

    def _unreadable(self, body: bytes, why: str) -> None:
        try:
            header = Header.decode(body[:184])
        except Malformed:
            self._gap("unreadable", self._last, f"an entry cannot be read ({why}); run sidecar verify")
            return
        self._order(header)
        self._gap("unreadable", header, f"entry {header.seq} cannot be read ({why}); run sidecar verify")
        self._first, self._last = self._first or header, header

    def _order(self, header: Header) -> None:
        self._chain = self._chain or header.chain_id
        last = self._last
        if last is None:
            if header.seq > 0 and (self._range.start is None or header.wall_ns > self._range.start):
                self._gap("outside", header, f"what is read begins with entry {header.seq}: nothing before it is here")
        elif header.seq != last.seq + 1:
            missing = f"entries {last.seq + 1} to {header.seq - 1} are not here"
            said = missing if header.seq > last.seq else f"entry {header.seq} follows entry {last.seq}: out of order"
            self._gap("missing", header, f"{said}; run sidecar verify", since=last.wall_ns)

    def _clock(self, header: Header) -> None:
        departed = header.wall_ns - header.mono_ns
        new = self._last is None or header.epoch != self._last.epoch
        if not new and header.type is not EntryType.CLOCK and abs(departed - self._base) > _MOST_BEHIND:
            moved = (departed - self._base) / _SECOND
            self._gap(
                "clock", header, f"the wall clock moved by {moved:+.3f} s before this entry, and no entry says so"
            )
            new = True
        if new or header.type is EntryType.CLOCK:
            self._base = departed

    # --- entries

    def _decision(self, header: Header, payload: Mapping[str, Any]) -> None:
        under = payload["approval"]
        if under is not None and (asked := self._decisions.get(under["decision_seq"])) is not None:
            again = {"seq": rows.number(header.seq), "time": rows.at(header.wall_ns), "effect": payload["effect"]}
            self._hold(header)
            asked.about["asked_again"].append(again)
        if not self._range.holds(header, payload):
            return
        about = rows.decision(payload, self._policies)
        row = self._row("decision", header, "", about=about)
        self._decisions[header.seq] = row
        self._by_id[payload["decision_id"]] = row

    def _outcome(self, header: Header, payload: Mapping[str, Any]) -> None:
        row = self._decisions.get(header.ref_seq)
        decided = None if row is None or row.about["sealed"] else row.about["arguments"]
        told = rows.outcome(header, payload, decided)
        if row is not None:
            self._hold(header)
            row.about["outcomes"].append(told)
        elif self._range.holds(header, payload):
            said = f"{payload['status']}: the outcome of the decision at entry {header.ref_seq}, before this window"
            self._row("outcome", header, said, about={"decision_id": payload["decision_id"], "outcome": told})

    def _approval(self, header: Header, payload: Mapping[str, Any]) -> None:
        row = self._decisions.get(header.ref_seq)
        told = rows.approval(header, payload)
        if row is not None:
            self._hold(header)
            row.about["approvals"].append(told)
        elif self._range.holds(header, payload):
            by = f"{payload['verdict']} by {payload['by']['id']}"
            said = f"{by}, of the decision at entry {header.ref_seq}, before this window"
            self._row("approval", header, said, about={"decision_id": payload["decision_id"], "approval": told})

    def _rejected(self, header: Header, payload: Mapping[str, Any]) -> None:
        told = rows.rejected(header, payload)
        if (row := self._by_id.get(payload["decision_id"])) is not None:
            self._hold(header)
            row.about["refused"].append(told)
        wanted = self._range.agent
        if not self._range.covers(header.wall_ns) or payload["principal"] not in {"", wanted or payload["principal"]}:
            return
        times = f" ({payload['count']} times)" if payload["count"] > 1 else ""
        field = f"{payload['field']}: " if payload["field"] else ""
        said = f"a {payload['call'] or 'call'} was refused{times}, {payload['code']}: {field}{payload['cause']}"
        if not payload["principal"]:
            said += "; nobody was proved to have sent it, so it may be anybody's"
        self._row("refusal", header, said, gap=True, about=told)

    def _policy(self, header: Header, payload: Mapping[str, Any]) -> None:
        told = rows.policy(header, payload)
        if payload["event"] != "refused":
            self._policies[payload["revision"], payload["bundle_digest"]] = told
        if self._range.covers(header.wall_ns):
            said = f"policy {payload['event']}: revision {payload['revision'] or 'unknown'}"
            about = {name: payload[name] for name in ("event", "revision", "bundle_digest")}
            self._row("policy", header, said, about={**about, **told})

    def _registry(self, header: Header, payload: Mapping[str, Any]) -> None:
        if self._range.covers(header.wall_ns):
            cause = f": {payload['cause']}" if payload["cause"] else ""
            about = {"event": payload["event"], "digest": payload["digest"], "revision": payload["revision"]}
            self._row("registry", header, f"registry {payload['event']}{cause}", about=about)

    def _open(self, header: Header, payload: Mapping[str, Any]) -> None:
        last = self._last
        if payload.get("unconfirmed"):
            said = "the sidecar started without anybody to confirm that this ledger is the newest"
            self._gap("down", header, said)
        if last is None or last.type is EntryType.GENESIS:
            if last is not None and self._range.start is not None and self._range.start < header.wall_ns:
                self._gap("outside", header, "the ledger begins here: nothing before it is on record")
            return
        ended = "it was stopped in order" if last.type is EntryType.CLOSE else (
            f"it ended without a CLOSE, as in a crash; what it did after entry {last.seq} is not on record"
        )  # fmt: skip
        down, up = (to_milliseconds(rows.at(each.wall_ns)) for each in (last, header))
        said = f"no sidecar was running from {down} to {up}: {ended}"
        about = {"since": rows.at(last.wall_ns), "in_order": last.type is EntryType.CLOSE}
        self._gap("down", header, said, since=last.wall_ns, about=about)

    def _step(self, header: Header, payload: Mapping[str, Any]) -> None:
        moved = int(payload["step_ns"])
        said = f"the wall clock moved by {moved / _SECOND:+.3f} s: times before and after differ by that"
        self._gap("clock", header, said, about={"step_ns": payload["step_ns"]})

    def _tombstone(self, header: Header, payload: Mapping[str, Any]) -> None:
        if self._range.covers(header.wall_ns):
            subject = payload.get("subject", "")
            said = f"the personal values of the data subject {subject} were erased, with the authority's leave"
            self._row("erasure", header, said, about={"subject": subject})

    _TAKE: Final[Mapping[EntryType, Callable[[_Account, Header, Mapping[str, Any]], None]]] = {
        EntryType.DECISION: _decision,
        EntryType.OUTCOME: _outcome,
        EntryType.APPROVAL: _approval,
        EntryType.REJECTED: _rejected,
        EntryType.POLICY: _policy,
        EntryType.REGISTRY: _registry,
        EntryType.OPEN: _open,
        EntryType.CLOCK: _step,
        EntryType.TOMBSTONE: _tombstone,
    }

    # --- rows

    def _row(
        self, kind: str, header: Header, said: str, *, gap: bool = False, about: dict[str, Any] | None = None
    ) -> Row:
        self._hold(header)
        row = Row(kind, header.seq, header.wall_ns, said, gap, about or {})
        self._rows.append(row)
        return row

    def _hold(self, header: Header) -> None:
        """What an entry says is kept: of so many, and so much in all."""
        self._held += 1
        self._bytes += header.payload_len
        if self._held > self._most or self._bytes > _MAX_BYTES:
            raise UsageError(f"the window holds more than {self._most:,} entries, or too long ones; give a shorter one")

    def _gap(
        self,
        kind: str,
        header: Header | None,
        said: str,
        *,
        since: int | None = None,
        about: dict[str, Any] | None = None,
    ) -> None:
        """A gap at an entry, or from ``since`` up to it, if that touches the window."""
        if header is None:
            self._trouble = self._trouble or said
            return
        start, end = self._range.start, self._range.end
        began = header.wall_ns if since is None else min(since, header.wall_ns)
        if (start is None or header.wall_ns >= start) and (end is None or began < end):
            self._row(kind, header, said, gap=True, about=about)

    # --- the end

    def told(self) -> Timeline:
        last, end = self._last, self._range.end
        if last is not None:
            until = f"entry {last.seq} at {to_milliseconds(rows.at(last.wall_ns))}"
            for row in self._decisions.values():
                row.about["gaps"] = gaps.of_decision(row.about, last.wall_ns, until)
                row.gap = bool(row.about["gaps"])
                row.said = gaps.said(row.about)
            if last.type is not EntryType.CLOSE and (end is None or end > last.wall_ns):
                said = f"what is read ends with {until}, without a CLOSE: what came after it is not here"
                self._gap("outside", last, said)
        if self._trouble:
            place = last.seq if last is not None else 0
            wall = last.wall_ns if last is not None else 0
            said = f"reading ended early: {self._trouble}; run sidecar verify"
            self._rows.append(Row("unreadable", place, wall, said, gap=True))
        return Timeline(self._range, self._read(), tuple(self._rows))

    def _read(self) -> dict[str, Any]:
        first, last = self._first, self._last
        return {
            "chain": self._chain.hex(),
            "entries": self._entries,
            "first": None if first is None else {"seq": rows.number(first.seq), "time": rows.at(first.wall_ns)},
            "last": None if last is None else {"seq": rows.number(last.seq), "time": rows.at(last.wall_ns)},
            "allowed": self._allowed,
            "verified": False,
        }
