"""What whoever runs a sidecar can write: every tag, link and signature of the chain is right, the entries are not.

Here are the spellings and meanings that programs read in two ways: `true` for 1, a day that there is not, a digest that
is `__proto__`. Each is a stream, what callers hold or the trust file besides, and the verdict and place that are due.
`tests/page/test_forged.py` asks three verifiers about each of them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from hashlib import sha256
from typing import Any, NamedTuple

from sidecar.chain import lines, note, personal
from sidecar.chain.entry import EntryType, Header, payload_commit
from sidecar.chain.limits import NO_SEQ, ZERO16
from sidecar.chain.request import recorded
from sidecar.chain.signing import key_id, public_spki, sign
from sidecar.chain.stream import Kind
from tests.attacks import test_attacks_approvals as approvals
from tests.evidence.test_changed_payloads import ending_with
from tests.people import delegated
from tests.people import registry_text as people_text
from tests.scribe import AGENT_KEY, EXECUTOR, MILLISECOND, Record, Scribe, registry_text, secret, story, stream
from tests.sealing import SUBJECT, Discreet

T, M, FINE = "TAMPERED", "MALFORMED", "UNANCHORED"


class Forged(NamedTuple):
    """``due``: the verdict, and segment and seq of the first bad place; UNANCHORED: there is none."""

    name: str
    stream: bytes
    due: tuple[str, int | None, int | None]
    receipts: tuple[bytes, ...] = ()


def forged() -> Iterator[Forged]:
    """All of them."""
    for each in (
        _attributes, _statements, _registries, _last_two, _reporters, _heads, _counts, _payloads, _sealed, _authority,
        _genesis,
    ):  # fmt: skip
        yield from each()


def _raw(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _due(verdict: str, segment: int | None = 0, seq: int | None = None) -> tuple[str, int | None, int | None]:
    return (FINE, None, None) if verdict == FINE else (verdict, segment, seq)


# --- roles and attributes: the same as JSON


def _attributes() -> Iterator[Forged]:
    for known, said, verdict in (
        ('{"x":1}', '{"x":1}', FINE), ('{"x":1,"y":2}', '{"y":2,"x":1}', FINE), ('{"x":100.0}', '{"x":1e2}', FINE),
        ('{"x":1}', '{"x":true}', T), ('{"x":0}', '{"x":false}', T), ('{"x":[true]}', '{"x":[1]}', T),
        ('{"x":1}', '{"x":1.0}', T), ('{"x":0.0}', '{"x":-0.0}', T), ('{"x":[]}', '{"x":{}}', T),
        ('{"__proto__":{"a":1}}', '{"__proto__":{"a":1}}', FINE), ('{"__proto__":{"a":1}}', '{"a":1}', T),
        ('{}', '{"__proto__":{}}', T), ('{"toString":1}', '{"valueOf":1}', T),
    ):  # fmt: skip
        yield Forged(f"attributes {known} {said}", _agent_with(known, said), _due(verdict, 0, 4))
        yield Forged(f"delegator {known} {said}", _giver_with(known, said), _due(verdict, 0, 3))


def _agent_with(known: str, said: str) -> bytes:
    s = Scribe("attributes")
    s.open()
    s.policy()
    s.registry(registry_text().replace(b'"attributes":{"team":"finance"}', f'"attributes":{known}'.encode()))
    value = s.decision_value("ALLOW", executor=EXECUTOR)
    agent = s.signed("request", "billing-agent", AGENT_KEY, bytes.fromhex(value["request_digest"]))
    agent["attributes"] = value["executor"]["attributes"] = "@"
    value |= {"agent": agent, "registry": {"revision": "", "digest": s.registered}}
    s.write(EntryType.DECISION, _raw(value).replace(b'"@"', said.encode()), agent="billing-agent")
    s.head()
    return s.stream()


def _giver_with(known: str, said: str) -> bytes:
    s = Scribe("attributes")
    s.open()
    people = [person | {"attributes": "@"} for person in approvals.PEOPLE]
    s.registry(people_text(*people).replace(b'"@"', known.encode()))
    value, given = s.decision_value("ALLOW"), delegated("ursula", "billing-agent")
    shown = {"key": given.key, "signature": given.signature}
    raw = {name: base64.b64encode(data).decode() for name, data in shown.items()}
    value["request"]["delegations"] = [{"text": given.text.decode(), **raw}]
    value["agent"]["attributes"] = "@"
    value["delegators"] = [{"id": "ursula", "kind": "user", "roles": ["billing"], "attributes": "@"}]
    value["request_digest"] = recorded(value).digest().hex()
    s.write(EntryType.DECISION, _raw(value).replace(b'"@"', said.encode()))
    s.head()
    return s.stream()


# --- what is signed


def _statements() -> Iterator[Forged]:
    for name, value, verdict in (
        ("nonce", "00" * 16, FINE), ("nonce", "00" * 15, T), ("nonce", "AB" * 16, T), ("nonce", "0" * 900, T),
        ("nonce", "\u0663" * 32, T), ("time", str(2**63 - 1), FINE), ("time", str(2**63), T), ("time", "01", T),
        ("epoch", "00", T), ("kind", "read", T), ("audience", "*", T),
    ):  # fmt: skip
        yield Forged(f"statement {name} {value[:20]} {len(value)}", _stated(name, value), _due(verdict, 0, 4))


def _stated(name: str, changed: str) -> bytes:
    s = Scribe("statement")
    s.open()
    s.policy()
    s.registry()
    value, spki = s.decision_value("ALLOW", executor=EXECUTOR), public_spki(AGENT_KEY)
    said = {
        "kind": "request", "audience": s.chain_id.hex(), "epoch": "0", "by": "billing-agent", "key": key_id(spki),
        "digest": value["request_digest"], "time": str(s.wall_offset), "nonce": "00" * 16, name: changed,
    }  # fmt: skip
    text = "sidecar/v1/statement\n" + "".join(f"{line} {each}\n" for line, each in said.items())
    agent = s.signed("request", "billing-agent", AGENT_KEY, bytes(32))
    agent |= {"statement": text, "signature": base64.b64encode(sign(AGENT_KEY, text.encode())).decode()}
    value |= {"agent": agent, "registry": {"revision": "", "digest": s.registered}}
    s.write(EntryType.DECISION, _raw(value), agent="billing-agent")
    s.head()
    return s.stream()


# --- registries


def _registries() -> Iterator[Forged]:
    for name, verdict in (
        ("spiffe://a/b", FINE), ("spiffe://A/b", M), ("spiffe://a", M), ("spiffe://a/", M), ("spiffe://a//b", M),
        ("spiffe://a/\u00e9", M), ("spiffe://a/b\n", M), ("spiffe://" + "a" * 256 + "/b", M),
        ("spiffe://a/" + "x" * 2_037, FINE), ("spiffe://a/" + "x" * 2_038, M),
    ):  # fmt: skip
        registry = _raw(_changed(spiffe_ids=[{"id": name}]))
        yield Forged(f"SPIFFE id {name[:20]!r} {len(name)}", _under(registry), _due(verdict, 0, 2))
    for time, verdict in (
        ("2028-02-29T00:00:00.000000000Z", FINE), ("2026-02-29T00:00:00.000000000Z", M),
        ("2026-01-01T24:00:00.000000000Z", M), ("2026-12-31T23:59:60.000000000Z", M),
        ("0000-01-01T00:00:00.000000000Z", M), ("2026-01-01T00:00:00.00000000\u0663Z", M),
    ):  # fmt: skip
        value = _changed(spiffe_ids=[{"id": "spiffe://a/b", "not_after": time}])
        yield Forged(f"not_after {time}", _under(_raw(value)), _due(verdict, 0, 2))
    for name, y, verdict in (
        ("small", 1, M), ("zero", 0, M), ("p - 1", 2**255 - 20, M), ("p + 1", 2**255 - 18, M), ("no point", 2, FINE),
    ):  # fmt: skip
        spki = bytes.fromhex("302a300506032b6570032100") + y.to_bytes(32, "little")
        value = _changed(keys=[{"spki": base64.b64encode(spki).decode(), "status": "active"}])
        yield Forged(f"key of y {name}", _under(_raw(value)), _due(verdict, 0, 2))


def _changed(**members: Any) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(registry_text())
    value["principals"][0] |= members
    return value


def _under(registry: bytes) -> bytes:
    s = Scribe("registry")
    s.open()
    s.registry(registry)
    s.rejected()
    s.head()
    return s.stream()


def _last_two() -> Iterator[Forged]:
    """Registries A, B, … put in force, `!` another epoch, and a decision that names a, b, …"""
    for way, verdict in (("AaBab", FINE), ("AaBCa", T), ("ABAb", FINE), ("ABAAb", T), ("BA!Aa", FINE), ("BA!Ab", T)):
        s = Scribe("two")
        s.open()
        of = {name: registry_text(owner=name) for name in "ABC"}
        for each in way:
            if each == "!":
                s.close()
                s.open()
            elif each in of:
                s.registry(of[each])
            else:
                s.registered = sha256(of[each.upper()]).hexdigest()
                last = s.signed_decision()
        s.head()
        yield Forged(f"registries {way}", s.stream(), _due(verdict, s.segment, last))


def _reporters() -> Iterator[Forged]:
    """Who reports is merely asserted; roles that no registry gives them are made up all the same."""
    for registered, roles, verdict in ((True, ["admin"], T), (True, [], FINE), (False, ["admin"], FINE)):
        s = Scribe("reporter")
        s.open()
        if registered:
            s.registry()
        value = s.decision_value("ALLOW") | {"agent": _ghost([]), "registry": None}
        value["request_digest"] = recorded(value).digest().hex()
        decision = s.write(EntryType.DECISION, _raw(value))
        said = s.outcome_value(decision) | {"agent": {"id": "ghost", "proof": "asserted"}, "by": _ghost(roles)}
        last = s.write(EntryType.OUTCOME, _raw(said), ref_seq=decision)
        s.head()
        yield Forged(f"reporter {roles} {registered}", s.stream(), _due(verdict, 0, last))


def _ghost(roles: list[str]) -> dict[str, Any]:
    return {"id": "ghost", "proof": "asserted", "roles": roles, "attributes": {}}


# --- heads and receipts


def _heads() -> Iterator[Forged]:
    s = story()
    seq = s.seq - 1
    header, value = s.headers[seq], s.payloads[seq]
    right = {
        "chain": s.chain_id.hex(), "epoch": header.epoch, "segment": header.segment, "seq": seq,
        "leaf": s.leaf_of(seq).hex(), "time": header.wall_ns, "decision": value["decision_id"],
        "effect": value["effect"], "request": value["request_digest"],
    }  # fmt: skip
    beyond = "INCOMPLETE", header.segment, 2**64 - 1
    for name, other, head, receipt in (
        ("decision", value["decision_id"], _due(FINE), _due(FINE)),
        ("decision", "019aaf3c-0000-4000-8000-00000000ffff", (M, header.segment, seq), (M, None, None)),
        ("time", "-0", (M, header.segment, seq), (M, None, None)),
        ("seq", 2**64 - 1, beyond, beyond), ("seq", 2**64, (M, header.segment, seq), (M, None, None)),
    ):  # fmt: skip
        text = "sidecar/v1/head\n" + "".join(f"{line} {each}\n" for line, each in (right | {name: other}).items())
        key = s.signing[header.segment]
        signed = note.sign(text, lines.segment_name(s.chain_id, header.segment), key)
        records = [*s.records[:-1], Record(Kind.HEAD, signed, header.segment, seq)]
        yield Forged(f"head {name} {other}", stream(records), head)
        yield Forged(f"receipt {name} {other}", s.stream(), receipt, (signed,))


# --- approvals


def _counts() -> Iterator[Forged]:
    for given, wanted, verdict in ((1, 1, FINE), (2, 1, FINE), (3, 2, FINE), (1, 2, T)):
        s = approvals.begun()
        asked = approvals.waits(s, count=wanted)
        for who in ("ann", "bob", "cleo")[:given]:
            approvals.approve(s, asked, who)
        last = approvals.decide(s, "ALLOW", under=asked)
        s.head()
        yield Forged(f"{given} approvals of {wanted}", s.stream(), _due(verdict, 0, last))


# --- members of payloads


def _payloads() -> Iterator[Forged]:
    """Of the story's first entry of each type, one member is another."""
    s = story()
    first = {value["type"]: seq for seq, value in reversed(s.payloads.items())}
    for kind, way, value, verdict in (
        ("DECISION", "timings.evaluate_ns", "9" * 19, FINE), ("DECISION", "timings.evaluate_ns", "9" * 20, M),
        ("DECISION", "timings.evaluate_ns", "-0", M), ("DECISION", "timings.evaluate_ns", "\u0663", M),
        ("DECISION", "time", "2026-02-30T00:00:00.000000000Z", M), ("DECISION", "time", "2026-01-01T00:00:00Z", M),
        ("DECISION", "time", "2026-01-01T24:00:00.000000000Z", M), ("DECISION", "effect", "toString", M),
        ("DECISION", "cause", "constructor", M), ("DECISION", "agent.proof", "__proto__", M),
        ("DECISION", "agent.statement", 5, FINE), ("DECISION", "agent.key", {}, FINE),
        ("DECISION", "arguments_digest", "", FINE), ("DECISION", "__proto__", None, FINE),
        ("DECISION", "decision_id", "019aaf3c-0000-7000-8000-00000000ffff\n", M),
        ("OUTCOME", "downstream_status", "\U0001f600" * 256, FINE), ("OUTCOME", "downstream_status", "x" * 257, M),
        ("OUTCOME", "personal", None, M), ("OUTCOME", "arguments_digest", "", M), ("OUTCOME", "status", "valueOf", M),
        ("OUTCOME", "action_digest", "", FINE), ("POLICY", "bundle_digest", "", M), ("POLICY", "bundle_digest", "x", M),
        ("POLICY", "event", "refused", M), ("POLICY", "source.kind", "file", M), ("CLOCK", "step_ns", "9" * 19, FINE),
        ("REJECTED", "count", 1.0, M), ("REJECTED", "count", True, M),
    ):  # fmt: skip
        seq = first[kind]
        changed = json.loads(json.dumps(s.payloads[seq]))
        *names, last = way.split(".")
        place = changed
        for name in names:
            place = place[name]
        place[last] = value
        data, due = ending_with(s, seq, changed), _due(verdict, s.headers[seq].segment, seq)
        yield Forged(f"{kind} {way} {value!r:.40}", data, due)


# --- sealed fields


def _sealed() -> Iterator[Forged]:
    key, private, astral = ("/request/idempotency_key", None), ("/result/\ue000", None), ("/result/\U0001f600", None)
    both = {"\ue000": "", "\U0001f600": ""}
    for name, fields, result, verdict in (
        ("as it must be", [key], None, FINE), ("~", [key, ("/result/a~", None)], {"a~": ""}, M),
        ("~0", [key, ("/result/a~0", None)], {"a~": ""}, FINE), ("~2", [key, ("/result/a~2", None)], {"a~2": ""}, M),
        ("a long index", [key, ("/result/1" + "0" * 5_000, None)], [""], M),
        ("-", [key, ("/result/-", None)], [""], M), ("00", [key, ("/result/00", None)], [""], M),
        ("__proto__", [key, ("/result/__proto__", None)], {"__proto__": ""}, FINE),
        ("constructor", [key, ("/result/constructor", None)], {}, M),
        ("length", [key, ("/result/length", None)], [""], M), ("by code point", [key, private, astral], both, FINE),
        ("by UTF-16", [key, astral, private], both, M),
    ):  # fmt: skip
        yield Forged(f"sealed {name}", _with_fields(fields, result), _due(verdict, 0, 2))
    yield Forged("sealed, and nothing in it", _with_fields([key], None, sealed=""), (M, 0, 2))


def _with_fields(fields: list[tuple[str, int | None]], result: object, sealed: str = "AAAA") -> bytes:
    s = Discreet("fields")
    s.open()
    value = s.asked("DENY")
    value["request"]["idempotency_key"] = ""
    if result is not None:
        value["result"] = result
    commits = [personal.commitment(s.chain_id, s.seq, i, secret(i), b'""').hex() for i in range(len(fields))]
    listed = [
        {"in": place, "pointer": "", "at": at, "commit": commit}
        for (place, at), commit in zip(fields, commits, strict=True)
    ]
    value["personal"] = {"subject": SUBJECT.hex(), "fields": listed, "sealed": sealed}
    payload = _raw(value)
    s.mono += MILLISECOND
    header = Header(
        EntryType.DECISION, s.epoch, s.seq, s.segment, s.chain_id, s.leaf, payload_commit(bytes(32), payload),
        len(payload), s.wall_offset + s.mono, s.mono, 1, NO_SEQ, ZERO16, len(fields),
    )  # fmt: skip
    s.payloads[s.seq] = value
    s.append(header, bytes(32), payload)
    s.head()
    return s.stream()


# --- the authority


def _authority() -> Iterator[Forged]:
    kept = {"segment": 0, "seq": 2, "leaf": "22" * 32}
    for name, act, members, verdict in (
        ("erase", "erase", {}, FINE), ("a control character", "erase", {"reason": "a\x85"}, M),
        ("1024 characters", "erase", {"reason": "\U0001f600" * 1_024}, FINE),
        ("1025 characters", "erase", {"reason": "x" * 1_025}, M),
        ("a seq more", "accept-loss", {"kept": kept, "lost": kept | {"seq": 3}}, FINE),
        ("another leaf alone", "accept-loss", {"kept": kept, "lost": kept | {"leaf": "33" * 32}}, M),
        ("a long body", "erase", {}, M),
    ):  # fmt: skip
        yield Forged(f"authority: {name}", _allowed(act, members, 65_536 if "long" in name else 0), _due(verdict, None))


def _allowed(act: str, members: dict[str, Any], blanks: int) -> bytes:
    s = Scribe("authority", authority=True)
    s.open()
    s.rejected()
    s.head()
    body = {"format": f"sidecar/v1/{act}", "chain": s.chain_id.hex(), "reason": "asked for"}
    data = _raw(body | ({"subject": "00" * 16} if act == "erase" else {}) | members) + b" " * blanks
    rows = {"chain": s.chain_id.hex(), "act": act, "body": sha256(data).hexdigest(), "time": str(s.wall_offset)}
    text = "sidecar/v1/authority\n" + "".join(f"{name} {value}\n" for name, value in rows.items())
    assert s.authority is not None
    signed = note.sign(text, f"sidecar.v1/{s.chain_id.hex()}/authority", s.authority)
    s.records.insert(0, Record(Kind.AUTHORITY, len(signed).to_bytes(4, "big") + signed + data, 0))
    return s.stream()


# --- GENESIS


def _genesis() -> Iterator[Forged]:
    for members, verdict in (
        ({}, FINE), ({"retention": "toString"}, FINE), ({"log": "-"}, T), ({"mode": "constructor"}, M),
        ({"__proto__": 1}, M), ({"authority": ""}, M),
    ):  # fmt: skip
        s = _Founded(members)
        s.open()
        s.rejected()
        s.head()
        yield Forged(f"GENESIS {members}", s.stream(), _due(verdict, 0, 0))


class _Founded(Scribe):
    def __init__(self, members: dict[str, Any]) -> None:
        self._members: dict[str, Any] = members
        super().__init__("founded")

    def _genesis(self, nonce: bytes) -> bytes:
        return _raw(json.loads(super()._genesis(nonce)) | self._members)
