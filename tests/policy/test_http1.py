"""The HTTP/1.1 of OPA's client: whole answers from any cut of their bytes, and everything else refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.http1 import MAX_HEAD, NotHttp, Reader, Response, TooLong, request_head

LIMIT = 1000


def read(*parts: bytes) -> Response | None:
    reader, found = Reader(lambda _status: LIMIT), None
    for part in parts:
        assert found is None
        found = reader.feed(part)
    return found


def ok(body: bytes, fields: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (fields, len(body), body)


def chunked(*chunks: bytes, fields: bytes = b"", end: bytes = b"0\r\n\r\n") -> bytes:
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"HTTP/1.1 200 OK\r\n%bTransfer-Encoding: chunked\r\n\r\n%b%b" % (fields, framed, end)


WHOLE = [
    (ok(b"{}"), Response(200, b"{}", True)),
    (ok(b""), Response(200, b"", True)),
    (ok(b"x" * LIMIT), Response(200, b"x" * LIMIT, True)),
    (ok(b"{}", b"Connection: keep-alive, Close\r\n"), Response(200, b"{}", False)),
    (ok(b"{}", b"connection: x\r\nCONNECTION: close\r\n"), Response(200, b"{}", False)),
    (ok(b"{}", b"Odd: \xff\t \r\nEmpty:\r\n"), Response(200, b"{}", True)),
    (chunked(b"ab", b"c" * 300), Response(200, b"ab" + b"c" * 300, True)),
    (chunked(), Response(200, b"", True)),
    (chunked(end=b"1 ;name=value\r\nx\r\n000\r\n\r\n"), Response(200, b"x", True)),
    (b"HTTP/1.1 204 No Content\r\n\r\n", Response(204, b"", True)),
    (b"HTTP/1.1 500 \r\nContent-Length: 1\r\n\r\nx", Response(500, b"x", True)),
]


@pytest.mark.parametrize(("raw", "found"), WHOLE)
def test_whole_answers(raw: bytes, found: Response) -> None:
    assert read(raw) == found
    assert read(*(bytes([byte]) for byte in raw)) == found


@given(st.data())
def test_however_the_bytes_are_cut(data: st.DataObject) -> None:
    raw, found = data.draw(st.sampled_from(WHOLE))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(raw) - 1), max_size=8)))
    assert read(*(raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True))) == found


@pytest.mark.parametrize("raw", [raw for raw, _ in WHOLE])
def test_what_is_cut_short_is_no_answer_and_what_follows_spoils_it(raw: bytes) -> None:
    for end in range(1, len(raw)):
        assert read(raw[:end]) is None
    with pytest.raises(NotHttp, match="follows"):
        read(raw + b"H")


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/2 200\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
        b" HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 O\nK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nContent-Length: x\r\n\r\n",
        ok(b"", b"Content-Length: 0\r\n"),
        ok(b"", b"Transfer-Encoding: chunked\r\n"),
        chunked(fields=b"Transfer-Encoding: chunked\r\n"),
        ok(b"", b" folded\r\n"),
        ok(b"", b"Name : value\r\n"),
        ok(b"", b"no field\r\n"),
        ok(b"", b": value\r\n"),
        ok(b"", b"Nul: \0\r\n"),
        ok(b"", b"Bare: a\rb\r\n"),
        ok(b"", b"Bare: a\nb\r\n"),
        *(b"HTTP/1.1 200 OK\r\nContent-Length: %b\r\n\r\n" % odd for odd in (b"+1", b"-1", b"0x1", b"1,1", b"9" * 19)),
        *(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: %b\r\n\r\n" % odd for odd in (b"gzip", b"gzip, chunked", b"")),
        *(chunked(end=odd) for odd in (b"\r\n", b"x\r\n", b"-1\r\n", b"0x1\r\n", b"1\r\nab\r\n", b"0\r\nA: b\r\n\r\n")),
        *(chunked(end=odd) for odd in (b"f" * 16 + b"\r\n", b"1;" + b"x" * 300)),
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * MAX_HEAD,
    ],
)
def test_what_is_no_answer(raw: bytes) -> None:
    with pytest.raises(NotHttp):
        read(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n",
        chunked(end=b"3e9\r\n"),
        chunked(b"x" * 600, end=b"191\r\n"),
        chunked(end=b"f" * 15 + b"\r\n"),
    ],
)
def test_what_is_too_long_is_refused_before_it_comes(raw: bytes) -> None:
    with pytest.raises(TooLong, match=str(LIMIT)):
        read(raw)


@given(
    st.lists(st.sampled_from([b"HTTP/1.1 200 OK\r\n", b"Content-Length: 3\r\n", b"\r\n", b"abc", b"1\r\n", b"\xff"]))
)
def test_any_bytes_end_in_an_answer_or_a_refusal(parts: list[bytes]) -> None:
    reader = Reader(lambda _status: LIMIT)
    try:
        for part in parts:
            if reader.feed(part) is not None:
                break
    except (NotHttp, TooLong):
        pass


def test_a_request_head() -> None:
    head = request_head("GET", "/health", {"Host": "localhost", "Accept-Encoding": "identity"})
    assert head == b"GET /health HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: identity"
