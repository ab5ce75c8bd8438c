"""Requests by which an agent would have one thing judged and another done: none reaches the service behind Envoy."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.enforce.arrived import as_decided
from tests.enforce.gateway import Gateway, gateway

HOST = b"host: api.example.com\r\nconnection: close\r\n"


@pytest.fixture(scope="module")
def it() -> Iterator[Gateway]:
    with tempfile.TemporaryDirectory() as place, gateway(Path(place)) as running:
        yield running


def get(target: bytes, more: bytes = b"") -> bytes:
    return b"GET " + target + b" HTTP/1.1\r\n" + HOST + more + b"\r\n"


PATHS = (
    b"/open/%2e%2e/closed", b"/open/%2E%2E%2Fclosed", b"/open/..%2fclosed", b"/open%2f..%2fclosed",
    b"/open/..%5cclosed", b"/open/%5c..%5cclosed", b"/open/..\\closed", b"/open/%252e%252e/closed",
    b"/open/%252e%252e%252fclosed", b"/open/%25252e", b"/open/..;/closed", b"/open/..;x/closed", b"/open/;/closed",
    b"/open/%00", b"/open/a%0d%0ax: y", b"/open/a%0a", b"/open/%c0%ae%c0%ae/closed", b"/open/%ef%bc%8f",
    b"/open/%ef%bc%8e%ef%bc%8e/closed", b"/open/%e2%80%a4%e2%80%a4/closed", b"/open/a#/closed", b"/open/%zz",
    b"/open/%2", b"/open/\xff", b"open/a", b"*", b"/open/a?x=%zz", b"/open/a?x=1;y=2",
    b"/open/" + b"a" * 9_000,
)  # fmt: skip


@pytest.mark.parametrize("target", PATHS, ids=lambda target: target[:30].decode("latin-1"))
def test_ambiguous_paths(it: Gateway, target: bytes) -> None:
    before = len(it.service.acts)
    answer = it.raw(get(target))
    assert not answer.startswith(b"HTTP/1.1 2"), answer[:200]
    assert len(it.service.acts) == before


@pytest.mark.parametrize(
    ("target", "reached"),
    [
        (b"/open/../closed", None),  # Envoy takes the dots away before it asks
        (b"/open/../../closed", None),
        (b"//open//a", "/open/a"),
        (b"/closed/../open/a", "/open/a"),
        (b"/open/%7ea%2db", "/open/~a-b"),
        (b"/open/caf%c3%a9", "/open/caf%c3%a9"),
        (b"/open/100%25", "/open/100%25"),
    ],
)
def test_what_is_normalised_is_judged_as_it_goes_on(it: Gateway, target: bytes, reached: str | None) -> None:
    before = len(it.service.acts)
    it.raw(get(target))
    assert it.service.paths()[before:] == ([reached] if reached else [])
    decided = json.loads(it.of("DECISION")[-1]["request"]["arguments"])
    assert decided["raw_path"] == (reached or "/closed")


PAY = b"POST /pay HTTP/1.1\r\n" + HOST + b"content-type: application/json\r\n"
SMUGGLED = b"GET /closed HTTP/1.1\r\nhost: api.example.com\r\n\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        get(b"/open/a", b"host: other.example\r\n"),
        get(b"/open/a", b"x-hint: 1\r\nx-hint: 2\r\n"),
        get(b"/open/a", b"X-Hint: 1\r\nx-hINT: 2\r\n"),
        get(b"/open/a", b"x_hint: 2\r\n"),
        get(b"/open/a", b"x-hint: \xe9\r\n"),
        get(b"/open/a", b"x-hint: " + b"a" * 9_000 + b"\r\n"),
        get(b"/open/a", b"x: " + b"a" * 40_000 + b"\r\n"),
        get(b"/open/a", b"".join(b"x-%d: 1\r\n" % n for n in range(80))),
        get(b"/open/a", b"x-hint : 1\r\n"),
        get(b"/open/a", b"x-hint: a\x00b\r\n"),
        PAY + b"content-length: 13\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        PAY + b"content-length: 13\r\ncontent-length: 14\r\n\r\n" + b'{"amount": 1}' + SMUGGLED,
        PAY + b"content-length: +13\r\n\r\n" + b'{"amount": 1}',
        PAY + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n" + SMUGGLED,
        PAY + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        PAY + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        PAY + b"content-type: text/plain\r\ncontent-length: 13\r\n\r\n" + b'{"amount": 1}',
        PAY + b"content-encoding: gzip\r\ncontent-length: 13\r\n\r\n" + b'{"amount": 1}',
        get(b"/open/tunnel", b"connection: upgrade\r\nupgrade: websocket\r\n").replace(b"connection: close\r\n", b""),
        b"CONNECT api.example.com:443 HTTP/1.1\r\nhost: api.example.com:443\r\n\r\n",
        b"get /open/a HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /open/a HTTP/1.1\r\nhost: user@api.example.com\r\nconnection: close\r\n\r\n",
        b"GET /open/a HTTP/1.1\r\nhost: api.example.com.\r\nconnection: close\r\n\r\n",
        b"GET /open/a HTTP/1.1\r\n\r\n",
    ],
)
def test_headers_and_lengths_that_mean_two_things(it: Gateway, sent: bytes) -> None:
    before = len(it.service.acts)
    answer = it.raw(sent)
    assert b"HTTP/1.1 2" not in answer, answer[:300]
    assert len(it.service.acts) == before


def test_what_follows_a_request_is_judged_by_itself(it: Gateway) -> None:
    before = len(it.service.acts)
    body = b'{"amount": 1}'
    sent = PAY.replace(b"connection: close\r\n", b"") + b"content-length: 13\r\n\r\n" + body + get(b"/closed")
    answer = it.raw(sent)
    assert answer.count(b"HTTP/1.1 200") == 1 and answer.count(b"HTTP/1.1 403") == 1
    assert it.service.paths()[before:] == ["/pay"]


def test_what_an_agent_says_to_envoy_itself_is_not_heard(it: Gateway) -> None:
    """Retries that it asks for, the timeout, an upgrade that Envoy would hand on to be made behind its back."""
    before = len(it.service.acts)
    to_envoy = b"x-envoy-retry-on: 5xx\r\nx-envoy-max-retries: 5\r\nx-envoy-original-path: /closed\r\n"
    assert it.raw(get(b"/open/fails", to_envoy)).startswith(b"HTTP/1.1 500")
    assert it.service.paths()[before:] == ["/open/fails"]
    assert not {name for name in it.service.acts[-1].headers if name.startswith(("x-envoy-retry", "x-envoy-original"))}
    h2c = b"upgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n"
    it.raw(get(b"/open/a", h2c).replace(b"connection: close", b"connection: close, upgrade, http2-settings"))
    assert not any("upgrade" in act.headers for act in it.service.acts)


def test_a_content_type_that_chooses_a_route_without_bodies(it: Gateway) -> None:
    """The policy sees that nothing of the body was judged."""
    before = len(it.service.acts)
    it.raw(PAY.replace(b"application/json", b"application/grpc") + b'content-length: 13\r\n\r\n{"amount": 1}')
    assert len(it.service.acts) == before
    decision = it.of("DECISION")[-1]
    asked = json.loads(decision["request"]["arguments"])
    assert (decision["effect"], asked["path"], asked["body_complete"]) == ("DENY", "/pay", False)


BODY, CHUNKED = b'{"amount": 1}', PAY + b"transfer-encoding: chunked\r\n\r\n"
CLOSE = b"connection: close"
ODD = (
    get(b"/open/a", b"x-hint: 1\r\n").replace(CLOSE, CLOSE + b", x-hint"),
    get(b"/open/headers").replace(CLOSE, CLOSE + b", x-sidecar-decision-id, x-tenant, authorization"),
    get(b"/open/a").replace(CLOSE, CLOSE + b", host"),
    PAY.replace(CLOSE, CLOSE + b", content-length") + b"content-length: 13\r\n\r\n" + BODY,
    get(b"/open/a", b"x-hint: 1\r\n 2\r\n"), get(b"/open/a", b"x-hint: 1\nx-b: 2\r\n"),
    get(b"/open/a", b"x-hint: 1\rx-b: 2\r\n"), get(b"/open/a", b"x-hint\r\n"), get(b"/open/a", b": 1\r\n"),
    get(b"/open/a").replace(b"\r\n", b"\n"), b"\r\n\r\n" + get(b"/open/a"), get(b"/open/a", b"x-hint: \t a \t\r\n"),
    get(b"/open/a", b"keep-alive: 5\r\n"), get(b"/open/a", b"te: trailers, chunked\r\n"),
    CHUNKED + b"d;a=b\r\n" + BODY + b"\r\n0\r\n\r\n", CHUNKED + b"d;a\nb\r\n" + BODY + b"\r\n0\r\n\r\n",
    CHUNKED + b"d\n" + BODY + b"\n0\n\n", CHUNKED + b"d \r\n" + BODY + b"\r\n0\r\n\r\n",
    CHUNKED + b"0xd\r\n" + BODY + b"\r\n0\r\n\r\n", CHUNKED + b"+d\r\n" + BODY + b"\r\n0\r\n\r\n",
    CHUNKED + b"1000000000000000d\r\n" + BODY + b"\r\n0\r\n\r\n", CHUNKED + b"5\r\n" + BODY + b"\r\n0\r\n\r\n",
    CHUNKED + b"000000000000000000d\r\n" + BODY + b"\r\n0\r\n\r\n",
    CHUNKED + b"d\r\n" + BODY + b"\r\n0\r\nx-hint: 9\r\ncontent-length: 4\r\n\r\n",
    CHUNKED + b"d\r\n" + BODY + b"\r\n00\r\n\r\n" + SMUGGLED,
    CHUNKED.replace(b"\r\n\r\n", b"\r\ntransfer-encoding: chunked\r\n\r\n") + b"d\r\n" + BODY + b"\r\n0\r\n\r\n",
    CHUNKED.replace(b": chunked", b":\tCHUNKED") + b"d\r\n" + BODY + b"\r\n0\r\n\r\n",
    CHUNKED.replace(b": chunked", b": \x0bchunked") + b"d\r\n" + BODY + b"\r\n0\r\n\r\n",
    PAY + b"transfer-encoding: identity\r\ncontent-length: 13\r\n\r\n" + BODY,
    *(PAY + b"content-length: " + said + b"\r\n\r\n" + BODY for said in (b"13, 13", b"-1", b"0013", b"", b"0xd", b"5")),
    get(b"/open/a", b"transfer-encoding: chunked\r\n") + b"0\r\n\r\n" + SMUGGLED,
    get(b"/open/a", b"content-length: 13\r\n") + BODY,
    *(get(target) for target in (
        b"http://api.example.com/open/a", b"http://other.example/open/a", b"https://api.example.com/open/a",
        b"http://u:p@api.example.com/open/a", b"ftp://api.example.com/open/a", b"http://x/closed",
        b"http://api.example.com", b"http://api.example.com?x=/open/a", b"//api.example.com/closed",
    )),
    *(get(b"/open/a").replace(b" HTTP/1.1", version) for version in (b" HTTP/1.0", b" HTTP/1.2", b" HTTP/2.0", b"")),
    get(b"/open/a").replace(b"GET ", b"GET  "), get(b"/open/a").replace(b" ", b"\t"),
    *(get(b"/open/a").replace(b"GET", method) for method in (b"TRACE", b"PRI", b"FROB")),
    *(get(b"/open/a").replace(b"api.example.com", host) for host in (
        b"api.example.com:80", b"API.example.COM", b"api.example.com@evil", b"api.example.com/x", b"a, b", b"",
        b"api.example.com:99999", b"api.example.com:080",
    )),
    PAY + b"expect: 100-continue\r\ncontent-length: 13\r\n\r\n" + BODY,
    get(b"/stream/socket", b"upgrade: h2c, websocket\r\n").replace(CLOSE, b"connection: close, upgrade"),
    get(b"/open/a", b"upgrade: TLS/1.0\r\n").replace(CLOSE, b"connection: close, upgrade"),
    get(b"/open/a", b"x-http-method-override: DELETE\r\n"), get(b"/open/a", b"x-original-url: /closed\r\n"),
)  # fmt: skip


def test_what_arrives_is_what_was_decided_however_it_was_written(it: Gateway) -> None:
    before = len(it.service.acts)
    with ThreadPoolExecutor(8) as agents:
        answers = list(agents.map(it.raw, ODD))
    answered = sum(b"HTTP/1.1 200" in answer for answer in answers)
    acts = it.service.acts[before:]
    as_decided(it, acts)
    assert 20 < answered == len(acts) < len(ODD)
    assert {act.path for act in acts} == {"/open/a", "/open/headers", "/pay"}
    assert not {name for act in acts for name in act.headers} & {"x-http-method-override", "x-original-url", "upgrade"}
