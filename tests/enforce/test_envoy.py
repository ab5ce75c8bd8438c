"""A real Envoy with the shipped configuration: what reaches the service behind it, and what the ledger says of that.

A test looks at what the service did, not at what the agent was told.
"""

from __future__ import annotations

import base64
import http.client
import json
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from sidecar.client import AgentKey, Guard, Status
from sidecar.errors import SidecarError
from tests.enforce.gateway import AGENT, GATEWAY, LEAD, SHIPPED, TOKEN, Gateway, gateway, sign_key
from tests.enforce.http2 import connected, request
from tests.enforce.mounted import mount
from tests.enforce.upstream import HOST
from tests.program import sidecar

LIMIT = 65_536  # of the shipped configuration


@pytest.fixture(scope="module")
def it() -> Iterator[Gateway]:
    with tempfile.TemporaryDirectory() as place, gateway(Path(place)) as running:
        yield running


def arguments(decision: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(decision["request"]["arguments"])
    return found


def last(it: Gateway) -> dict[str, Any]:
    return it.of("DECISION")[-1]


def test_allow(it: Gateway) -> None:
    headers = {"x-hint": "one", "authorization": "Bearer the-agent's-own", "x-sidecar-permit": "forged"}
    answered = it.ask("GET", "/open/a%7Eb?x=1&x=2", headers=headers)
    assert (answered.status, answered.body) == (200, b"done\n")
    act, decision = it.service.acts[-1], last(it)
    assert act.headers["authorization"] == TOKEN and "x-sidecar-permit" not in act.headers
    assert act.headers["x-sidecar-decision-id"] == decision["decision_id"]
    assert decision["request"]["action"] == "http.get"
    assert decision["request"]["resource"] == {"type": "http", "id": "api.example.com/open/a~b"}
    assert arguments(decision) == {
        "method": "GET", "scheme": "https", "host": "api.example.com", "path": "/open/a~b", "raw_path": "/open/a~b",
        "query": "x=1&x=2", "parameters": {"x": ["1", "2"]}, "headers": {"x-hint": "one"},
        "body": None, "body_size": 0, "body_complete": True,
    }  # fmt: skip
    assert json.loads(decision["request"]["context"]) == {"door": {"kind": "envoy", "protocol": "HTTP/1.1"}}
    named = {"id": AGENT, "proof": "gateway", "gateway": GATEWAY, "gateway_proof": "socket"}
    assert decision["agent"].items() >= named.items() and decision["executor"]["id"] == GATEWAY
    outcome = it.outcome(decision["decision_id"])
    assert (outcome["status"], outcome["downstream_status"], outcome["by"]["id"]) == ("executed", "200", GATEWAY)
    assert json.loads(outcome["response"])["response_body_bytes"] == 5
    assert int(outcome["started_ns"]) and int(outcome["duration_ns"])
    assert b"the-agent's-own" not in json.dumps(it.entries(), default=str).encode()


def test_deny(it: Gateway) -> None:
    before = it.service.paths()
    answered = it.ask("GET", "/closed")
    told, decision = answered.json(), last(it)
    assert answered.status == 403 and it.service.paths() == before
    assert (told["error"], told["effect"], told["decision_id"]) == ("denied", "DENY", decision["decision_id"])
    assert told["reasons"] == [{"code": "not_listed", "message": "no rule allows this path"}]
    assert told["policy"]["revision"] == "r1" and told["message"] == "no rule allows this path"
    assert answered.headers["x-sidecar-decision-id"] == decision["decision_id"]
    assert answered.headers["content-type"] == "application/json"


def test_roles_reach_the_policy(it: Gateway) -> None:
    assert it.ask("GET", "/role").status == 200


def test_headers_that_the_policy_adds_and_removes(it: Gateway) -> None:
    assert it.ask("GET", "/open/headers", headers={"x-debug": "1", "x-tenant": "mine"}).status == 200
    act = it.service.acts[-1]
    assert act.headers["x-tenant"] == "acme" and "x-debug" not in act.headers


def test_an_obligation_that_envoy_cannot_meet(it: Gateway) -> None:
    before = it.service.paths()
    answered = it.ask("GET", "/open/dance")
    assert (answered.status, answered.json()["error"]) == (403, "obligation")
    assert it.service.paths() == before
    outcome = it.outcome(answered.json()["decision_id"])
    assert (outcome["status"], outcome["downstream_status"]) == ("blocked", "an obligation was not met")


JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("body", "status", "seen"),
    [
        (b'{"amount": 100}', 200, {"json": {"amount": 100}}),
        (b'{"amount": 101}', 403, {"json": {"amount": 101}}),
        (b'{"amount": 1, "amount": 900}', 403, {"base64": base64.b64encode(b'{"amount": 1, "amount": 900}').decode()}),
        (b"\xff\xfe\x00", 403, {"base64": base64.b64encode(b"\xff\xfe\x00").decode()}),
    ],
)
def test_a_body_is_judged(it: Gateway, body: bytes, status: int, seen: dict[str, Any]) -> None:
    before = len(it.service.acts)
    assert it.ask("POST", "/pay", body, JSON).status == status
    assert arguments(last(it))["body"] == seen
    assert [act.body for act in it.service.acts[before:]] == ([body] if status == 200 else [])


def padded(size: int) -> bytes:
    return b'{"amount": 1}'.ljust(size)


def chunked(*chunks: bytes, path: str = "/pay") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: api.example.com\r\ncontent-type: application/json\r\nconnection: close\r\n"
    body = b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in chunks)
    return head.encode() + b"transfer-encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"


def test_a_body_within_the_limit(it: Gateway) -> None:
    assert it.ask("POST", "/pay", padded(LIMIT), JSON).status == 200  # as long as it says, so it is whole
    assert it.service.acts[-1].body == padded(LIMIT)
    assert it.raw(chunked(padded(LIMIT - 1))).startswith(b"HTTP/1.1 200")
    assert it.service.acts[-1].body == padded(LIMIT - 1)


@pytest.mark.parametrize(
    "sent",
    [
        chunked(padded(LIMIT + 1)),
        chunked(padded(LIMIT)),  # Envoy says that it is whole, whatever follows
        chunked(padded(LIMIT), b"and what nobody judged"),
        *(
            b"POST /pay HTTP/1.1\r\nhost: api.example.com\r\ncontent-type: application/json\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n" % size + padded(size)
            for size in (LIMIT + 1, 70_000)
        ),
    ],
)
def test_a_cut_body_is_not_judged_as_if_whole(it: Gateway, sent: bytes) -> None:
    before, decided = len(it.service.acts), len(it.of("DECISION"))
    answer = it.raw(sent)
    assert answer.startswith(b"HTTP/1.1 413") and b"is not there whole" in answer
    assert len(it.service.acts) == before and len(it.of("DECISION")) == decided
    refused = it.of("REJECTED")[-1]
    assert (refused["call"], refused["field"], refused["principal"]) == ("Check", "body", AGENT)


def test_an_agent_that_says_itself_that_its_body_is_whole(it: Gateway) -> None:
    before = len(it.service.acts)
    """Where Envoy has a word of its own, that stands in its place; where it has none, there must be none."""
    for body, said in ((padded(70_000), "false"), (None, "false"), (None, "true")):
        assert it.ask("POST", "/pay", body, {**JSON, "x-envoy-auth-partial-body": said}).status in (403, 413)
    assert len(it.service.acts) == before


@pytest.mark.parametrize(
    ("path", "status", "downstream"),
    [("/open/fails", "failed", "500"), ("/open/abort", "failed", "unknown"), ("/open/half", "failed", "unknown")],
)
def test_what_really_happened_is_the_outcome(it: Gateway, path: str, status: str, downstream: str) -> None:
    before = len(it.service.acts)
    try:
        it.ask("GET", path)
    except OSError:
        pass  # half a response
    except Exception as error:
        assert "IncompleteRead" in type(error).__name__
    assert len(it.service.acts) == before + 1
    outcome = it.outcome(last(it)["decision_id"])
    assert (outcome["status"], outcome["downstream_status"].split()[0]) == (status, downstream)


def test_an_agent_that_goes_away_before_the_answer(it: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", it.port), 30) as connection:
        connection.sendall(b"GET /open/wait HTTP/1.1\r\nhost: api.example.com\r\n\r\n")
        it.until(lambda: "/open/wait" in it.service.paths())
    outcome = it.outcome(last(it)["decision_id"])
    assert outcome["status"] == "failed" and "downstream_connection_termination" in outcome["downstream_status"]
    it.service.gate.set()


def test_approval(it: Gateway) -> None:
    before = it.service.paths()
    answered = it.ask("POST", "/approve/this", b'{"sum":1}', JSON)
    told = answered.json()
    assert (answered.status, told["error"]) == (428, "approval_required") and it.service.paths() == before
    assert told["decision_id"] in told["approval"]["how"]
    again = {**JSON, "x-sidecar-approval-of": told["decision_id"]}
    assert it.ask("POST", "/approve/this", b'{"sum":1}', again).status != 200
    key = sign_key(it.place, LEAD)
    where = ("--server", f"unix:{it.place}/s.sock", "--by", LEAD, "--key", key, "--yes")
    done = sidecar("approvals", "approve", *where, told["decision_id"])
    assert done.returncode == 0, done.stderr
    assert it.ask("POST", "/approve/this", b'{"sum":2}', again).status == 400  # another than was approved
    assert it.service.paths() == before
    assert it.ask("POST", "/approve/this", b'{"sum":1}', again).status == 200
    assert it.service.acts[-1].path == "/approve/this"
    assert it.ask("POST", "/approve/this", b'{"sum":1}', again).status != 200  # once
    assert it.service.paths().count("/approve/this") == 1


ONE, BOTH = b"data: one\n\n", b"data: one\n\ndata: two\n\n"


def test_events_arrive_as_they_are_sent(it: Gateway) -> None:
    """The first while the service waits to send the second; the outcome once all is sent."""
    it.service.gate.clear()
    connection = http.client.HTTPConnection("127.0.0.1", it.port, timeout=30)
    connection.request("GET", "/stream/events", headers={"host": HOST})
    response = connection.getresponse()
    assert response.read(len(ONE)) == ONE
    with connected(it.port) as over_http2:
        over_http2.headers(1, request(b"/stream/events"))
        assert over_http2.told(enough=lambda told: len(told.body) >= len(ONE)).body == ONE
        decisions = [decision["decision_id"] for decision in it.of("DECISION")[-2:]]
        assert not {outcome["decision_id"] for outcome in it.of("OUTCOME")} & set(decisions)
        it.service.gate.set()
        assert over_http2.told().body == BOTH and ONE + response.read() == BOTH
    connection.close()
    assert [it.outcome(each)["status"] for each in decisions] == ["executed", "executed"]
    assert arguments(last(it))["body_complete"] is False


def test_an_upload_beyond_the_limit_on_a_route_of_streams(it: Gateway) -> None:
    """It goes on whole, and the policy was told that nothing of it was seen."""
    body = b"0123456789abcdef" * (1 << 16)
    assert it.ask("POST", "/stream/upload", body, JSON).status == 200
    assert it.service.acts[-1].body == body
    seen = arguments(last(it))
    assert (seen["body"], seen["body_size"], seen["body_complete"]) == (None, None, False)
    outcome = it.outcome(last(it)["decision_id"])
    assert outcome["status"] == "executed" and json.loads(outcome["response"])["request_body_bytes"] == len(body)


def test_http1_to_a_service_of_http2(it: Gateway) -> None:
    before = len(it.service.acts)
    head = b"POST /echo.Echo/Back HTTP/1.1\r\nhost: api.example.com\r\nconnection: close\r\nte: trailers\r\n"
    sent = it.raw(head + b"content-type: application/grpc\r\ncontent-length: 8\r\n\r\n\0\0\0\0\3one")
    assert sent.startswith(b"HTTP/1.1 200") and b"\0\0\0\0\3one" in sent
    (act,) = it.service.acts[before:]
    assert act.headers["authorization"] == TOKEN and act.headers["x-sidecar-decision-id"] == last(it)["decision_id"]
    assert json.loads(last(it)["request"]["context"])["door"]["protocol"] == "HTTP/1.1"
    assert it.outcome(last(it)["decision_id"])["status"] == "executed"


def echo(it: Gateway, *parts: bytes) -> list[bytes]:
    """A gRPC call of the agent, over HTTP/2."""
    options = [("grpc.default_authority", "api.example.com"), ("grpc.enable_retries", 0)]
    with grpc.insecure_channel(f"127.0.0.1:{it.port}", options) as channel:
        return list(channel.stream_stream("/echo.Echo/Back")(iter(parts), timeout=30))


def test_grpc_over_http2(it: Gateway) -> None:
    assert echo(it, b"one", b"two") == [b"one", b"two"]
    assert it.service.acts[-1].headers["authorization"] == TOKEN
    decision = last(it)
    assert json.loads(decision["request"]["context"])["door"] == {
        "kind": "envoy",
        "protocol": "HTTP/2",
        "route": "grpc",
    }
    assert it.outcome(decision["decision_id"])["status"] == "executed"
    for parts in ((b"fail",), (b"one", b"fail")):  # the status is among the headers, and among the trailers
        with pytest.raises(grpc.RpcError) as caught:
            echo(it, *parts)
        assert caught.value.code() == grpc.StatusCode.INTERNAL
        outcome = it.outcome(last(it)["decision_id"])
        assert (outcome["status"], outcome["downstream_status"]) == ("failed", "200 grpc-status 13")


def test_a_denied_grpc_call(it: Gateway) -> None:
    """What is no gRPC route is asked with its body; what is denied comes back as a gRPC status."""
    before = len(it.service.acts)
    options = [("grpc.default_authority", "api.example.com"), ("grpc.enable_retries", 0)]
    with grpc.insecure_channel(f"127.0.0.1:{it.port}", options) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/denied.Service/Call")(b"x", timeout=30)
    assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED and '"effect":"DENY"' in caught.value.details()
    assert len(it.service.acts) == before


def test_a_websocket(it: Gateway) -> None:
    with socket.create_connection(("127.0.0.1", it.port), 30) as connection:
        connection.sendall(
            b"GET /stream/socket HTTP/1.1\r\nhost: api.example.com\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
        )
        assert connection.recv(4_096).startswith(b"HTTP/1.1 101")
        connection.sendall(b"hello")
        assert connection.recv(4_096) == b"hello"
    assert json.loads(last(it)["request"]["context"])["door"]["upgrade"] == "websocket"
    assert it.outcome(last(it)["decision_id"])["downstream_status"].startswith(("101", "unknown 101"))


def test_a_credential_that_is_replaced_is_used_without_a_restart(it: Gateway) -> None:
    """As kubelet replaces what is in a mounted Secret."""
    text = (SHIPPED / "credential.yaml").read_bytes()
    mount(it.place / "etc", {"credential.yaml": text.replace(b"the-service's-token", b"the-next-one")})

    def used() -> bool:
        assert it.ask("GET", "/open/a").status == 200
        return it.service.acts[-1].headers["authorization"] == "Bearer the-next-one"

    it.until(used)
    assert b"the-next-one" not in json.dumps(it.entries(), default=str).encode()


def test_an_agent_cannot_report_in_the_gateways_place(it: Gateway) -> None:
    it.ask("GET", "/open/a")
    decision = last(it)
    it.outcome(decision["decision_id"])
    key = AgentKey.from_file(sign_key(it.place, AGENT))
    with Guard(f"unix:{it.place}/s.sock", agent=AGENT, key=key) as guard, pytest.raises(SidecarError):
        guard.report(decision["decision_id"], Status.EXECUTED)
    assert len([o for o in it.of("OUTCOME") if o["decision_id"] == decision["decision_id"]]) == 1


def test_at_the_end_one_ledger_holds_it_all(it: Gateway) -> None:
    done = sidecar("verify", it.ledger, "--json")
    told = json.loads(done.stdout)
    assert told["verdict"] == "UNANCHORED", told["findings"]
    assert told["decisions"]["vouched"] == len(it.of("DECISION"))
    lines = sidecar("timeline", it.ledger, "--agent", AGENT).stdout
    assert "via envoy" in lines and f"named by the gateway {GATEWAY}" in lines
