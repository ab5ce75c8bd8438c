"""Every kind of entry as an event, held against the schema of OCSF 1.9: names, types, ids, captions, constraints."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from sidecar.chain import strictjson
from sidecar.chain.entry import EntryType
from tests.evidence.bundled import exported
from tests.evidence.day import day
from tests.evidence.ocsf import faults
from tests.evidence.test_odd import odd
from tests.scribe import ACTIVATED, Scribe, signed_story, vouched_story
from tests.vectors import discreet

Event = dict[str, Any]


def rest() -> Scribe:
    """What the other ledgers have no example of: refused policies and registries, a rejection, a blocked outcome, an
    erasure, an entry that cannot be read."""
    s = discreet.ledger()
    s.write(EntryType.POLICY, strictjson.dumps({**ACTIVATED, "event": "refused", "revision": "", "bundle_digest": ""}))
    s.write(EntryType.POLICY, strictjson.dumps({**ACTIVATED, "event": "resumed"}))
    s.registry(event="refused", digest="", registry="", cause="no JSON")
    asked = s.decision("REQUIRE_APPROVAL")
    about = s.payloads[asked]
    s.write(EntryType.OUTCOME, strictjson.dumps({**s.outcome_value(asked), "status": "blocked"}), ref_seq=asked)
    verdict = {
        "type": "APPROVAL", "decision_id": about["decision_id"], "decision_seq": asked, "agent": about["agent"],
        "by": about["agent"], "verdict": "reject", "action_digest": "0" * 64, "arguments_digest": "0" * 64,
        "policy": {name: about["policy"][name] for name in ("revision", "bundle_digest")}, "comment": "no",
    }  # fmt: skip
    s.write(EntryType.APPROVAL, strictjson.dumps(verdict), ref_seq=asked)
    s.rejected(call="ReportOutcome", decision_id=about["decision_id"], principal="billing-agent", count=7)
    s.write(EntryType.DECISION, b'{"type":"DECISION"}')
    s.tombstone()
    s.close()
    return s


@pytest.fixture(scope="module")
def events() -> list[Event]:
    """Of ledgers with everything in them, in every way that events are made."""
    told = []
    ledgers = (day().s, odd(), signed_story(), vouched_story(), rest())
    for changed in ({}, {"profile": "external", "key": None}):
        lines = exported(*ledgers, **changed)["events.ocsf.jsonl"].splitlines()
        told += [json.loads(line) for line in lines]
    withheld = exported(vouched_story(), agents=("nobody",))["events.ocsf.jsonl"].splitlines()
    return [*told, *map(json.loads, withheld)]


def test_the_schema_allows_each_event(events: list[Event]) -> None:
    wrong = {fault for event in events for fault in faults(event)}
    assert not wrong


def test_each_kind_of_entry_and_of_answer_is_among_them(events: list[Event]) -> None:
    assert {event["metadata"]["event_code"] for event in events} == {kind.name for kind in EntryType}
    assert {event.get("disposition_id") for event in events} == {None, 1, 2, 8, 14, 25}
    assert {(event["class_uid"], event["activity_id"]) for event in events} == {
        (0, 99), (3004, 10), (3004, 13), (3004, 99), (6002, 3), (6002, 4), (6003, 99),
    }  # fmt: skip
    assert {event.get("status_id") for event in events} == {None, 1, 2, 99}


def _gone(*path: str) -> Callable[[Event], object]:
    def change(event: Event) -> None:
        *way, last = path
        for name in way:
            event = event[name]
        del event[last]

    return change


def _set(value: object, *path: str | int) -> Callable[[Event], object]:
    def change(event: Any) -> None:
        *way, last = path
        for name in way:
            event = event[name]
        event[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_gone("actor"), "actor: required"),
        (_gone("metadata", "product"), "metadata.product: required"),
        (_set(1, "surprise"), "surprise: unknown"),
        (_set("x", "api", "surprise"), "api.surprise: unknown"),
        (_set("1", "severity_id"), "'1' is no integer_t"),
        (_set(True, "severity_id"), "True is no integer_t"),
        (_set(77, "disposition_id"), "77 is none of"),
        (_set("Denied", "disposition"), "'Denied' beside the id of 'Allowed'"),
        (_set(600301, "type_uid"), "type_uid: 600301, not 600399"),
        (_set(3, "category_uid"), "category_uid: 3, not 6"),
        (_set("API", "class_name"), "class_name: API, not API Activity"),
        (_gone("activity_name"), "activity_name: required beside 99"),
        (_set({}, "ai_agent"), "ai_agent: at_least_one of"),
        (_set({}, "attestation_list"), "attestation_list: no array"),
        (_gone("attestation_list", 0, "fingerprint"), "attestation_list[0]: at_least_one"),  # type: ignore[arg-type]
        (_set("x", "attestation_list", 0, "fingerprint", "algorithm_id"), "algorithm_id: 'x' is no integer_t"),
        (_set(["ai_operation", "security_control"], "metadata", "profiles"), "attestation_list: of the profiles"),
        (_set(["record_integrity", "trace2"], "metadata", "profiles"), "trace2 is not for this class"),
        (_set("US", "src_endpoint"), "src_endpoint: no object"),
        (_set(4242, "class_uid"), "no class 4242"),
    ],
)
def test_what_the_schema_does_not_allow_is_found(
    events: list[Event], change: Callable[[Event], object], said: str
) -> None:
    event = copy.deepcopy(next(each for each in events if each["message"].startswith("ALLOW")))
    assert faults(event) == []
    change(event)
    assert any(said in fault for fault in faults(event)), faults(event)
