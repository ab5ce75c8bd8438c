"""HTTP/2 that no client would send: what was decided is what the service got, or nothing arrived.

Envoy takes these agents for internal here, as it does in versions and under settings that trust private addresses: so
it would hear what they say to it.
"""

from __future__ import annotations

import contextlib
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hyperframe.frame import ContinuationFrame, GoAwayFrame, HeadersFrame, RstStreamFrame

from tests.enforce.arrived import as_decided
from tests.enforce.gateway import TOKEN, Gateway, gateway
from tests.enforce.http2 import PIECE, Http2, Told, connected, request

METHOD, SCHEME, AUTHORITY = (b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"api.example.com")
PATH = (b":path", b"/open/a")
JSON, PAID = (b"content-type", b"application/json"), b'{"amount": 1}'


def internal(configuration: dict[str, Any]) -> None:
    (manager,) = configuration["static_resources"]["listeners"][0]["filter_chains"][0]["filters"]
    manager["typed_config"]["internal_address_config"] = {"unix_sockets": False}


@pytest.fixture(scope="module")
def it() -> Iterator[Gateway]:
    with tempfile.TemporaryDirectory() as place, gateway(Path(place), internal) as running:
        yield running


def asked(it: Gateway, fields: Any) -> Told:
    with connected(it.port) as connection:
        connection.headers(1, fields)
        return connection.told()


def at_once(it: Gateway, requests: Sequence[tuple[Any, bytes | None]]) -> list[Told]:
    """What comes of each, each on a connection of its own; None: a request without a body."""
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connected(it.port)) for _ in requests]
        for connection, (fields, body) in zip(connections, requests, strict=True):
            connection.headers(1, fields, end=body is None)
            if body is not None:
                connection.data(1, body)
        return [connection.told() for connection in connections]


# --- header blocks

TWICE = {
    name: [METHOD, SCHEME, AUTHORITY, PATH, (name, value)]
    for name, value in (
        (b":path", b"/closed"), (b":method", b"POST"), (b":authority", b"other.example"), (b":scheme", b"https"),
    )
}  # fmt: skip
MIXED = {
    b"the other path first": [METHOD, SCHEME, AUTHORITY, (b":path", b"/closed"), PATH],
    b"a pseudo-field after a field": [METHOD, SCHEME, AUTHORITY, (b"x-a", b"1"), PATH],
    b"and another path": request(b"/open/a", (b"x-a", b"1"), (b":path", b"/closed")),
    b"an unknown pseudo-field": [METHOD, SCHEME, AUTHORITY, PATH, (b":x", b"1")],
    b"a response's": [METHOD, SCHEME, AUTHORITY, PATH, (b":status", b"200")],
    b"no path": [METHOD, SCHEME, AUTHORITY],
    b"no method": [SCHEME, AUTHORITY, PATH],
    b"no scheme": [METHOD, AUTHORITY, PATH],
    b"no authority": [METHOD, SCHEME, PATH],
    b"an empty authority": [METHOD, SCHEME, (b":authority", b""), PATH, (b"host", b"api.example.com")],
    b"two hosts": [METHOD, SCHEME, PATH, (b"host", b"api.example.com"), (b"host", b"other.example")],
    b"a user": [METHOD, SCHEME, (b":authority", b"u@api.example.com"), PATH],
    b"a port that is none": [METHOD, SCHEME, (b":authority", b"api.example.com:080"), PATH],
    b"a port too large": [METHOD, SCHEME, (b":authority", b"api.example.com:65536"), PATH],
    b"a scheme with a line": [METHOD, (b":scheme", b"http\r\nx: y"), AUTHORITY, PATH],
    b"CONNECT": [(b":method", b"CONNECT"), (b":authority", b"api.example.com:443")],
    b"CONNECT with a path": request(method=b"CONNECT"),
    b"a method's line": request(method=b"GET /closed HTTP/1.1\r\nx:"),
    b"a method with a space": request(method=b"GET /closed"),
    b"a method in lower case": request(method=b"get"),
    **{
        b"extended CONNECT to " + name: [(b":method", b"CONNECT"), (b":protocol", name), SCHEME, AUTHORITY, path]
        for name in (b"websocket", b"connect-udp")
        for path in (PATH, (b":path", b"/stream/socket"))
    },
    b"a protocol with GET": [METHOD, (b":protocol", b"websocket"), SCHEME, AUTHORITY, PATH],
}
PATHS = (
    b"", b"*", b"open/a", b"http://other.example/open/a", b"http://api.example.com/closed", b"/open/a /closed",
    b"/closed HTTP/1.1\r\nhost: x\r\n\r\n", b"/open/%2f..%2fclosed", b"/open/../closed", b"/open/%2e%2e/closed",
    b"/open\\..\\closed", b"/open/..;/closed", b"/open/a#/closed", b"/open/a?x=1#y", b"/open/\t/closed", b"/open/\xff",
    b"/open/\x00", b"/open/a\r", b"/open/a\n", b"//other.example/open/a", b"/open/%252e%252e/closed",
)  # fmt: skip
FIELDS = (
    (b"X-Hint", b"1"), (b"x_hint", b"1"), (b"", b"1"), (b":", b"1"), (b"x a", b"1"), (b"x:a", b"1"), (b"x\0a", b"1"),
    (b"x\xffa", b"1"), (b"x-a\r\nx-b", b"1"), (b"x-hint", b"a\r\nx-b: c"), (b"x-hint", b"a\0b"), (b"x-b", b"a\nb"),
    (b"x-hint", b" a"), (b"x-hint", b"a\t"), (b"x-hint", b"\xe9"), (b"transfer-encoding", b"chunked"),
    (b"connection", b"close"), (b"connection", b"x-sidecar-decision-id"), (b"keep-alive", b"1"),
    (b"proxy-connection", b"keep-alive"), (b"upgrade", b"h2c"), (b"upgrade", b"websocket"), (b"te", b"gzip, chunked"),
    (b"content-length", b"5"), (b"content-length", b"0x0"), (b"content-length", b"0, 0"), (b"content-length", b"+0"),
    (b"x-big", b"a" * 33_000), (b"x-http-method-override", b"DELETE"), (b"x-original-url", b"/closed"),
    (b"x-rewrite-url", b"/closed"), (b"x-forwarded-host", b"other.example"), (b"forwarded", b"host=other.example"),
)  # fmt: skip
BLOCKS = {
    **TWICE,
    **MIXED,
    **{path: request(path) for path in PATHS},
    **{b"%b: %b" % field: request(b"/open/a", field) for field in FIELDS},
    b"a judged field twice": request(b"/open/a", (b"x-hint", b"1"), (b"x-hint", b"2")),
    b"two lengths": request(b"/open/a", (b"content-length", b"0"), (b"content-length", b"0")),
    b"too many": request(b"/open/a", *((b"x-%d" % n, b"1") for n in range(100))),
}


def test_header_blocks_that_mean_two_things(it: Gateway) -> None:
    """All at once: Envoy takes its time to close the connections of some."""
    before = len(it.service.acts)
    told = at_once(it, [(fields, None) for fields in BLOCKS.values()])
    assert [name for name, found in zip(BLOCKS, told, strict=True) if 100 <= found.status < 400] == []
    assert it.service.paths()[before:] == []
    assert asked(it, request()).status == 200


@pytest.mark.parametrize(
    ("fields", "path", "seen"),
    [
        ([METHOD, SCHEME, PATH, (b"host", b"api.example.com")], "/open/a", {"host": "api.example.com"}),
        (request(b"/open/a", (b"host", b"other.example")), "/open/a", {"host": "api.example.com"}),
        ([METHOD, (b":scheme", b"https"), AUTHORITY, PATH], "/open/a", {"x-forwarded-proto": "https"}),
        (request(b"//open//a"), "/open/a", {}),
        (request(b"/closed/../open/%7ea?x=/../closed"), "/open/~a?x=/../closed", {}),
        (request(b"/open/a", (b"cookie", b"a=1"), (b"cookie", b"b=2")), "/open/a", {"cookie": "a=1; b=2"}),
        (request(b"/open/a", (b"te", b"trailers")), "/open/a", {}),
        (request(b"/open/a", (b"x-forwarded-for", b"1.2.3.4")), "/open/a", {"x-forwarded-for": None}),
        (request(b"/open/a", (b"x-forwarded-proto", b"ftp")), "/open/a", {"x-forwarded-proto": "https"}),
        (request(b"/open/a", (b"authorization", b"mine"), (b"x-sidecar-permit", b"p")), "/open/a",
         {"authorization": TOKEN, "x-sidecar-permit": None}),
    ],
)  # fmt: skip
def test_what_is_read_one_way_is_judged_as_it_goes_on(
    it: Gateway, fields: Any, path: str, seen: dict[str, str | None]
) -> None:
    before = len(it.service.acts)
    assert asked(it, fields).status == 200
    (act,) = it.service.acts[before:]
    as_decided(it, [act])
    assert act.path == path and {name: act.headers.get(name) for name in seen} == seen


def test_the_scheme_is_not_the_agents_to_say(it: Gateway) -> None:
    asked(it, [METHOD, (b":scheme", b"http"), AUTHORITY, PATH])
    asked(it, [METHOD, (b":scheme", b"https"), AUTHORITY, PATH])
    assert ['"scheme":"https"' in d["request"]["arguments"] for d in it.of("DECISION")[-2:]] == [True, True]


TO_ENVOY = (
    (b"x-envoy-retry-on", b"5xx"), (b"x-envoy-max-retries", b"3"), (b"x-envoy-upstream-rq-timeout-ms", b"1"),
    (b"x-envoy-upstream-rq-per-try-timeout-ms", b"1"), (b"x-envoy-hedge-on-per-try-timeout", b"true"),
    (b"x-envoy-original-path", b"/closed"), (b"x-envoy-upstream-rq-timeout-alt-response", b"1"),
    (b"x-envoy-expected-rq-timeout-ms", b"1"), (b"x-envoy-decorator-operation", b"x"),
    (b"x-envoy-original-dst-host", b"127.0.0.1:1"),
)  # fmt: skip


def test_an_agent_that_envoy_takes_for_internal_tells_it_nothing(it: Gateway) -> None:
    """One decision, one action: no retries, no timeout of its own, whatever it asks of Envoy."""
    before = len(it.service.acts)
    assert asked(it, request(b"/open/fails", *TO_ENVOY)).status == 500
    (act,) = it.service.acts[before:]
    assert act.path == "/open/fails" and not {name.decode() for name, _ in TO_ENVOY} & act.headers.keys()
    assert it.outcome(it.of("DECISION")[-1]["decision_id"])["downstream_status"] == "500"


# --- bodies


def length(size: int) -> tuple[bytes, bytes]:
    return (b"content-length", b"%d" % size)


def sent(connection: Http2, fields: Any, *parts: bytes, trailers: Any = None) -> Told:
    connection.headers(1, fields, end=False)
    for number, part in enumerate(parts, 1):
        connection.data(1, part, end=number == len(parts) and trailers is None)
    if trailers is not None:
        connection.headers(1, trailers)
    return connection.told()


def pay(*more: tuple[bytes, bytes]) -> Any:
    return request(b"/pay", JSON, *more, method=b"POST")


@pytest.mark.parametrize("parts", [(PAID,), (PAID[:5], PAID[5:]), (b"", PAID), (PAID, b"")])
@pytest.mark.parametrize("more", [(), (length(13),)])
def test_a_body_in_pieces_is_judged_whole(it: Gateway, parts: tuple[bytes, ...], more: Any) -> None:
    before = len(it.service.acts)
    with connected(it.port) as connection:
        assert sent(connection, pay(*more), *parts).status == 200
    (act,) = it.service.acts[before:]
    assert act.body == PAID
    as_decided(it, [act])


LIES: dict[str, Callable[[Http2], object]] = {
    "shorter than its data": lambda c: sent(c, pay(length(5)), PAID),
    "longer than its data": lambda c: sent(c, pay(length(50)), PAID),
    "longer, and trailers": lambda c: sent(c, pay(length(50)), PAID, trailers=[(b"x-t", b"1")]),
    "a length among trailers": lambda c: sent(c, pay(), PAID, trailers=[(b"content-length", b"9")]),
    "a path among trailers": lambda c: sent(c, pay(), PAID, trailers=[(b":path", b"/open/a")]),
    "packed": lambda c: sent(c, pay((b"content-encoding", b"gzip")), PAID),
    "nothing, of unknown length": lambda c: c.headers(1, pay()),
    "a second head": lambda c: (c.headers(1, pay(), end=False), c.headers(1, request(b"/open/a"), end=False)),
    "as long as the limit": lambda c: sent(c, pay(), *pieces(PAID.ljust(65_536))),
    "longer than the limit": lambda c: sent(c, pay(), *pieces(PAID.ljust(65_537))),
    "longer than the limit, and says so": lambda c: sent(c, pay(length(65_537)), *pieces(PAID.ljust(65_537))),
    "given up": lambda c: (sent_in_part(c), c.send(RstStreamFrame(1, 8))),
    "the connection's end": lambda c: (sent_in_part(c), c.send(GoAwayFrame(0))),
    "no end": lambda c: sent_in_part(c),
}


def pieces(body: bytes) -> list[bytes]:
    """More than the first window may go unread: Envoy answers before."""
    return [body[at : at + PIECE] for at in range(0, len(body), PIECE)]


def sent_in_part(connection: Http2) -> None:
    connection.headers(1, pay(length(50)), end=False)
    connection.data(1, PAID, end=False)


@pytest.mark.parametrize("name", LIES)
def test_a_body_that_is_not_what_it_says(it: Gateway, name: str) -> None:
    before, decided = len(it.service.acts), len(it.of("DECISION"))
    with connected(it.port) as connection:
        LIES[name](connection)
    assert asked(it, request(b"/open/after")).status == 200  # on one thread, so what came before was seen
    assert it.service.paths()[before:] == ["/open/after"]
    allowed = [d["request"]["resource"]["id"] for d in it.of("DECISION")[decided:] if d["effect"] == "ALLOW"]
    assert allowed == ["api.example.com/open/after"]


def test_trailers_are_no_headers(it: Gateway) -> None:
    before = len(it.service.acts)
    with connected(it.port) as connection:
        told = sent(connection, pay(), PAID, trailers=[(b"x-hint", b"late"), (b"x-http-method-override", b"DELETE")])
    assert told.status == 200
    (act,) = it.service.acts[before:]
    assert not {"x-hint", "x-http-method-override", "trailer"} & act.headers.keys()
    as_decided(it, [act])


# --- floods


def bomb(connection: Http2) -> None:
    """Some 4 kB on the wire, 8 MB of fields."""
    big = (b"x-a", b"a" * 3_900)
    block = connection.block([*request(), big]) + connection.block([big] * 2_000)
    connection.send(HeadersFrame(1, block, flags=["END_STREAM", "END_HEADERS"]))


def endless(connection: Http2, piece: bytes) -> None:
    connection.send(HeadersFrame(1, connection.block(request())))
    frames = ContinuationFrame(1, piece).serialize() * 100
    for _ in range(80):
        connection.raw(frames)


def given_up(connection: Http2) -> None:
    for stream in range(1, 3_001, 2):
        connection.send(
            HeadersFrame(stream, connection.block(request()), flags=["END_STREAM", "END_HEADERS"]),
            RstStreamFrame(stream, 8),
        )


@pytest.mark.parametrize(
    "flood",
    [bomb, lambda c: endless(c, b"\x00\x01a\x01b" * 800), lambda c: endless(c, b""), given_up],
    ids=["bomb", "continuations", "empty continuations", "rapid reset"],
)
def test_a_flood_is_ended_in_bounded_memory(it: Gateway, flood: Callable[[Http2], None]) -> None:
    before, held = len(it.service.acts), memory(it)
    with connected(it.port) as connection:
        flood(connection)
        assert connection.told().status == 0
        assert memory(it) - held < 48 << 20
    assert asked(it, request(b"/open/after")).status == 200
    assert it.service.paths()[before:] == ["/open/after"]


def memory(it: Gateway) -> int:
    """Of Envoy, in bytes."""
    text = Path(f"/proc/{it.processes['envoy'].pid}/status").read_text()
    return int(text.partition("RssAnon:")[2].split()[0]) * 1024


# --- and whatever else

NAMES = (
    b":path", b":method", b":authority", b":scheme", b":status", b"host", b"cookie", b"x-hint", b"X-Hint", b"x_hint",
    b"te", b"content-length", b"content-type", b"connection", b"transfer-encoding", b"upgrade", b"expect", b"",
    b"x-envoy-retry-on", b"x-envoy-auth-partial-body", b"x-sidecar-decision-id", b"x-sidecar-permit", b"forwarded",
)  # fmt: skip
VALUES = (
    b"/open/a", b"/closed", b"/open/../closed", b"GET", b"POST", b"api.example.com", b"other.example", b"1", b"13",
    b"", b" 1", b"false", b"true", b"chunked", b"trailers", b"application/json", b"application/grpc", b"websocket",
    b"a\r\nb: c", b"\xff", b"http", b"https", b"100-continue", b"0",
)  # fmt: skip


def anything(rng: random.Random) -> tuple[Any, bytes | None]:
    """A request with fields more, or others, where they belong or anywhere."""
    fields = request(rng.choice((b"/open/a", b"/pay", b"/open/b?c=d")), method=rng.choice((b"GET", b"POST")))
    for _ in range(rng.randint(1, 3)):
        at = len(fields) if rng.random() < 0.7 else rng.randrange(len(fields) + 1)
        fields[at : at + rng.randint(0, 1)] = [(rng.choice(NAMES), rng.choice(VALUES))]
    return fields, rng.choice((None, b"", PAID))


def done(told: Told) -> bool:
    """By the service of HTTP/1; that of gRPC answers 200 to whatever it does not know."""
    return told.status == 200 and told.body == b"done\n"


def test_whatever_is_sent_arrives_as_it_was_decided_or_not_at_all(it: Gateway) -> None:
    """tests/soak sends some thousands more."""
    rng, before = random.Random(20261126), len(it.service.acts)
    told = at_once(it, [anything(rng) for _ in range(120)])
    acts = it.service.acts[before:]
    as_decided(it, acts)
    assert 0 < sum(done(each) for each in told) == len(acts) < len(told)
