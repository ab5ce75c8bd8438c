"""What goes between the sidecar and the process beside it: nothing that is no frame is taken for one."""

from __future__ import annotations

import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.wasm import frames

LIMIT = 1 << 16
PIECES = st.lists(st.none() | st.binary(max_size=50), max_size=8)


@given(st.lists(st.tuples(PIECES, st.floats(min_value=0, max_value=60)), max_size=3), st.integers(1, 40))
def test_what_was_packed_is_read_however_it_comes(sent: list[tuple[list[bytes | None], float]], step: int) -> None:
    raw = b"".join(frames.pack(pieces, seconds) for pieces, seconds in sent)
    buffer, taken = bytearray(), []
    for at in range(0, len(raw), step):
        buffer += raw[at : at + step]
        while (frame := frames.take(buffer, LIMIT)) is not None:
            taken.append(frame)
    assert (taken, buffer) == ([(seconds, pieces) for pieces, seconds in sent], b"")
    stream = io.BytesIO(raw)
    assert [frames.read(stream) for _ in sent] == [pieces for pieces, _ in sent]
    assert frames.read(stream) is None


@given(st.binary(max_size=80))
def test_other_bytes_are_refused_or_waited_for(raw: bytes) -> None:
    buffer = bytearray(raw)
    try:
        frame = frames.take(buffer, LIMIT)
    except frames.NoFrame:
        return
    assert frame is None or frames.pack(frame[1], frame[0]) == raw[: len(raw) - len(buffer)]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        struct.pack("<dI", 0, 1),
        struct.pack("<dI", 0, 0xFFFF_FFFF),
        struct.pack("<dII", 0, 1, 4) + b"abc",
        struct.pack("<dII", 0, 1, 2) + b"abc",
        struct.pack("<dIII", 0, 2, 0xFFFF_FFFE, 6) + b"abc",
    ],
)
def test_lengths_that_lie(body: bytes) -> None:
    raw = struct.pack("<I", len(body)) + body
    with pytest.raises(frames.NoFrame):
        frames.take(bytearray(raw), LIMIT)
    with pytest.raises(frames.NoFrame):
        frames.read(io.BytesIO(raw))


def test_one_that_is_too_long_is_refused_before_it_is_there() -> None:
    with pytest.raises(frames.NoFrame, match="too long"):
        frames.take(bytearray(struct.pack("<I", LIMIT + 1)), LIMIT)
