"""Requests by which an agent would have one thing judged and another done: none reaches the service behind Envoy."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

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
    b"/open/%2", b"/open/\xff", b"open/a", b"*", b"/open/a?x=%zz", b"/open/" + b"a" * 9_000,
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
