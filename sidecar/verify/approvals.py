"""Approvals across entries: what waited, who approved it, and that one ALLOW at most came of it (LEDGER.md rule 11).

Memory is bounded: a sidecar lets no more than 10,000 decisions wait at a time, so no more are remembered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sidecar.chain.entry import EntryType
from sidecar.chain.payload import policy_time
from sidecar.chain.printable import number_of
from sidecar.chain.registry import Registry
from sidecar.chain.statement import Statement
from sidecar.verify.coverage import Coverage
from sidecar.verify.principals import Principals, is_as
from sidecar.verify.report import Findings, Verdict
from sidecar.verify.unread import Unread

REMEMBERED: Final = 10_000


@dataclass(slots=True)
class _Waiting:
    decision_id: str
    agent: str
    barred: frozenset[str]
    terms: Mapping[str, Any]
    policy: tuple[str, str]
    action: str | None  # None here and below: sealed
    arguments: str | None
    approvals: dict[str, tuple[int, str | None]] = field(default_factory=dict)  # by whom: its entry, when it was signed


class Approvals:
    """Told of each APPROVAL, and of each DECISION that has to do with approvals or delegations, whose payload is in
    order, in their order."""

    def __init__(self, principals: Principals, unread: Unread, findings: Findings, coverage: Coverage) -> None:
        self._principals, self._unread, self._findings, self._coverage = principals, unread, findings, coverage
        self._waiting: dict[int, _Waiting] = {}
        self._over: dict[int, str] = {}  # of the last that wait no more, why
        self._forgotten = -1
        self._unknown = 0

    def entry(self, kind: EntryType, value: Mapping[str, Any], segment: int, seq: int) -> None:
        """An APPROVAL, or a DECISION of which something is ``asked`` (`leave.asked`)."""
        asked = value["asked"] if kind is EntryType.DECISION else None
        fault = self._approval(value, seq) if asked is None else self._decision(value, asked)
        if fault:
            self._findings.add(Verdict.TAMPERED, segment, seq, fault)
        if asked is not None and value["terms"] is not None:
            self._remember(value, asked, seq)

    def finish(self) -> None:
        """The stream has ended."""
        if self._unknown:
            entries = number_of(self._unknown, "entry", "entries")
            self._coverage.leave(f"what was approved, in {entries}: the decision is not in what was read")

    def _remember(self, value: Mapping[str, Any], asked: Mapping[str, Any], seq: int) -> None:
        if len(self._waiting) == REMEMBERED:
            self._forgotten = next(iter(self._waiting))
            del self._waiting[self._forgotten]
        agent = value["agent"]["id"]
        self._waiting[seq] = _Waiting(
            value["decision_id"], agent, frozenset({agent, *(g["id"] for g in value["delegators"])}), value["terms"],
            _policy(value), asked["action"], asked["arguments"],
        )  # fmt: skip

    def _found(self, about: Mapping[str, Any]) -> _Waiting | str | None:
        """What an entry is about, or why it is about nothing; None: that cannot be known."""
        seq = about["decision_seq"]
        found = self._waiting.get(seq)
        if found is None and (seq <= self._forgotten or seq in self._unread):
            self._unknown += 1
            return None
        if found is None or found.decision_id != about["decision_id"]:
            return self._over.get(seq, "it is about a decision that does not wait for approvals")
        return found

    def _end(self, seq: int, why: str) -> None:
        """This decision waits no more."""
        del self._waiting[seq]
        if len(self._over) == REMEMBERED:
            del self._over[next(iter(self._over))]
        self._over[seq] = why

    def _approval(self, value: Mapping[str, Any], seq: int) -> str | None:
        waiting, by = self._found(value), value["by"]
        if not isinstance(waiting, _Waiting):
            return waiting
        if (value["agent"]["id"], _policy(value)) != (waiting.agent, waiting.policy):
            return "it approves something else than the decision that it is about"
        digests = ((waiting.action, value["action_digest"]), (waiting.arguments, value["arguments_digest"]))
        if any(_differ(due, said or None) for due, said in digests):
            return "it approves something else than the decision that it is about"
        if by["id"] in waiting.barred:
            return "it is by the agent or by who gave it a delegation"
        fault = self._approver(by, waiting, None)
        if value["verdict"] == "reject":
            self._end(value["decision_seq"], "what it is about was rejected before")
        elif by["id"] in waiting.approvals:
            return "its approver had approved this before"
        else:
            signed = by["statement"].encode()
            waiting.approvals[by["id"]] = (seq, policy_time(Statement.parse(signed).time) if signed else None)
        return fault

    def _decision(self, value: Mapping[str, Any], asked: Mapping[str, Any]) -> str | None:
        fault = self._delegators(value, asked)
        if fault or value["approval"] is None:
            return fault
        waiting = self._found(value["approval"])
        if not isinstance(waiting, _Waiting):
            return waiting
        if value["agent"]["id"] != waiting.agent or _differ(asked["action"], waiting.action):
            return "it is another question than the one that was approved"
        if value["effect"] != "DENY" and _policy(value) != waiting.policy:
            return "it is by another policy than the one that asked for the approvals"
        if value["time"] >= waiting.terms["expires"]:
            return "what it was asked under had expired"
        if value["effect"] == "ALLOW":
            self._end(value["approval"]["decision_seq"], "what it is about was used for an ALLOW before")
        return self._counted(value, waiting)

    def _counted(self, value: Mapping[str, Any], waiting: _Waiting) -> str | None:
        named = value["approval"]["approvals"]
        given = [_given(waiting.approvals.get(each["by"]["id"]), each) or each["seq"] in self._unread for each in named]
        if not all(given):
            return "an approval that it names was not given"
        if len(named) < waiting.terms["count"]:
            return "it names fewer approvals than were required"
        for each in named:
            fault = self._approver(each["by"], waiting, value["registry"])
            if fault:
                return fault
        return None

    def _approver(self, by: Mapping[str, Any], waiting: _Waiting, named: Mapping[str, Any] | None) -> str | None:
        """``named``: the registry that the entry names, if it names one: there, roles and attributes are the same."""
        roles = waiting.terms["roles"]
        if named is None and not self._principals.all_known:
            return None
        if roles and not set(roles).intersection(by["roles"]):
            return f"{by['id']} had none of the roles that the approval takes"
        faults = [_unfit(by, each, named) for each in self._registries(named)]
        return faults[-1] if faults and all(faults) else None

    def _delegators(self, value: Mapping[str, Any], asked: Mapping[str, Any]) -> str | None:
        for read in self._registries(value["registry"]):
            for giver, key in zip(value["delegators"], asked["keys"], strict=True):
                found = read.principals.get(giver["id"])
                if found is None or found.kind != giver["kind"] or not is_as(found, giver):
                    return f"{giver['id']}, who gave a delegation, is not so in the registry in force"
                held = found.keys.get(key)
                if found.status != "active" or held is None or not held.valid(value["time"]):
                    return f"{giver['id']}, who gave a delegation, or its key, was not active"
        return None

    def _registries(self, named: Mapping[str, Any] | None) -> list[Registry]:
        """That one, if it is known; else those that were last in force."""
        return self._principals.registries(None if named is None else named["digest"])


def _given(approval: tuple[int, str | None] | None, named: Mapping[str, Any]) -> bool:
    return approval is not None and approval[0] == named["seq"] and not _differ(approval[1], named["time"])


def _differ(one: str | None, other: str | None) -> bool:
    """Whether two values differ that are both known."""
    return None not in (one, other) and one != other


def _unfit(by: Mapping[str, Any], read: Registry, named: object) -> str | None:
    found = read.principals.get(by["id"])
    if found is None or found.kind != "approver" or found.status != "active":
        return f"{by['id']} was not an active approver in the registry in force"
    if named is not None and not is_as(found, by):
        return f"roles or attributes of {by['id']} are not those of the registry in force"
    return None


def _policy(value: Mapping[str, Any]) -> tuple[str, str]:
    return value["policy"]["revision"], value["policy"]["bundle_digest"]
