"""Whatever a ledger may hold, true or not: every form is made of it, and none of it raises."""

from __future__ import annotations

import random
from io import BytesIO
from typing import Any

import pytest

from sidecar.chain import strictjson
from sidecar.chain.entry import EntryType, Header
from sidecar.chain.stream import MAGIC, Kind, records
from sidecar.chain.stream import record as framed
from sidecar.errors import Malformed
from sidecar.evidence import Range, page, sheet, text, timeline, timelines
from sidecar.evidence.abstract import Abstract
from sidecar.evidence.entry_sheet import record
from sidecar.evidence.ocsf import Events
from sidecar.evidence.recorded import recorded
from sidecar.evidence.rows import who
from sidecar.verify import Verdict, verify_stream
from tests.evidence.bundled import exported
from tests.evidence.day import AGENT, day
from tests.evidence.test_documents import fingerprints
from tests.scribe import ACTIVATED, START, Scribe

DAY = day().s.stream()
LAST = "9999999999999999999"
ODD_TIME = "2026-99-99T99:99:99.999999999Z"


def forms(stream: bytes, agent: str | None = None) -> None:
    """Everything that is made of a stream."""

    def read() -> Any:
        return records(BytesIO(stream).read)

    told = timeline(read(), Range(agent=agent))
    for pieces in (text(told, 60), page([told]), sheet([told])):
        assert all(isinstance(piece, str) for piece in pieces)
    assert strictjson.dumps(timelines([told]))
    events, abstract = Events("sidecar 0", "", external=True), Abstract("0" * 64)
    try:
        for entry in recorded(read()):
            abstract.take(entry)
            line = events.line(entry)
            said, due = fingerprints(line.rstrip())
            assert said == due and record(entry)
        for kind, body in read():
            abstract.record(kind, body)
    except Malformed:
        pass  # a stream that breaks off: whoever reads says so
    assert abstract.custody()


def odd() -> Scribe:
    s = Scribe()
    s.open()
    s.policy()
    value = s.decision_value("REQUIRE_APPROVAL", executor="x")
    given = {"text": "no delegation", "key": "", "signature": ""}
    giver = {"id": "g", "kind": "?", "roles": ["r"], "attributes": {}}
    value["agent"] |= {"proof": "signature", "statement": "none", "signature": "", "key": ""}
    value["request"] |= {
        "delegations": [given, given],
        "alternatives": [],
        "action": "",
        "resource": {"type": "", "id": ""},
    }
    value |= {
        "time": ODD_TIME, "delegators": [giver], "alternatives": [{"effect": "DENY", "reasons": []}] * 2,
        "reasons": [{"code": "c", "message": "m", "é": 1.5, "\u20ac": [1e300]}],
        "terms": {"count": 2**40, "roles": [], "expires": ODD_TIME}, "permit": {"not_after": "-" + LAST},
        "obligations": [{"kind": "", "parameters": {"n": 1e308, "": [None]}}], "impure_builtins": [""],
    }  # fmt: skip
    seq = s.write(EntryType.DECISION, strictjson.dumps(value))
    done = s.outcome_value(seq) | {"started_ns": LAST, "duration_ns": LAST, "response_digest": "0" * 64, "permit": "p"}
    s.write(EntryType.OUTCOME, strictjson.dumps(done), ref_seq=seq)
    s.write(EntryType.CLOCK, strictjson.dumps({"type": "CLOCK", "step_ns": "-" + LAST}))
    s.rejected(call="", code="", count=2**53 - 1, peer="")
    s.wall_offset = 2**63 - 2**40
    s.rejected()
    s.wall_offset = -(2**63)
    s.decision("ALLOW")
    s.wall_offset = START
    s.close()
    return s


def test_odd_values_are_told_as_they_are() -> None:
    s = odd()
    forms(s.stream())
    forms(s.stream(), AGENT)
    files = exported(s)
    assert files["report.pdf"].startswith(b"%PDF") and len(files["events.ocsf.jsonl"].splitlines()) == s.seq


def damaged(seed: int) -> None:
    """One ledger with a few bits or bytes of it wrong."""
    chance, data = random.Random(seed), bytearray(DAY)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data))
        if chance.random() < 0.2:
            del data[at : at + chance.randint(1, 300)]
        else:
            data[at] ^= 1 << chance.randrange(8)
    try:
        forms(bytes(data), chance.choice([None, AGENT]))
    except Malformed as error:
        assert "SDCSEG" in str(error)


@pytest.mark.parametrize("seed", range(40))
def test_damage_anywhere_is_only_told(seed: int) -> None:
    damaged(seed)


@pytest.mark.soak
def test_much_damage_anywhere_is_only_told() -> None:
    for seed in range(1_000, 11_000):
        damaged(seed)


def test_headers_of_every_kind_are_told() -> None:
    s = Scribe()
    s.open()
    for kind in EntryType:
        header = Header(kind, 0, s.seq, 0, s.chain_id, s.leaf, b"\0" * 32, 2, -(2**63), 2**64 - 1)
        s.append(header, b"\0" * 32, b"{}")
    forms(s.stream())


class Copied:
    """A ledger's bytes, as an exporter is given them."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def stream(self) -> bytes:
        return self._data


def bundled(seed: int) -> None:
    """A bundle of a damaged ledger has its documents, or it is said why there is none."""
    chance, data = random.Random(seed), bytearray(DAY)
    for _ in range(chance.randint(1, 3)):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    try:
        files = exported(Copied(bytes(data)))  # type: ignore[arg-type]
    except Malformed:
        return
    assert files["report.pdf"].startswith(b"%PDF") and "certificate.dsse.json" in files


@pytest.mark.parametrize("seed", range(8))
def test_a_bundle_of_a_damaged_ledger_is_told(seed: int) -> None:
    bundled(seed)


@pytest.mark.soak
def test_bundles_of_many_damaged_ledgers_are_told() -> None:
    for seed in range(100, 1_100):
        bundled(seed)


def test_a_bundle_of_a_ledger_with_an_entry_cut_short_is_refused_in_words() -> None:
    whole = list(records(BytesIO(DAY).read))
    at = max(place for place, (kind, _) in enumerate(whole) if kind is Kind.ENTRY)
    cut = [(kind, body[:100] if place == at else body) for place, (kind, body) in enumerate(whole)]
    with pytest.raises(Malformed, match="an entry is cut short"):
        exported(Copied(MAGIC + b"".join(framed(kind, body) for kind, body in cut)))  # type: ignore[arg-type]


def test_a_bundle_named_by_no_digest_is_refused_in_words() -> None:
    s = Scribe()
    s.open()
    s.write(EntryType.POLICY, strictjson.dumps({**ACTIVATED, "bundle_digest": "no digest"}))
    s.close()
    with pytest.raises(Malformed, match="proper POLICY"):
        exported(s)


def test_members_that_a_proof_does_not_have_say_nothing() -> None:
    """Somebody else's key beside a name that is merely asserted is no signature."""
    s = Scribe()
    s.open()
    for odd in ({"key": "AAAA", "statement": "sidecar/v1/statement\n"}, {"key": 5, "statement": {}, "spiffe_id": [1]}):
        value = s.decision_value("ALLOW")
        value["agent"] |= odd
        s.write(EntryType.DECISION, strictjson.dumps(value))
        shown = who(value["agent"])
        assert (shown["key"], shown["signed_at"], shown["spiffe_id"]) == (None, None, "")
    s.head()
    assert verify_stream(BytesIO(s.stream()).read).verdict is Verdict.UNANCHORED
    forms(s.stream())
