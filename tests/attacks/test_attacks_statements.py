"""What principals signed, and the registry that says whose key it is: attacks by whoever has every key of the sidecar.

All tags and signatures of the chain are right throughout: only what the principals themselves signed speaks against it.
"""

from __future__ import annotations

import base64
import copy
from collections.abc import Callable
from typing import Any

import pytest

from sidecar.chain import strictjson
from sidecar.chain.entry import EntryType
from sidecar.chain.signing import key_id, public_spki
from sidecar.errors import Malformed
from sidecar.verify import Evidence, Trust, Verdict, parse_trust
from tests.attacks.expect import M, T, found, nothing_worse
from tests.scribe import (
    AGENT_KEY,
    EXECUTOR_KEY,
    NO_EVIDENCE,
    Scribe,
    judge,
    public,
    registry_text,
    signed_story,
    signing_key,
)

STORY = signed_story()
MALLORY = signing_key("mallory")
AGENT_ID, MALLORY_ID = (key_id(public_spki(key)) for key in (AGENT_KEY, MALLORY))
Change = Callable[[dict[str, Any]], None]


def begun() -> Scribe:
    """GENESIS, OPEN, REGISTRY at 2."""
    s = Scribe("signed")
    s.open()
    s.registry()
    return s


def rewritten(s: Scribe, seq: int, change: Change) -> Scribe:
    """As the decision or outcome at ``seq``, but changed; recorded at the next place."""
    value = copy.deepcopy(s.payloads[seq])
    change(value)
    kind = s.headers[seq].type
    agent = value["agent"]["id"] if value["agent"]["proof"] != "asserted" else None
    s.write(kind, strictjson.dumps(value), ref_seq=s.headers[seq].ref_seq, agent=agent)
    s.head()
    return s


def statement(old: str, new: str) -> Change:
    def change(value: dict[str, Any]) -> None:
        who = value.get("by") or value["agent"]
        assert old in who["statement"]
        who["statement"] = who["statement"].replace(old, new)

    return change


def request(name: str, new: str) -> Change:
    return lambda value: value["request"].update({name: new})


def agent(**members: Any) -> Change:
    return lambda value: value["agent"].update(members)


DECISIONS: dict[str, Change] = {
    "statement: time": statement("time 1", "time 2"),
    "statement: epoch": statement("epoch 0", "epoch 1"),
    "statement: not one": lambda v: agent(statement="hello")(v),
    "arguments": request("arguments", '{"amount":1000000}'),
    "action": request("action", "delete"),
    "purpose": request("purpose", "why not"),
    "executor": request("executor", "mallory-gateway"),
    "approval_of": request("approval_of", "019aaf3c-0000-7000-8000-000000000001"),
    "delegations": lambda v: v["request"]["delegations"].append({"text": "{}", "key": "", "signature": ""}),
    "agent": agent(id="payroll-agent"),
    "key": agent(key=base64.b64encode(public_spki(MALLORY)).decode()),
    "key: none": agent(key="AAAA"),
    "signature": agent(signature=base64.b64encode(bytes(64)).decode()),
    "roles": agent(roles=["billing", "chief"]),
    "attributes": agent(attributes={"team": "board"}),
    "registry": lambda v: v["registry"].update(digest="00" * 32),
    "registry: none": lambda v: v.update(registry=None),
}


@pytest.mark.parametrize("what", DECISIONS)
def test_a_signed_decision_is_changed(what: str) -> None:
    s = begun()
    s.signed_decision()
    nothing_worse([*s.records, *headed(s)])
    found(rewritten(s, 3, DECISIONS[what]).records, T, 0, 4)


def headed(s: Scribe) -> list[Any]:
    s.head()
    return [s.records.pop()]


OUTCOMES: dict[str, Change] = {
    "status": lambda v: v.update(status="failed"),
    "response": lambda v: v.update(response='{"ok":false}'),
    "arguments": lambda v: v.update(arguments_digest="00" * 32),
    "permit": lambda v: v.update(permit="another"),
    "downstream": lambda v: v.update(downstream_status="500"),
    "started": lambda v: v.update(started_ns="1"),
    "by": lambda v: v["by"].update(id="billing-agent"),
    "statement": statement("kind outcome", "kind request"),
}


@pytest.mark.parametrize("what", OUTCOMES)
def test_a_signed_outcome_is_changed(what: str) -> None:
    s = begun()
    s.signed_outcome(s.signed_decision())
    found(rewritten(s, 4, OUTCOMES[what]).records, T, 0, 5)


def test_a_signature_of_another_entry() -> None:
    s = begun()
    s.signed_decision()
    s.signed_decision()
    other = s.payloads[3]["agent"]
    found(rewritten(s, 4, agent(**other)).records, T, 0, 5)


@pytest.mark.parametrize(
    "lines",
    [
        {"kind": "outcome"},
        {"kind": "read"},
        {"audience": bytes(32)},
        {"epoch": 1},
        {"digest": bytes(32)},
        {"by": "payments-gateway"},
        {"key": MALLORY_ID},
    ],
)
def test_a_statement_for_something_else_well_signed(lines: dict[str, Any]) -> None:
    s = begun()
    value = s.decision_value("ALLOW")
    said = s.signed("request", "billing-agent", AGENT_KEY, bytes.fromhex(value["request_digest"]), **lines)
    value["agent"] = {**said, "id": "billing-agent"}
    s.write(EntryType.DECISION, strictjson.dumps(value), agent="billing-agent")
    s.head()
    found(s.records, T, 0, 3)


def test_a_statement_of_the_epoch_before() -> None:
    s = begun()
    s.close()
    s.open()
    seq = s.signed_decision(epoch=0)
    s.head()
    found(s.records, T, 1, seq)


@pytest.mark.parametrize("key", [MALLORY, EXECUTOR_KEY], ids=["nobody's", "another principal's"])
def test_a_key_that_is_not_the_agents(key: Any) -> None:
    s = begun()
    s.signed_decision(key)
    s.head()
    found(s.records, T, 0, 3)


def test_a_name_that_is_in_no_registry() -> None:
    s = begun()
    s.signed_decision(by="payroll-agent")
    s.head()
    found(s.records, T, 0, 3)


def test_a_key_that_the_registry_revoked() -> None:
    spki = base64.b64encode(public_spki(AGENT_KEY)).decode()
    s = Scribe("signed")
    s.open()
    s.registry(registry_text(keys=[{"spki": spki, "status": "revoked"}]))
    s.signed_decision()
    s.head()
    found(s.records, T, 0, 3)


def test_two_registries_ago_is_not_in_force() -> None:
    """The last two count, since a call may be under way when it changes; what signs by an older one is caught."""
    s = begun()
    old = s.registered
    s.registry(registry_text(purpose="one"))
    new, s.registered = s.registered, old
    s.signed_decision()
    s.registered = new
    s.registry(registry_text(purpose="two"))
    nothing_worse([*s.records, *headed(s)])
    s.registered = old
    seq = s.signed_decision()
    s.head()
    found(s.records, T, 0, seq)


def test_a_registry_is_changed_under_its_digest() -> None:
    s = Scribe("signed")
    s.open()
    s.registry(registry=registry_text(status="suspended").decode())
    s.head()
    found(s.records, T, 0, 2)


def test_a_registry_that_is_none() -> None:
    s = Scribe("signed")
    s.open()
    s.registry(b'{"format":"sidecar/v1/registry","principals":{}}')
    s.head()
    found(s.records, M, 0, 2)


@pytest.mark.parametrize("commit", [bytes(32), b"\1" * 32])
def test_a_seal_that_names_another_registry(commit: bytes) -> None:
    s = begun()
    s.seal("count", registry=commit)
    found(s.records, T, 0, None)


def test_a_decision_that_refers_to_another_without_an_approval() -> None:
    s = begun()
    s.write(EntryType.DECISION, strictjson.dumps(s.decision_value("ALLOW")), ref_seq=2)
    s.head()
    found(s.records, T, 0, 3)


# --- what it is worth


def trusting(**keys: list[str]) -> Evidence:
    pinned = {name.replace("_", "-"): frozenset(ids) for name, ids in keys.items()}
    return Evidence(trust=Trust({STORY.chain_id: public(STORY.identity)}, principals=pinned))


@pytest.mark.parametrize(
    ("evidence", "non_repudiable"),
    [
        (NO_EVIDENCE, 0),
        (trusting(), 0),
        (trusting(billing_agent=[MALLORY_ID]), 0),
        (trusting(payments_gateway=[AGENT_ID]), 0),
        (trusting(billing_agent=[MALLORY_ID, AGENT_ID]), 3),
    ],
)
def test_what_decisions_are_worth(evidence: Evidence, non_repudiable: int) -> None:
    report = nothing_worse(STORY.records, evidence)
    assert report.decisions == {
        "non_repudiable": non_repudiable,
        "signed": 3 - non_repudiable,
        "authenticated_in_transit": 1,
        "vouched": 0,
        "unopened": 0,
        "asserted": 1,
    }
    assert report.to_json()["decisions"] == report.decisions


def test_a_segment_file_without_the_registry() -> None:
    """What it signs is checked; whose key that is cannot be, and that is said."""
    report = judge(STORY.segment_file(1))
    assert report.verdict is Verdict.UNANCHORED, report.findings
    assert report.decisions["signed"] == 1
    assert any("the registry is not here" in line for line in report.not_checked)


def test_the_trust_file_pins_keys() -> None:
    chains = f'"format":"sidecar/v1/trust","chains":[{{"chain":"{"11" * 32}","identity":"{"22" * 32}"}}]'
    pins = f'"principals":[{{"id":"billing-agent","keys":["{AGENT_ID}"]}}]'
    trust = parse_trust(f"{{{chains},{pins}}}".encode())
    assert trust.keys_of("billing-agent") == {AGENT_ID} and trust.keys_of("another") == set()
    for wrong in ('{"id":1,"keys":[]}', '{"id":"a"}', '{"id":"a","keys":["x"]}', '{"id":"a","keys":[],"x":1}'):
        with pytest.raises(Malformed, match=r"trust file|32 bytes"):
            parse_trust(f'{{{chains},"principals":[{wrong}]}}'.encode())
