"""The door for Envoy as its gateway sees it, over gRPC: who is believed, what is refused, which outcomes are taken."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc.aio
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from sidecar.api import Health, Metrics, Server, ServerTls, Transports, peer_of
from sidecar.enforce.envoy import ACCESS_LOG, AUTHORIZATION, EnvoyDoor, EnvoySettings
from sidecar.enforce.envoy.headers import INSTEAD
from sidecar.enforce.envoy.v3 import access_log_pb2 as logs
from sidecar.enforce.envoy.v3 import ext_authz_pb2 as pb
from sidecar.errors import CallerUnproved, EngineUnavailable, UsageError
from sidecar.identity import Transport
from tests.api.running import Running, running
from tests.api.tls_files import NAME, Files, server_certificate
from tests.authorities import Authority
from tests.decide.engines import ALLOW, ScriptedEngine
from tests.identity.agents import BILLING, GATEWAY, PAYROLL, registered

ID, EDGE = "spiffe://a/billing", "spiffe://a/edge"
PEOPLE = (
    BILLING.entry(spiffe_ids=[{"id": ID}]),
    PAYROLL.entry("executor"),
    GATEWAY.entry("executor", spiffe_ids=[{"id": EDGE}]),
)
SETTINGS = EnvoySettings(GATEWAY.id, "socket", BILLING.id, ("x-hint",))
BY_SPIFFE = EnvoySettings(GATEWAY.id, "socket")


@dataclass(frozen=True, slots=True)
class Asking:
    """A gateway's stubs, and the sidecar behind."""

    run: Running
    channel: grpc.aio.Channel

    async def check(self, message: pb.CheckRequest | bytes) -> pb.CheckResponse:
        raw = message if isinstance(message, bytes) else message.SerializeToString()
        call = self.channel.unary_unary(f"/{AUTHORIZATION}/Check", response_deserializer=pb.CheckResponse.FromString)
        answered: pb.CheckResponse = await call(raw)
        return answered

    async def log(self, *entries: logs.HTTPAccessLogEntry) -> None:
        call = self.channel.stream_unary(f"/{ACCESS_LOG}/StreamAccessLogs")
        of = logs.StreamAccessLogsMessage.HTTPAccessLogEntries
        await call(
            iter([logs.StreamAccessLogsMessage(http_logs=of(log_entry=[e])).SerializeToString() for e in entries])
        )

    def of(self, kind: str) -> list[dict[str, Any]]:
        at, ledger = self.run.ledger.position().next_seq, self.run.ledger
        return [p for seq in range(at) if (p := ledger.payload(seq))["type"] == kind]


@contextlib.asynccontextmanager
async def asking(
    place: Path,
    settings: EnvoySettings = SETTINGS,
    script: Callable[[dict[str, Any]], object] = lambda _: ALLOW,
    tls: ServerTls | None = None,
    credentials: grpc.ChannelCredentials | None = None,
    metrics: Metrics | None = None,
    transport: Callable[[Any], Transport] | None = None,
) -> AsyncIterator[Asking]:
    async with running(place, ScriptedEngine(script), development=False, registry=registered(*PEOPLE)) as run:
        transports = Transports(tls.bundles) if tls else Transports()
        door = EnvoyDoor(run.path, run.ledger, settings, transport or transports.of, peer_of, metrics)
        where = "127.0.0.1:0" if tls else f"unix:{place}/door.sock"
        server = Server(
            door.handlers(), (AUTHORIZATION, ACCESS_LOG), where, Health(),
            max_request_bytes=1 << 20, socket_mode=0o600, credentials=tls.credentials if tls else None,
        )  # fmt: skip
        address = await server.start()
        options = [("grpc.ssl_target_name_override", NAME), ("grpc.enable_retries", 0)]
        opened = (
            grpc.aio.secure_channel(address, credentials, options)
            if credentials
            else grpc.aio.insecure_channel(address)
        )
        try:
            async with opened as channel:
                yield Asking(run, channel)
        finally:
            await server.stop(1.0)


def request(
    *headers: tuple[str, bytes],
    principal: str = "",
    certificate: str = "",
    route: dict[str, str] | None = None,
    **http: Any,
) -> pb.CheckRequest:
    said: dict[str, Any] = {
        "method": "GET", "path": "/a", "host": "api.example.com", "scheme": "https", "protocol": "HTTP/1.1",
        "header_map": pb.HeaderMap(
            headers=[pb.HeaderValue(key=k, raw_value=v) for k, v in ((":path", b"/a"), *headers)]
        ),
    }  # fmt: skip
    context = pb.AttributeContext
    return pb.CheckRequest(
        attributes=context(
            source=context.Peer(principal=principal, certificate=certificate),
            request=context.Request(http=context.HttpRequest(**said | http)),
            context_extensions=route or {},
        )
    )


def told(answer: pb.CheckResponse) -> tuple[int, str]:
    return answer.denied_response.status.code, json.loads(answer.denied_response.body)["error"]


def entry(decision_id: str, code: int = 200, **common: Any) -> logs.HTTPAccessLogEntry:
    """What Envoy logs of an allowed request."""
    found = logs.HTTPAccessLogEntry()
    found.common_properties.metadata.filter_metadata["envoy.filters.http.ext_authz"].update(
        {"decision_id": decision_id, "done": "ALLOW"}
    )
    found.common_properties.start_time.GetCurrentTime()
    found.common_properties.time_to_first_upstream_tx_byte.FromMilliseconds(2)
    found.common_properties.duration.FromMilliseconds(5)
    found.common_properties.MergeFrom(logs.AccessLogCommon(**common))
    found.response.response_code.value = code
    found.response.response_code_details = "via_upstream"
    return found


def go(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


def test_an_agent_by_its_spiffe_id(tmp_path: Path) -> None:
    shown = Authority("agents").issue(ID)
    leaf = quote(shown.leaf.decode())

    async def main() -> None:
        async with asking(tmp_path, BY_SPIFFE) as door:
            assert (await door.check(request(principal=ID, certificate=leaf))).HasField("ok_response")
            agent = door.of("DECISION")[-1]["agent"]
            assert (agent["id"], agent["spiffe_id"]) == (BILLING.id, ID)
            assert agent["certificate"] == sha256(shown.certificate.public_bytes(Encoding.DER)).hexdigest()
            for principal, certificate in (
                ("", ""),
                ("CN=billing", ""),
                ("spiffe://a/other", ""),
                (EDGE, leaf),
                (ID, "x"),
            ):
                before = len(door.of("REJECTED"))
                assert told(await door.check(request(principal=principal, certificate=certificate))) == (403, "refused")
                refused = door.of("REJECTED")[before:]
                assert [(r["call"], r["code"]) for r in refused] == [("Check", "UNAUTHENTICATED")]
            assert len(door.of("DECISION")) == 1

    go(main)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (EnvoySettings("nobody", "socket", BILLING.id), "gateway"),
        (EnvoySettings(BILLING.id, "socket", BILLING.id), "gateway"),
        (EnvoySettings(GATEWAY.id, "mtls", BILLING.id), "gateway"),
        (EnvoySettings(GATEWAY.id, "socket", "nobody"), "agent"),
        (EnvoySettings(GATEWAY.id, "socket", PAYROLL.id), "agent"),
    ],
)
def test_nobody_is_believed_who_is_not_registered(tmp_path: Path, settings: EnvoySettings, why: str) -> None:
    async def main() -> None:
        async with asking(tmp_path, settings) as door:
            assert told(await door.check(request())) == (403, "refused")
            assert door.of("REJECTED")[-1]["cause"].startswith(why) and not door.of("DECISION")

    go(main)


BAD = {
    "not a message": b"\xff\xff",
    "joined headers": request(headers={"a": "b"}),
    "no headers": request(header_map=pb.HeaderMap()),
    "a body as text": request(body="{}"),
    "an unknown name": request(route={"acton": "pay"}),
    "another word for a body": request(route={"body": "ignored"}),
    "another scheme": request(scheme="ftp"),
    "an executor that is none": request(route={"executor": BILLING.id}),
    "HTTP/2, and nothing is known of a body": request(method="POST", protocol="HTTP/2"),
    "its own word of its body": request(("x-envoy-auth-partial-body", b"false"), method="POST", protocol="HTTP/2"),
    "shorter than it says": request(("content-length", b"5"), method="POST", raw_body=b"{}"),
    "a judged header with a space before it": request(("x-hint", b" 1")),
    "a judged header with a tab after it": request(("x-hint", b"1\t")),
    "a port with a zero before it": request(host="api.example.com:080"),
    **{
        f"{name}, which is not judged": request((name, b"/b")) for name in (*sorted(INSTEAD), "X-Rewrite-URL", "x_host")
    },
    "two words of the body": request(
        ("x-envoy-auth-partial-body", b"false"), ("x-envoy-auth-partial-body", b"true"), method="POST", raw_body=b"{}"
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_refused_and_recorded(tmp_path: Path, name: str) -> None:
    async def main() -> None:
        async with asking(tmp_path) as door:
            status, error = told(await door.check(BAD[name]))
            assert error == "refused" and status in (400, 413)
            assert len(door.of("REJECTED")) == 1 and not door.of("DECISION")

    go(main)


def test_what_may_be_read_in_the_place_of_the_method_is_judged_where_the_operator_says_so(tmp_path: Path) -> None:
    async def main() -> None:
        settings = EnvoySettings(GATEWAY.id, "socket", BILLING.id, ("x-http-method-override",))
        async with asking(tmp_path, settings) as door:
            assert (await door.check(request(("x-http-method-override", b"DELETE")))).HasField("ok_response")
            asked = json.loads(door.of("DECISION")[-1]["request"]["arguments"])
            assert asked["headers"] == {"x-http-method-override": "DELETE"}

    go(main)


def test_what_is_refused_is_counted(tmp_path: Path) -> None:
    metrics = Metrics("test")

    async def main() -> None:
        async with asking(tmp_path, metrics=metrics) as door:
            await door.check(BAD["joined headers"])
            await door.check(request(path="/a/%2e%2e/b"))
            await door.log(entry("01a215bf-c499-72f2-9743-a50661e5ee21"))

    go(main)
    page = metrics.page().decode()
    assert 'sidecar_errors_total{code="INVALID_ARGUMENT",method="Check"} 2.0' in page
    assert 'sidecar_errors_total{code="NOT_FOUND",method="StreamAccessLogs"} 1.0' in page
    assert 'sidecar_outcomes_refused_total{why="unknown"} 1.0' in page


def test_no_decision_is_no_permission(tmp_path: Path) -> None:
    def fails(_: Any) -> object:
        raise EngineUnavailable("down")

    async def main() -> None:
        async with asking(tmp_path, script=fails) as door:
            assert told(await door.check(request())) == (503, "undecided")
            door.run.ledger.close()
            assert told(await door.check(request())) == (503, "undecided")

    go(main)


def test_an_executor_behind_the_gateway(tmp_path: Path) -> None:
    """It is given the permit, and the access log says nothing in its place."""

    async def main() -> None:
        async with asking(tmp_path) as door:
            answer = await door.check(request(route={"executor": PAYROLL.id, "action": "pay", "route": "payments"}))
            headers = {h.header.key: h.header.value for h in answer.ok_response.headers}
            decision = door.of("DECISION")[-1]
            assert headers.keys() == {"x-sidecar-decision-id", "x-sidecar-permit"}
            assert decision["request"]["action"] == "pay" and decision["executor"]["id"] == PAYROLL.id
            assert json.loads(decision["request"]["context"])["door"]["route"] == "payments"
            await door.log(entry(decision["decision_id"]))
            assert not door.of("OUTCOME") and not door.of("REJECTED")
            answer = await door.check(request())
            assert "x-sidecar-permit" in answer.ok_response.headers_to_remove

    go(main)


def test_one_outcome_and_no_other(tmp_path: Path) -> None:
    async def main() -> None:
        async with asking(tmp_path) as door:
            answer = await door.check(request())
            decision_id = answer.dynamic_metadata.fields["decision_id"].string_value
            said = entry(decision_id)
            await door.log(entry(decision_id, intermediate_log_entry=True), said, said)
            assert [o["status"] for o in door.of("OUTCOME")] == ["executed"] and not door.of("REJECTED")
            await door.log(entry(decision_id, 500), entry("01a215bf-c499-72f2-9743-a50661e5ee21"), said)
            assert len(door.of("OUTCOME")) == 1
            refused = [(r["call"], r["code"]) for r in door.of("REJECTED")]
            assert sorted(refused) == [("ReportOutcome", "FAILED_PRECONDITION"), ("ReportOutcome", "NOT_FOUND")]

    go(main)


def test_a_log_was_proved_when_it_began(tmp_path: Path) -> None:
    """Its certificate may end; another log, or a question, is not believed then."""
    proofs = [Transport("one"), Transport("two"), Transport("the log")]

    def transport(_: Any) -> Transport:
        if not proofs:
            raise CallerUnproved("certificate: has ended", "certificate")
        return proofs.pop()

    async def main() -> None:
        async with asking(tmp_path, transport=transport) as door:
            answers = [await door.check(request()) for _ in range(2)]
            ids = [each.dynamic_metadata.fields["decision_id"].string_value for each in answers]
            await door.log(*map(entry, ids))
            assert [each["decision_id"] for each in door.of("OUTCOME")] == ids
            assert told(await door.check(request()))[1] == "refused"
            await door.log(entry(ids[0], 500))
            assert [each["code"] for each in door.of("REJECTED")] == ["UNAUTHENTICATED"] * 2

    go(main)


@pytest.mark.parametrize(
    ("change", "status", "downstream"),
    [
        (lambda e: None, "executed", "200"),
        (lambda e: setattr(e.response.response_code, "value", 404), "failed", "404"),
        (lambda e: e.response.response_trailers.update({"grpc-status": "13"}), "failed", "200 grpc-status 13"),
        (lambda e: e.response.response_trailers.update({"grpc-status": "0"}), "executed", "200"),
        (
            lambda e: setattr(e.common_properties.response_flags, "upstream_remote_reset", True),
            "failed",
            "unknown 200 upstream_remote_reset via_upstream",
        ),
        (lambda e: setattr(e.response, "response_code_details", "local"), "failed", "unknown 200 local"),
        (lambda e: e.common_properties.ClearField("time_to_first_upstream_tx_byte"), "blocked", "not sent 200"),
        (
            lambda e: setattr(e.request, "request_body_bytes", 9),
            "failed",
            "unknown 200: more was sent than was judged",
        ),
    ],
)
def test_what_the_log_says(tmp_path: Path, change: Callable[[Any], object], status: str, downstream: str) -> None:
    async def main() -> None:
        async with asking(tmp_path) as door:
            answer = await door.check(request())
            said = entry(answer.dynamic_metadata.fields["decision_id"].string_value)
            change(said)
            await door.log(said)
            (outcome,) = door.of("OUTCOME")
            assert (outcome["status"], outcome["downstream_status"]) == (status, downstream)

    go(main)


def test_a_denied_request_has_no_outcome(tmp_path: Path) -> None:
    deny = {"effect": "DENY", "reasons": [{"code": "no", "message": "no"}]}

    async def main() -> None:
        async with asking(tmp_path, script=lambda _: deny) as door:
            answer = await door.check(request())
            said = logs.HTTPAccessLogEntry()
            said.common_properties.metadata.filter_metadata["envoy.filters.http.ext_authz"].CopyFrom(
                answer.dynamic_metadata
            )
            await door.log(said, logs.HTTPAccessLogEntry())
            assert not door.of("OUTCOME") and not door.of("REJECTED")

    go(main)


@pytest.mark.parametrize(("shown", "believed"), [(EDGE, True), (ID, False), ("spiffe://a/other", False)])
def test_a_gateway_by_its_certificate(tmp_path: Path, shown: str, believed: bool) -> None:
    authority = Authority("a")
    tls = Files(tmp_path).write(server_certificate(authority), authority).server()
    mine = authority.issue(shown)

    async def main() -> None:
        settings = EnvoySettings(GATEWAY.id, "mtls", BILLING.id)
        credentials = grpc.ssl_channel_credentials(authority.pem, mine.key_pem, mine.chain)
        async with asking(tmp_path, settings, tls=tls, credentials=credentials) as door:
            answer = await door.check(request())
            assert answer.HasField("ok_response") is believed
            if believed:
                assert door.of("DECISION")[-1]["agent"]["gateway_proof"] == "mtls"
            else:
                assert told(answer) == (403, "refused") and not door.of("DECISION")

    try:
        go(main)
    finally:
        tls.close()


@pytest.mark.parametrize(
    "name", ["authorization", "cookie", "x-api-key", "x-auth-token", "X-Hint", "a b", "x-sidecar-x"]
)
def test_headers_that_no_ledger_keeps(name: str) -> None:
    with pytest.raises(UsageError, match=r"doors\.envoy\.headers"):
        EnvoySettings("edge", "socket", headers=(name,))
