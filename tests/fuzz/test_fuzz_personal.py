"""Parsers of personal fields on hostile bytes: they raise Malformed, or what they read is what was written."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from sidecar.chain import payload, personal, pointer, strictjson
from sidecar.chain.entry import EntryType
from sidecar.custody.subjects import opened
from sidecar.errors import CustodyError, Malformed
from sidecar.verify import Evidence, parse_openings
from tests.fuzz.examples import fuzz, hostile
from tests.scribe import judge, secret
from tests.sealing import SUBJECT, Discreet
from tests.vectors.discreet import ledger

LEDGER = ledger(erased=True)
OPENINGS = LEDGER.opened().encode()
DECISION = strictjson.dumps(LEDGER.payloads[4])
OPENING = personal.join(LEDGER.parts[4])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


def _record(kek: bytes, chain_id: bytes, who: bytes, key: tuple[bytes, bytes]) -> bytes:
    """As proto/LEDGER.md has it."""
    subject, held = key
    nonce = sha256(who).digest()[:12]
    sealed = AESGCM(kek).encrypt(nonce, held + who, b"sidecar/v1/subject-key\0" + chain_id + subject)
    return len(sealed).to_bytes(2, "big") + subject + nonce + sealed


@given(hostile([OPENINGS]))
@fuzz(400)
def test_openings(data: bytes) -> None:
    try:
        read = parse_openings(data)
    except Malformed:
        return
    assert parse_openings(read.encode()) == read


@given(hostile([OPENING]), st.integers(0, 8), st.booleans())
@fuzz(400)
def test_an_opening(data: bytes, count: int, padded: bool) -> None:
    try:
        parts = personal.split(data, count, padded=padded)
    except Malformed:
        return
    assert data.startswith(personal.join(parts)) and (padded or personal.join(parts) == data)


@given(hostile([DECISION]))
@fuzz(400)
def test_a_payload_that_is_read_is_put_back_or_refused(data: bytes) -> None:
    try:
        value = payload.parse(EntryType.DECISION, data)
        read = personal.read(EntryType.DECISION, value)
        if read is not None:
            personal.put_back(value, read, LEDGER.parts[4][: len(read.fields)])
    except (Malformed, ValueError):  # another number of fields than parts
        return


@given(hostile([OPENING]))
@fuzz(150)
def test_no_other_opening_is_taken(data: bytes) -> None:
    if data:  # no file holds an empty one
        report = judge(LEDGER.records, Evidence(openings=LEDGER.opened(at4=data)))
        assert report.first_bad() is not None or data == OPENING


@given(hostile([personal.encrypt(bytes(32), bytes(12), LEDGER.chain_id, SUBJECT, LEDGER.parts[4])]))
@fuzz(200)
def test_no_other_ciphertext_opens(data: bytes) -> None:
    read = personal.read(EntryType.DECISION, LEDGER.payloads[4])
    assert read is not None
    try:
        parts = personal.decrypt(bytes(32), LEDGER.chain_id, personal.Personal(SUBJECT, read.fields, data))
    except Malformed:
        return
    assert parts == LEDGER.parts[4]


@given(JSON, st.sampled_from([None, 1]))
@fuzz(300)
def test_spots_of_any_json(value: Any, indent: int | None) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=bool(indent)).encode()
    for spot in pointer.spots(text):
        assert json.loads(text[spot.start : spot.end]) == pointer.get(value, spot.pointer)


RECORDS = {b'"ann"': (bytes(16), secret("ann")), b"7": (SUBJECT, secret("seven"))}
KEPT = b"".join(_record(secret("kek"), LEDGER.chain_id, who, key) for who, key in RECORDS.items())


@given(hostile([KEPT]))
@fuzz(300)
def test_records_of_subjects_keys(data: bytes) -> None:
    try:
        held, whole = opened(secret("kek"), LEDGER.chain_id, data)
    except CustodyError:
        return
    assert held.items() <= RECORDS.items() and 0 <= whole <= len(data)


def test_twins_write_the_same() -> None:
    assert ledger(erased=True).stream() == LEDGER.stream() and isinstance(LEDGER, Discreet)
