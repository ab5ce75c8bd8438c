"""Payloads: what each type's table demands, member by member."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from sidecar.chain import payload, seeds, strictjson
from sidecar.chain.entry import EntryType
from sidecar.errors import Malformed
from tests.scribe import ACTIVATED, Scribe, custodian, signed_story, story

STORY = story()
SIGNED = signed_story()
KNOWN = {"id": "alice", "roles": ["chief"], "attributes": {}}
OPTION = {"action": "a", "resource": {"type": "t", "id": "i"}, "arguments": "{}"}


def decision() -> dict[str, Any]:
    value = Scribe("x").decision_value("ALLOW")
    value["request"]["alternatives"] = [OPTION]
    value["alternatives"] = [{"effect": "DENY", "reasons": []}]
    value["obligations"] = [{"kind": "redact", "parameters": {}}]
    value["registry"] = {"revision": "", "digest": "ab" * 32}
    value["request"]["delegations"] = [{"text": "{}", "key": "AA==", "signature": "AA=="}]
    value["executor"] = KNOWN
    value["delegators"] = [{**KNOWN, "kind": "user"}]
    approved = {"seq": 1, "time": value["time"], "by": KNOWN}
    value["approval"] = {"decision_id": value["decision_id"], "decision_seq": 1, "approvals": [approved]}
    value["terms"] = {"count": 1, "roles": ["chief"], "expires": value["time"]}
    value["permit"] = {"not_after": "1"}
    return value


def approval() -> dict[str, Any]:
    said = SIGNED.payloads[5]
    digests = {"action_digest": "ab" * 32, "arguments_digest": "cd" * 32}
    about = {name: said[name] for name in ("decision_id", "decision_seq", "agent", "by")}
    policy = {"revision": "r1", "bundle_digest": ""}
    return {"type": "APPROVAL", **about, "verdict": "approve", **digests, "policy": policy, "comment": ""}


GOOD: dict[EntryType, dict[str, Any]] = {
    EntryType.GENESIS: strictjson.parse_object(STORY.genesis),
    EntryType.OPEN: strictjson.parse_object(STORY.openings[0]),
    EntryType.DECISION: decision(),
    EntryType.OUTCOME: SIGNED.payloads[5],
    EntryType.APPROVAL: approval(),
    EntryType.REJECTED: STORY.payloads[7],
    EntryType.POLICY: ACTIVATED,
    EntryType.TOMBSTONE: {"type": "TOMBSTONE", "subject": "ab" * 16, "note": "", "body": ""},
    EntryType.CLOCK: {"type": "CLOCK", "step_ns": "-1"},
    EntryType.CLOSE: {"type": "CLOSE", "reason": "shutdown"},
    EntryType.REGISTRY: SIGNED.payloads[3],
}
FREE = {("result",), ("obligations", 0, "parameters")}
FREE |= {(*who, "attributes") for who in (("agent",), ("by",), ("executor",), ("delegators", 0))}
FREE.add(("approval", "approvals", 0, "by", "attributes"))


def paths(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every member of every object in the value that a table lists."""
    if before in FREE:
        return
    for step, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(value, dict):
            yield (*before, step)
        if isinstance(inner, dict | list):
            yield from paths(inner, (*before, step))


CASES = [(kind, path) for kind, value in GOOD.items() for path in paths(value)]


def parsed(kind: EntryType, value: Any) -> dict[str, Any]:
    return payload.parse(kind, strictjson.dumps(value))


def changed(value: dict[str, Any], path: tuple[Any, ...], new: Any = None, *, drop: bool = False) -> dict[str, Any]:
    result = copy.deepcopy(value)
    place: Any = result
    for step in path[:-1]:
        place = place[step]
    if drop:
        del place[path[-1]]
    else:
        place[path[-1]] = new
    return result


@pytest.mark.parametrize("kind", EntryType)
def test_good(kind: EntryType) -> None:
    assert parsed(kind, GOOD[kind]) == GOOD[kind]


@pytest.mark.parametrize(("kind", "path"), CASES)
def test_every_member_is_needed(kind: EntryType, path: tuple[Any, ...]) -> None:
    with pytest.raises(Malformed):
        parsed(kind, changed(GOOD[kind], path, drop=True))


@pytest.mark.parametrize(("kind", "path"), [(k, p) for k, p in CASES if p not in FREE])
def test_every_member_has_its_form(kind: EntryType, path: tuple[Any, ...]) -> None:
    """A number, a boolean, an array of arrays and an object of nothing fit no place but a number's own or a flag's."""
    current: Any = GOOD[kind]
    for step in path:
        current = current[step]
    for wrong in (1.5, True, [[]], {"x": []}):
        if type(wrong) is type(current) and not isinstance(current, list):
            continue
        if path in FREE:
            continue
        with pytest.raises(Malformed):
            parsed(kind, changed(GOOD[kind], path, wrong))


@pytest.mark.parametrize("kind", EntryType)
def test_more_members(kind: EntryType) -> None:
    value = {**GOOD[kind], "more": 1}
    if kind in (EntryType.GENESIS, EntryType.OPEN, EntryType.TOMBSTONE):
        with pytest.raises(Malformed):
            parsed(kind, value)
    else:
        assert parsed(kind, value) == value


@pytest.mark.parametrize("path", [("custodians", 0, "more"), ("mode",)])
def test_genesis_is_closed_within(path: tuple[Any, ...]) -> None:
    with pytest.raises(Malformed):
        parsed(EntryType.GENESIS, changed(GOOD[EntryType.GENESIS], path, "x"))


@pytest.mark.parametrize("kind", EntryType)
def test_one_type_is_not_taken_for_another(kind: EntryType) -> None:
    for other in EntryType:
        if other is not kind:
            with pytest.raises(Malformed):
                parsed(kind, GOOD[other])


WRONG_VALUES: list[tuple[EntryType, tuple[Any, ...], list[Any]]] = [
    (EntryType.GENESIS, ("format",), ["sidecar/v2"]),
    (EntryType.GENESIS, ("nonce",), ["AB" * 32, "ab" * 31, "ab" * 32 + "\n"]),
    (EntryType.GENESIS, ("authority",), ["x", 1]),
    (EntryType.GENESIS, ("custodians",), [[{"name": "x", "kem": "hpke", "spki": "AA=="}] * 17]),
    (EntryType.GENESIS, ("custodians", 0, "spki"), ["AA", "AB==", "AA==\n", " AA==", "A-==", "é"]),
    (EntryType.GENESIS, ("custodians", 0, "kem"), ["rsa"]),
    (EntryType.OPEN, ("seeds", 0, "commit"), [None, ""]),
    (EntryType.DECISION, ("decision_id",), [f"019aaf3c-0000-{v}-000000000001" for v in ("4000-8000", "7000-c000")]),
    (EntryType.DECISION, ("decision_id",), ["019AAF3C-0000-7000-8000-000000000001", ""]),
    (EntryType.DECISION, ("time",), ["2026-01-01T00:00:01Z", "2026-01-01 00:00:01.000000000Z"]),
    (EntryType.DECISION, ("time",), ["2026-01-01T00:00:01.000000000", "2026-01-01T00:00:01.000000000Z\n"]),
    (EntryType.DECISION, ("effect",), ["allow", "MAYBE", ""]),
    (EntryType.DECISION, ("cause",), ["", "boredom"]),
    (EntryType.DECISION, ("request", "arguments"), ["[]", "{", '{"a":1,"a":1}', "nul", '{"a":NaN}', "\ufeff{}"]),
    (EntryType.DECISION, ("request", "context"), ["[]", "{"]),
    (EntryType.DECISION, ("request", "alternatives", 0, "arguments"), ["[]", "{"]),
    (EntryType.DECISION, ("timings", "evaluate_ns"), ["", "+1", "01", "-0", "1.5", "1" * 20, "١"]),
    (EntryType.DECISION, ("agent", "proof"), ["spiffe", "mtls", "signature", "signature+mtls", ""]),
    (EntryType.DECISION, ("terms", "count"), [0, -1]),
    (EntryType.OUTCOME, ("by", "proof"), ["mtls", "signature+mtls"]),
    (EntryType.OUTCOME, ("started_ns",), ["0", "-1", "01"]),
    (EntryType.APPROVAL, ("verdict",), ["APPROVE", "", "maybe"]),
    (EntryType.REGISTRY, ("event",), ["revoked"]),
    (EntryType.OUTCOME, ("status",), ["done"]),
    (EntryType.OUTCOME, ("decision_seq",), [-1, 1.0]),
    (EntryType.OUTCOME, ("response_digest",), ["", "x"]),
    (EntryType.REJECTED, ("count",), [0, -1, 1.0]),
    (EntryType.POLICY, ("event",), ["unloaded"]),
    (EntryType.CLOSE, ("reason",), ["boredom"]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "path", "value"), [(k, p, v) for k, p, values in WRONG_VALUES for v in values])
def test_rejected_values(kind: EntryType, path: tuple[Any, ...], value: Any) -> None:
    with pytest.raises(Malformed):
        parsed(kind, changed(GOOD[kind], path, value))


def test_empty_arguments_are_allowed() -> None:
    value = changed(changed(decision(), ("request", "arguments"), ""), ("request", "context"), "")
    assert parsed(EntryType.DECISION, value) == value


@pytest.mark.parametrize(
    ("name", "right", "wrongs"),
    [
        ("receipt_check", "foreign", ("", "own", None, True)),
        ("impure_builtins", ["time.now_ns"], ([], None, "time.now_ns", [1], [None])),
    ],
)
def test_the_optional_members(name: str, right: Any, wrongs: tuple[Any, ...]) -> None:
    assert parsed(EntryType.DECISION, {**decision(), name: right})
    for wrong in wrongs:
        with pytest.raises(Malformed):
            parsed(EntryType.DECISION, {**decision(), name: wrong})


def test_over_the_limit() -> None:
    with pytest.raises(Malformed):
        payload.parse(EntryType.CLOCK, b'{"type":"CLOCK","step_ns":"1","x":"' + b"x" * 8 * 1024 * 1024 + b'"}')


def test_custody_and_shares() -> None:
    assert seeds.custody_of(GOOD[EntryType.GENESIS]) == STORY.custody
    (share,) = seeds.shares_of(GOOD[EntryType.OPEN])
    assert len(share.commit) == 32 and len(share.sealed) == 64
    twice = changed(GOOD[EntryType.GENESIS], ("custodians",), GOOD[EntryType.GENESIS]["custodians"] * 2)
    with pytest.raises(Malformed):
        seeds.custody_of(parsed(EntryType.GENESIS, twice))
    assert custodian("alpha", 0) in STORY.custody.custodians
