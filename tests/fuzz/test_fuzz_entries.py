"""Headers, stored entries, payloads, strict JSON and the framing of records, from somebody who means harm."""

from __future__ import annotations

import json
import tracemalloc
import zlib
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.chain import payload as payloads
from sidecar.chain import seeds, strictjson
from sidecar.chain.entry import HEADER_SIZE, EntryType, Header, StoredEntry, store
from sidecar.chain.limits import MAX_DEPTH, MAX_PAYLOAD, MAX_RECORD
from sidecar.chain.stream import Kind, record, records
from sidecar.errors import Malformed
from tests.fuzz.examples import fuzz, hostile
from tests.scribe import story, vouched_story

STORY = story()
BODIES = [r.body for s in (STORY, vouched_story()) for r in s.records if r.kind is Kind.ENTRY]
BY_TYPE: dict[EntryType, list[bytes]] = {}
for _body in BODIES:
    _stored = StoredEntry.parse(_body)
    _header = Header.decode(_stored.header)
    BY_TYPE.setdefault(_header.type, []).append(_stored.payload(_header.payload_len))
PAYLOADS = [p for of_type in BY_TYPE.values() for p in of_type]
BOMB = zlib.compress(bytes(32 << 20), 9)
LEAVES = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(max_size=5)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner))


@given(hostile([b[:HEADER_SIZE] for b in BODIES]).map(lambda data: data[:HEADER_SIZE].ljust(HEADER_SIZE, b"\0")))
@fuzz(800)
def test_a_header_that_decodes_is_encoded_back_as_it_was(data: bytes) -> None:
    try:
        header = Header.decode(data)
    except Malformed:
        return
    assert header.encode() == data


@given(hostile(BODIES), st.integers(0, 5_000) | st.sampled_from([MAX_PAYLOAD, MAX_PAYLOAD + 1, 2**32 - 1]))
@fuzz(800)
def test_a_stored_entry_has_its_length_or_is_refused(body: bytes, length: int) -> None:
    try:
        payload = StoredEntry.parse(body).payload(length)
    except Malformed:
        return
    assert len(payload) == length <= MAX_PAYLOAD


@given(st.integers(2, 2_000), st.binary(max_size=20), st.sampled_from([-1, 0, 1]))
@fuzz(60)
def test_a_compressed_bomb_takes_no_more_than_it_claims(claimed: int, tail: bytes, off: int) -> None:
    entry = StoredEntry(BODIES[0][:HEADER_SIZE], bytes(32), bytes(32), 1, BOMB + tail)
    tracemalloc.start()
    try:
        for length in (claimed, len(BOMB + tail) + 1 + off, MAX_PAYLOAD):
            with pytest.raises(Malformed):
                entry.payload(length)
        assert tracemalloc.get_traced_memory()[1] < 2 * MAX_PAYLOAD + (1 << 20)
    finally:
        tracemalloc.stop()


@given(st.binary(min_size=2, max_size=3_000) | st.binary(min_size=1, max_size=9).map(lambda part: part * 400))
@fuzz(200)
def test_whatever_is_stored_comes_out(payload: bytes) -> None:
    body = store(BODIES[0][:HEADER_SIZE], bytes(32), bytes(32), payload)
    assert StoredEntry.parse(body).payload(len(payload)) == payload


@st.composite
def changed_payload(draw: st.DrawFn) -> tuple[EntryType, bytes]:
    """A payload with members exchanged, dropped or added, at any depth."""
    kind = draw(st.sampled_from(sorted(BY_TYPE)))
    value: Any = json.loads(draw(st.sampled_from(BY_TYPE[kind])))
    at: Any = value
    for _ in range(draw(st.integers(0, 3))):
        inner = [v for v in (at.values() if isinstance(at, dict) else at) if isinstance(v, dict | list) and v]
        if not inner:
            break
        at = draw(st.sampled_from(inner))
    key = draw(st.sampled_from(sorted(at))) if isinstance(at, dict) else draw(st.integers(0, len(at) - 1))
    if draw(st.booleans()):
        at[key] = draw(VALUES)
    else:
        del at[key]
    return kind, json.dumps(value).encode()


@given(changed_payload() | st.tuples(st.sampled_from(EntryType), hostile(PAYLOADS)))
@fuzz(1_000)
def test_a_payload_is_proper_or_refused(changed: tuple[EntryType, bytes]) -> None:
    kind, data = changed
    try:
        value = payloads.parse(kind, data)
        if kind is EntryType.GENESIS:
            seeds.custody_of(value)
        elif kind is EntryType.OPEN:
            seeds.shares_of(value)
    except Malformed:
        return
    assert value["type"] == kind.name and payloads.check(kind, value) is value


@given(hostile([*PAYLOADS, b'{"a":[1e400,"\\ud800",-0,1.0e5,{"\\u0061":1,"a":2}]}', b"[" * 64 + b"]" * 64]))
@fuzz(1_500)
def test_strict_json_is_json_and_means_the_same(data: bytes) -> None:
    """What is taken is taken alike by Python's own parser; and it is written and read again unchanged."""
    try:
        value = strictjson.parse(data, max_depth=MAX_DEPTH)
    except Malformed:
        return
    assert value == json.loads(data)
    assert strictjson.parse(strictjson.dumps(value), max_depth=MAX_DEPTH) == value


@pytest.mark.parametrize("piece", [b"[", b'{"a":', b'["', b'"\\', b"1", b"-", b"[[],", b'{"":{},"a":', b"\\u0000"])
@pytest.mark.parametrize("size", [1 << 10, 1 << 20])
def test_json_that_goes_on_and_on_is_refused_at_once(piece: bytes, size: int) -> None:
    with pytest.raises(Malformed):
        strictjson.parse(piece * (size // len(piece)), max_depth=MAX_DEPTH)


@given(hostile([STORY.stream()]), st.integers(1, 70))
@fuzz(300)
def test_records_are_cut_whatever_the_stream_says(data: bytes, cut: int) -> None:
    """What was read is a beginning of the stream, framed again."""
    found: list[bytes] = []
    try:
        for kind, body in records(BytesIO(data).read):
            assert len(body) <= MAX_RECORD
            found.append(record(kind, body))
    except Malformed:
        assert data[8:].startswith(b"".join(found))
    else:
        assert data[8:] == b"".join(found)


@given(st.integers(MAX_RECORD + 1, 2**32 - 1), st.sampled_from(Kind))
@fuzz(100)
def test_a_length_beyond_the_limit_is_not_read(length: int, kind: Kind) -> None:
    source = BytesIO(STORY.stream()[:8] + bytes((kind,)) + length.to_bytes(4, "big") + bytes(100))
    asked: list[int] = []

    def read(n: int) -> bytes:
        asked.append(n)
        return source.read(n)

    with pytest.raises(Malformed):
        list(records(read))
    assert max(asked) <= 1 << 16
