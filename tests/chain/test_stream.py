"""The framing: records there and back, and what is refused."""

from __future__ import annotations

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.chain.limits import MAX_RECORD
from sidecar.chain.stream import MAGIC, Kind, record, records
from sidecar.errors import Malformed

RECORDS = st.lists(st.tuples(st.sampled_from(Kind), st.binary(max_size=200)), max_size=8)


def cut(data: bytes) -> list[tuple[Kind, bytes]]:
    return list(records(BytesIO(data).read))


@given(RECORDS)
def test_there_and_back(given_records: list[tuple[Kind, bytes]]) -> None:
    data = MAGIC + b"".join(record(kind, body) for kind, body in given_records)
    assert cut(data) == given_records


@given(RECORDS, st.data())
def test_cut_short_anywhere(given_records: list[tuple[Kind, bytes]], data: st.DataObject) -> None:
    framed = [record(kind, body) for kind, body in given_records]
    whole = MAGIC + b"".join(framed)
    ends = {len(MAGIC) + sum(map(len, framed[:i])) for i in range(len(framed) + 1)}
    end = data.draw(st.integers(0, len(whole)))
    if end in ends:
        assert cut(whole[:end]) == given_records[: len(cut(whole[:end]))]
    else:
        with pytest.raises(Malformed):
            cut(whole[:end])


def test_layout() -> None:
    assert record(Kind.SEAL, b"abc") == b"\x07\x00\x00\x00\x03abc"
    assert MAGIC == b"SDCSEG\x00\x01"
    assert [int(k) for k in Kind] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"SDCSEG\x00",
        b"SDCSEG\x00\x02",
        MAGIC + b"\x00\x00\x00\x00\x00",
        MAGIC + b"\x0d\x00\x00\x00\x00",
        MAGIC + b"\x05\x00\x00\x00",
        MAGIC + b"\x05\x00\x00\x00\x01",
        MAGIC + b"\x05" + (MAX_RECORD + 1).to_bytes(4, "big"),
        MAGIC + b"\x05\xff\xff\xff\xff" + bytes(100),
    ],
)
def test_rejects(data: bytes) -> None:
    with pytest.raises(Malformed):
        cut(data)


def test_the_longest_record() -> None:
    body = bytes(MAX_RECORD)
    assert cut(MAGIC + record(Kind.ENTRY, body)) == [(Kind.ENTRY, body)]
    with pytest.raises(Malformed):
        record(Kind.ENTRY, body + b"x")


@given(RECORDS, st.integers(1, 40))
def test_pieces_of_any_size_give_the_same_records(given_records: list[tuple[Kind, bytes]], size: int) -> None:
    source = BytesIO(MAGIC + b"".join(record(kind, body) for kind, body in given_records))
    assert list(records(lambda n: source.read(min(n, size)))) == given_records


def test_what_reading_raises_hides_no_record_before_it() -> None:
    pieces = [MAGIC + record(Kind.HEAD, b"a") + record(Kind.SEAL, b"b")[:-1]]
    found = []
    with pytest.raises(IndexError):
        for kind, _ in records(lambda n: pieces.pop()):
            found.append(kind)
    assert found == [Kind.HEAD]
