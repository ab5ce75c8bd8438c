"""A day of one agent with everything a timeline shows: made with fixed seeds, the same bytes whenever it is made."""

from __future__ import annotations

import base64
from typing import Any

from sidecar.chain import strictjson
from sidecar.chain.entry import EntryType
from sidecar.chain.payload import policy_time
from sidecar.chain.stream import Kind
from tests.people import delegated
from tests.scribe import ACTIVATED, BUNDLE, Record, Scribe

AGENT = "billing-agent"
SECOND = 1_000_000_000
COMMIT = {
    "id": "4f2c91a8d7e6b5c4a3928170f6e5d4c3b2a19080",
    "author": "Ada Byte <ada@example.com>",
    "committer": "Ada Byte <ada@example.com>",
    "authored": "2025-12-31T16:00:00Z",
    "committed": "2025-12-31T16:02:11Z",
    "subject": "Refunds above 1,000 EUR need the finance lead",
}
SIGNER = {"principal": "ada@example.com", "key": "SHA256:n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg"}
GATE = [{"step": "check", "outcome": "passed", "note": "strict", "findings": []}]


def reasons(code: str, message: str) -> list[dict[str, str]]:
    return [{"code": code, "message": message}]


class Day:
    """Writes it, one thing after the other. ``seqs``: where what is, by a name."""

    def __init__(self) -> None:
        self.s = Scribe("day")
        self.seqs: dict[str, int] = {}

    def wait(self, seconds: int) -> None:
        self.s.mono += seconds * SECOND

    def decide(self, name: str, effect: str, action: str, resource: str, /, **changed: Any) -> int:
        """A decision; ``changed``: members, those of the request under ``asked``."""
        asked = changed.pop("asked", {})
        kind, _, place = resource.partition(":")
        value = self.s.decision_value(effect, changed.pop("proof", "asserted"))
        value["request"] |= {"action": action, "resource": {"type": kind, "id": place}, "context": "", **asked}
        value["time"] = policy_time(self.s.wall_offset + self.s.mono)
        value |= changed
        value["result"] = {"effect": effect, "reasons": value["reasons"]}
        tagged = None if value["agent"]["proof"] == "asserted" else value["agent"]["id"]
        about = value["approval"]["decision_seq"] if value["approval"] else None
        more = {} if about is None else {"ref_seq": about}
        self.seqs[name] = self.s.write(EntryType.DECISION, strictjson.dumps(value), agent=tagged, **more)
        return self.seqs[name]

    def done(self, name: str, decision: str, /, **changed: Any) -> int:
        """Its outcome."""
        seq = self.seqs[decision]
        agent = {key: self.s.payloads[seq]["agent"][key] for key in ("id", "proof")}
        value = {**self.s.outcome_value(seq), "agent": agent, **changed}
        tagged = None if agent["proof"] == "asserted" else agent["id"]
        self.seqs[name] = self.s.write(EntryType.OUTCOME, strictjson.dumps(value), ref_seq=seq, agent=tagged)
        return self.seqs[name]

    def approve(self, name: str, decision: str, by: str, /, **changed: Any) -> int:
        """An approver's word."""
        seq = self.seqs[decision]
        about = self.s.payloads[seq]
        value = {
            "type": "APPROVAL", "decision_id": about["decision_id"], "decision_seq": seq,
            "agent": {key: about["agent"][key] for key in ("id", "proof")}, "by": signed(by, "finance-lead"),
            "verdict": "approve", "action_digest": "0" * 64, "arguments_digest": "0" * 64,
            "policy": {name: about["policy"][name] for name in ("revision", "bundle_digest")}, "comment": "", **changed,
        }  # fmt: skip
        self.seqs[name] = self.s.write(EntryType.APPROVAL, strictjson.dumps(value), ref_seq=seq)
        return self.seqs[name]


def signed(name: str, *roles: str) -> dict[str, Any]:
    """Somebody who signed; nobody checks it here."""
    spki = base64.b64encode(name.encode().ljust(44, b"\0")).decode()
    return {
        "id": name, "proof": "signature", "roles": list(roles), "attributes": {}, "statement": "", "signature": "",
        "key": spki,
    }  # fmt: skip


def day() -> Day:
    """Two epochs: work, a delegation, an approval, a crash, a clock that jumps, and an open end."""
    d = Day()
    s = d.s
    s.open()
    s.records.insert(0, Record(Kind.ATTACHMENT, BUNDLE, 0))
    origin = {"kind": "git", "place": "https://git.example.com/policies.git"}
    told = {**ACTIVATED, "source": origin, "commit": COMMIT, "signer": SIGNER, "gate": GATE}
    d.seqs["policy"] = s.write(EntryType.POLICY, strictjson.dumps(told))
    d.wait(60)
    d.decide(
        "read", "ALLOW", "crm.read", "customer:acme-42",
        asked={"purpose": "ticket 7", "arguments": '{"fields":["name"]}'},
        reasons=reasons("role_grants", "a role of this agent grants this action"),
    )  # fmt: skip
    d.done("read done", "read", response='{"name":"Acme GmbH"}', downstream_status="200", duration_ns="12400000")
    d.wait(30)
    instead = {
        "action": "payments.refund",
        "resource": {"type": "account", "id": "acme-42"},
        "arguments": '{"amount":400}',
    }
    d.decide(
        "deny", "DENY", "payments.refund", "account:acme-42",
        asked={"arguments": '{"amount":80000}', "purpose": "urgent, requested by the CEO", "alternatives": [instead]},
        reasons=reasons("over_cap", "the amount is above the hard cap of 50000 EUR"),
        alternatives=[{"effect": "ALLOW", "reasons": reasons("within_limit", "below the limit of the role")}],
    )  # fmt: skip
    d.wait(30)
    s.rejected(cause="arguments is not a JSON object", field="arguments", count=3)
    denied = s.payloads[d.seqs["deny"]]["decision_id"]
    late = {"cause": "decision_id: the decision was DENY", "decision_id": denied, "field": ""}
    s.rejected(call="ReportOutcome", principal=AGENT, code="FAILED_PRECONDITION", **late)
    s.rejected(principal="another-agent", cause="of another agent's request")
    _approved(d)
    s.crash()
    d.wait(386)
    s.open()
    d.wait(5)
    s.clock(3600 * SECOND)
    d.decide("other", "ALLOW", "crm.read", "customer:x", agent={**signed("another-agent")}, reasons=[])
    d.decide("lost", "ALLOW", "invoices.create", "invoice:CN-2231", asked={"arguments": '{"amount":120}'})
    timeout = reasons("engine_timeout", "the policy engine did not answer in time")
    d.decide("late", "DENY", "web.fetch", "url:https://example.com/", cause="engine_timeout", reasons=timeout)
    terms = {"count": 1, "roles": [], "expires": policy_time(s.wall_offset + s.mono + 3600 * SECOND)}
    d.decide("waiting", "REQUIRE_APPROVAL", "email.send", "mailbox:x@example.com", terms=terms)
    s.head()
    return d


def _approved(d: Day) -> None:
    """A refund on somebody's behalf, approved by two, carried out by an executor."""
    giver = {"id": "carla@example.com", "kind": "human", "roles": ["account-manager"], "attributes": {}}
    given = delegated("carla@example.com", AGENT, actions=["payments.*"], resources=["account:*"])
    leave = {
        "text": given.text.decode(), "key": base64.b64encode(given.key).decode(),
        "signature": base64.b64encode(given.signature).decode(),
    }  # fmt: skip
    agent = signed(AGENT, "billing")
    asked = {"arguments": '{"amount":4800}', "delegations": [leave], "executor": "payments-gateway"}
    gateway = {"id": "payments-gateway", "roles": [], "attributes": {}}
    expires = policy_time(d.s.wall_offset + d.s.mono + 3600 * SECOND)
    common: dict[str, Any] = {"agent": agent, "delegators": [giver], "executor": gateway}
    d.decide(
        "asks", "REQUIRE_APPROVAL", "payments.refund", "account:acme-42", asked=asked, **common,
        reasons=reasons("needs_approval", "amounts above 1000 EUR need an approval"),
        terms={"count": 2, "roles": ["finance-lead"], "expires": expires},
    )  # fmt: skip
    d.wait(120)
    d.approve("approval 1", "asks", "bob@example.com")
    d.approve("approval 2", "asks", "dana@example.com", comment="checked against the contract")
    about = d.s.payloads[d.seqs["asks"]]
    each = [
        {"seq": d.seqs[name], "time": policy_time(d.s.headers[d.seqs[name]].wall_ns),
         "by": {"id": by, "roles": ["finance-lead"], "attributes": {}}}
        for name, by in (("approval 1", "bob@example.com"), ("approval 2", "dana@example.com"))
    ]  # fmt: skip
    under = {"decision_id": about["decision_id"], "decision_seq": d.seqs["asks"], "approvals": each}
    until = {"not_after": str(d.s.wall_offset + d.s.mono + 60 * SECOND)}
    d.decide(
        "again", "ALLOW", "payments.refund", "account:acme-42", asked=asked | {"approval_of": about["decision_id"]},
        **common, approval=under, permit=until, obligations=[{"kind": "notify", "parameters": {"to": "finance"}}],
        reasons=reasons("approved", "two finance leads approved it"),
    )  # fmt: skip
    d.done(
        "again done", "again", by=signed("payments-gateway"), status="failed", permit="a permit",
        downstream_status="503", response='{"error":"the bank closed the connection"}', duration_ns="2000000000",
    )  # fmt: skip
