"""Headers and stored entries: there and back, and what is refused."""

from __future__ import annotations

import dataclasses
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.chain import entry
from sidecar.chain.entry import HEADER_SIZE, EntryType, Header, StoredEntry
from sidecar.chain.limits import MAX_PAYLOAD, NO_SEQ, UNKNOWN_CLOCK_ERROR
from sidecar.errors import Malformed

HEADER = Header(
    EntryType.OUTCOME, 3, 41, 7, b"c" * 32, b"p" * 32, b"m" * 32, 2, -5, 6, 9, 40, b"a" * 16
)  # fmt: skip
U64 = st.integers(0, 2**64 - 1)
HEADERS = st.builds(
    Header,
    st.sampled_from(EntryType),
    st.integers(0, 2**32 - 1),
    st.integers(1, 2**64 - 1),
    U64,
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=32, max_size=32),
    st.integers(2, MAX_PAYLOAD),
    st.integers(-(2**63), 2**63 - 1),
    U64,
    st.integers(0, 2**32 - 1),
    st.sampled_from([NO_SEQ, 0]),
    st.binary(min_size=16, max_size=16),
)


@given(HEADERS)
def test_header_there_and_back(header: Header) -> None:
    data = header.encode()
    assert len(data) == HEADER_SIZE
    assert Header.decode(data) == header
    assert Header.decode(data).encode() == data


def test_header_layout() -> None:
    """Each field where LEDGER.md's table puts it."""
    data = HEADER.encode()
    places = {0: b"SDCREC\x00\x01", 8: b"\x04\x01\x00\x00", 12: (3).to_bytes(4, "big"), 16: (41).to_bytes(8, "big")}
    places |= {24: (7).to_bytes(8, "big"), 32: b"c" * 32, 64: b"p" * 32, 96: b"m" * 32, 128: (2).to_bytes(4, "big")}
    places |= {132: bytes(4), 136: (-5).to_bytes(8, "big", signed=True), 144: (6).to_bytes(8, "big")}
    places |= {152: (9).to_bytes(4, "big"), 156: bytes(4), 160: (40).to_bytes(8, "big"), 168: b"a" * 16}
    assert b"".join(places[at] for at in sorted(places)) == data
    assert all(data[at : at + len(value)] == value for at, value in places.items())


def test_defaults_are_the_unknowns() -> None:
    header = Header(EntryType.GENESIS, 0, 0, 0, bytes(32), bytes(32), bytes(32), 2, 0, 0)
    assert (header.ref_seq, header.clock_error_ms, header.agent_tag) == (NO_SEQ, UNKNOWN_CLOCK_ERROR, bytes(16))


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, b"sDCREC\x00\x01"),
        (7, b"\x02"),
        (8, b"\x00"),
        (8, b"\x0c"),
        (8, b"\xff"),
        (9, b"\x00"),
        (9, b"\x02"),
        (10, b"\x00\x01"),
        (10, b"\x80\x00"),
        (132, (4_097).to_bytes(4, "big")),
        (156, (1).to_bytes(4, "big")),
        (128, (1).to_bytes(4, "big")),
        (128, (MAX_PAYLOAD + 1).to_bytes(4, "big")),
        (160, (41).to_bytes(8, "big")),
        (160, (2**64 - 2).to_bytes(8, "big")),
    ],
)
def test_header_rejects(at: int, value: bytes) -> None:
    data = HEADER.encode()
    with pytest.raises(Malformed):
        Header.decode(data[:at] + value + data[at + len(value) :])


@pytest.mark.parametrize("length", [0, 183, 185])
def test_header_rejects_other_lengths(length: int) -> None:
    with pytest.raises(Malformed):
        Header.decode(HEADER.encode().ljust(200, b"\0")[:length])


@pytest.mark.parametrize("changed", [{"ref_seq": 41}, {"ref_seq": 42}, {"payload_len": 1}, {"payload_len": 2**23 + 1}])
def test_a_bad_header_is_not_built(changed: dict[str, int]) -> None:
    with pytest.raises(Malformed):
        dataclasses.replace(HEADER, **changed)


@given(st.binary(min_size=2, max_size=5000), st.booleans())
def test_stored_there_and_back(noise: bytes, repeated: bool) -> None:
    payload = noise[:10] * 400 if repeated and len(noise) >= 10 else noise
    stored = StoredEntry.parse(entry.store(HEADER.encode(), b"t" * 32, b"s" * 32, payload))
    assert (stored.header, stored.tag, stored.salt) == (HEADER.encode(), b"t" * 32, b"s" * 32)
    assert stored.payload(len(payload)) == payload
    assert len(stored.stored) <= len(payload)


def test_long_payloads_are_compressed_and_short_ones_are_not() -> None:
    for size, codec in ((1760, 0), (1761, 1)):
        stored = StoredEntry.parse(entry.store(HEADER.encode(), b"t" * 32, b"s" * 32, b"x" * size))
        assert stored.codec == codec


@pytest.mark.parametrize("length", [0, 216, 248])
def test_stored_rejects_what_is_cut_short(length: int) -> None:
    with pytest.raises(Malformed):
        StoredEntry.parse(bytes(length))


@pytest.mark.parametrize(
    ("codec", "stored", "length"),
    [
        (0, b"xx", 3),
        (0, b"xxx", 2),
        (2, b"xx", 2),
        (255, b"xx", 2),
        (0, b"x" * (MAX_PAYLOAD + 1), MAX_PAYLOAD + 1),
        (1, zlib.compress(bytes(100)), 99),
        (1, zlib.compress(bytes(100)), 101),
        (1, zlib.compress(bytes(100)) + b"x", 100),
        (1, zlib.compress(bytes(100))[:-1], 100),
        (1, zlib.compress(b"xx"), 2),
        (1, b"rubbish", 100),
        (1, b"", 100),
    ],
)
def test_payload_rejects(codec: int, stored: bytes, length: int) -> None:
    with pytest.raises(Malformed):
        StoredEntry.parse(bytes(248) + bytes((codec,)) + stored).payload(length)
