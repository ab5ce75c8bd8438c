"""The door for AuthZEN as its PEP sees it: who is believed, what is refused and with which status, what is left out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from sidecar.api import Metrics, Transports, peer_of
from sidecar.client import FileSource
from sidecar.config import Config
from sidecar.decide import DecisionPath
from sidecar.doors import authzen_of
from sidecar.enforce.authzen import AuthZenDoor, AuthZenSettings
from sidecar.enforce.authzen.asked import MOST
from sidecar.enforce.authzen.http import served
from sidecar.enforce.authzen.tls import http_half, listening
from sidecar.errors import EngineUnavailable, UsageError
from sidecar.identity import Transport
from tests.api.running import Running, judged, running
from tests.api.tls_files import NAME, Files, handshake, server_certificate
from tests.authorities import Authority
from tests.decide.engines import ALLOW, ScriptedEngine
from tests.enforce.pep import ACTIVE, EVALUATION, EVALUATIONS, asking
from tests.identity.agents import BILLING, GATEWAY, PAYROLL, registered
from tests.program import made, sidecar

EDGE = "spiffe://a/edge"
PEOPLE = (
    BILLING.entry(),
    PAYROLL.entry("executor"),
    GATEWAY.entry("executor", spiffe_ids=[{"id": EDGE}]),
)
SETTINGS = AuthZenSettings(GATEWAY.id, "socket", BILLING.id, max_bytes=20_000)
GOOD = asking("alice", "read", ACTIVE)
DENY = {"effect": "DENY", "reasons": [{"code": "no", "message": "no"}]}
JSON = ("content-type", "application/json")


@dataclass(frozen=True, slots=True)
class Answered:
    status: int
    headers: dict[str, str]
    body: Any


@dataclass(frozen=True, slots=True)
class Asking:
    """A PEP at a unix socket, and the sidecar behind."""

    run: Running
    place: Path
    engine: ScriptedEngine

    async def raw(self, data: bytes, *, eof: bool = False) -> bytes:
        """What comes back until the connection is closed."""
        reader, writer = await asyncio.open_unix_connection(str(self.place / "door.sock"))
        try:
            writer.write(data)
            if eof:
                writer.write_eof()
            return await reader.read()
        finally:
            writer.close()

    async def send(self, method: str, path: str, body: bytes = b"", *headers: tuple[str, str]) -> Answered:
        given = [("host", "a"), ("connection", "close"), ("content-length", str(len(body))), *headers]
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given), "", ""]
        return answered(await self.raw("\r\n".join(lines).encode() + body))

    async def post(self, asked: object, path: str = EVALUATION, *headers: tuple[str, str]) -> Answered:
        body = asked if isinstance(asked, bytes) else json.dumps(asked).encode()
        return await self.send("POST", path, body, JSON, *headers)

    def of(self, kind: str) -> list[dict[str, Any]]:
        at, ledger = self.run.ledger.position().next_seq, self.run.ledger
        return [p for seq in range(at) if (p := ledger.payload(seq))["type"] == kind]


def answered(data: bytes) -> Answered:
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return Answered(int(first.split()[1]), headers, json.loads(body) if b"json" in head else body)


@contextlib.asynccontextmanager
async def asking_at(
    place: Path,
    settings: AuthZenSettings = SETTINGS,
    script: Callable[[dict[str, Any]], object] = lambda _: ALLOW,
    metrics: Metrics | None = None,
    transport: Callable[[Any], Transport] | None = None,
    engine: ScriptedEngine | None = None,
    **more: Any,
) -> AsyncIterator[Asking]:
    engine = engine or ScriptedEngine(script)
    async with running(place, engine, development=False, registry=registered(*PEOPLE)) as run:
        door = AuthZenDoor(run.path, settings, transport or Transports().of, peer_of, metrics)
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(place / "door.sock"))
            async with served(door, bound, None, **more):
                yield Asking(run, place, engine)


def go(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


def without(name: str, member: str = "") -> dict[str, Any]:
    """A good evaluation that lacks an entity, or a member of one."""
    if not member:
        return {key: value for key, value in GOOD.items() if key != name}
    return {**GOOD, name: {key: value for key, value in GOOD[name].items() if key != member}}


BROKEN: dict[str, object] = {
    **{f"no {name}": without(name) for name in ("subject", "action", "resource")},
    **{
        f"no {name}.{member}": without(name, member)
        for name, member in (
            ("subject", "type"),
            ("subject", "id"),
            ("action", "name"),
            ("resource", "type"),
            ("resource", "id"),
        )
    },
    "a subject that is text": {**GOOD, "subject": "alice"},
    "an action by number": {**GOOD, "action": {"name": 123}},
    "an empty id": {**GOOD, "subject": {"type": "user", "id": ""}},
    "an empty resource": {**GOOD, "resource": {"type": "record", "id": ""}},
    "properties that are none": {**GOOD, "subject": {"type": "user", "id": "a", "properties": None}},
    "a context that is none": {**GOOD, "context": []},
    "a name too long": {**GOOD, "action": {"name": "a" * 257}},
    "a control character": {**GOOD, "action": {"name": "a\n"}},
    "empty": b"",
    "no JSON": b"{",
    "no object": b"[]",
    "a key twice": b'{"subject":{"type":"user","id":"mallory"},' + json.dumps(GOOD).encode()[1:],
    "a key twice, within": json.dumps(GOOD).encode().replace(b'"id": "alice"', b'"id": "mallory", "id": "alice"'),
    "a number beyond": json.dumps({**GOOD, "context": {"n": 2**60}}).encode(),
    "a lone surrogate": json.dumps({**GOOD, "context": {"n": "\ud800"}}).encode(),
    "no UTF-8": b'{"a":"\xff"}',
    "too deep": b'{"a":' * 100 + b"1" + b"}" * 100,
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_evaluation_is_refused_and_recorded(tmp_path: Path, name: str) -> None:
    async def main() -> None:
        async with asking_at(tmp_path) as door:
            told = await door.post(BROKEN[name], EVALUATION, ("x-request-id", "7"))
            assert (told.status, told.body["error"], told.headers["x-request-id"]) == (400, "refused", "7")
            assert "decision" not in told.body and not door.engine.seen
            (refused,) = door.of("REJECTED")
            assert (refused["call"], refused["code"]) == ("Evaluation", "INVALID_ARGUMENT")

    go(main)


WHOLE = {
    "no array": {**GOOD, "evaluations": {}},
    "another semantic": {**GOOD, "evaluations": [{}], "options": {"evaluations_semantic": "all"}},
    "options that are none": {**GOOD, "evaluations": [{}], "options": 1},
    "a default that is none": {**GOOD, "action": "read", "evaluations": [{}]},
    "too many": {**GOOD, "evaluations": [{}] * (MOST + 1)},
    "no evaluation at all": {},
}


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_refused_as_a_whole(tmp_path: Path, name: str) -> None:
    async def main() -> None:
        async with asking_at(tmp_path) as door:
            assert (await door.post(WHOLE[name], EVALUATIONS)).status == 400
            assert not door.engine.seen and door.of("REJECTED")[0]["call"] == "Evaluations"

    go(main)


def test_what_is_no_call(tmp_path: Path) -> None:
    """By status; what was meant as a call is recorded, everything is counted, nothing is true."""
    body, metrics = json.dumps(GOOD).encode(), Metrics("test")
    large = json.dumps({**GOOD, "context": {"a": "x" * 20_000}}).encode()
    cases: list[tuple[int, str, str, bytes, list[tuple[str, str]]]] = [
        (404, "POST", "/", body, [JSON]),
        (404, "POST", EVALUATION + "/", body, [JSON]),
        (404, "POST", EVALUATION + "?a=1", body, [JSON]),
        (404, "POST", "/access/v1/%65valuation", body, [JSON]),
        (404, "GET", "/.well-known/authzen-configuration", b"", []),  # no URL was named
        (405, "GET", EVALUATION, b"", []),
        (405, "PUT", EVALUATIONS, body, [JSON]),
        (501, "POST", "/access/v1/search/subject", body, [JSON]),
        (501, "POST", "/access/v1/search/resource", body, [JSON]),
        (501, "POST", "/access/v1/search/action", body, [JSON]),
        (400, "POST", EVALUATION, body, []),
        (400, "POST", EVALUATION, body, [("content-type", "text/plain")]),
        (400, "POST", EVALUATION, body, [("content-type", "application/json; charset=utf-16")]),
        (400, "POST", EVALUATION, body, [JSON, ("x-request-id", "1"), ("x-request-id", "2")]),
        (400, "POST", EVALUATION, body, [JSON, ("x-request-id", "a" * 257)]),
        (400, "POST", EVALUATION, body, [JSON, ("x-sidecar-approval-of", "1"), ("x-sidecar-approval-of", "2")]),
        (400, "POST", EVALUATIONS, b'{"evaluations":[{}]}', [JSON, ("x-sidecar-approval-of", "1")]),
        (413, "POST", EVALUATION, large, [JSON]),
        (415, "POST", EVALUATION, body, [JSON, ("content-encoding", "gzip")]),
        (403, "POST", EVALUATION, body, [JSON, ("x-sidecar-approval-of", "01a215bf-c499-72f2-9743-a50661e5ee21")]),
    ]

    async def main() -> None:
        async with asking_at(tmp_path, metrics=metrics) as door:
            for status, method, path, sent, headers in cases:
                told = await door.send(method, path, sent, *headers)
                assert told.status == status, (method, path, headers, told)
                assert told.body["message"] and "decision" not in told.body
                assert told.headers["content-type"].startswith("application/json")
            assert (await door.send("GET", EVALUATION)).headers["allow"] == "POST"
            assert not door.engine.seen and not door.of("DECISION")
            assert len(door.of("REJECTED")) == 8

    go(main)
    page = metrics.page().decode()
    assert 'sidecar_errors_total{code="INVALID_ARGUMENT",method="Evaluation"} 6.0' in page
    assert 'sidecar_errors_total{code="UNIMPLEMENTED",method="AuthZen"} 6.0' in page
    assert 'sidecar_errors_total{code="NOT_FOUND",method="AuthZen"} 5.0' in page


def test_bytes_that_are_no_message(tmp_path: Path) -> None:
    """Smuggling, endless heads, bodies cut off or without an end: an error or nothing; the next one is answered."""
    body = json.dumps(GOOD).encode()
    head = f"POST {EVALUATION} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/json\r\n".encode()
    bad = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"POST\r\n\r\n",
        head + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        head + b"content-length: 5\r\ncontent-length: 6\r\n\r\n" + body,
        head + b"content-type: text/plain\r\ncontent-length: 0\r\n\r\n",
        head + b"transfer-encoding: chunked\r\n\r\nzz\r\n" + body,
        head + b"x: " + b"a" * 9_000 + b"\r\n\r\n",
        head + b"x: a\r\n" * 70 + b"content-length: 0\r\n\r\n",
        head + b"transfer-encoding: chunked\r\n\r\n" + b"4e20\r\n" + b"x" * 20_000 + b"\r\n1\r\nx\r\n0\r\n\r\n",
        head + f"content-length: {len(body) + 1}\r\n\r\n".encode() + body,
    ]

    async def main() -> None:
        async with asking_at(tmp_path) as door:
            for each in bad:
                told = await door.raw(each, eof=True)
                assert not told or answered(told).status in (400, 413), (each, told)
            assert not door.engine.seen
            chunks = b"".join(b"1\r\n" + body[i : i + 1] + b"\r\n" for i in range(len(body)))
            told = await door.raw(head + b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
            assert answered(told).body["decision"] is True

    go(main)


def test_one_connection_too_many_is_dropped(tmp_path: Path) -> None:
    async def main() -> None:
        async with asking_at(tmp_path, most=1) as door:
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "door.sock"))
            writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 404")
            writer.close()
            kept, held = await asyncio.open_unix_connection(str(tmp_path / "door.sock"))
            held.write(b"POST")
            with contextlib.suppress(ConnectionError):
                assert await door.raw(b"GET / HTTP/1.1\r\n\r\n") == b""
            held.close()
            await kept.read()

    go(main)


def test_who_is_slow_is_not_waited_for(tmp_path: Path) -> None:
    """Nothing, half a head, a head without its end, half a body, and nothing more after an answer."""
    head = f"POST {EVALUATION} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n".encode()

    async def main() -> None:
        async with asking_at(tmp_path, patience=0.3) as door:
            for each in (b"", b"POST /acc", head):
                assert await door.raw(each) == b""
            told = answered(await door.raw(head + b"content-length: 9\r\n\r\n{"))
            assert told.status == 400 and "did not come" in told.body["message"]
            body = json.dumps(GOOD).encode()
            told = answered(await door.raw(head + f"content-length: {len(body)}\r\n\r\n".encode() + body))
            assert told.body["decision"] is True and len(door.of("DECISION")) == 1

    go(main)


def test_a_fault_of_our_own(tmp_path: Path) -> None:
    def fails(_: Any) -> Transport:
        raise ZeroDivisionError("secret")

    metrics = Metrics("test")

    async def main() -> None:
        async with asking_at(tmp_path, metrics=metrics, transport=fails) as door:
            told = await door.post(GOOD)
            assert (told.status, told.body["error"]) == (500, "failed") and "secret" not in str(told.body)
            assert not door.engine.seen

    go(main)
    assert 'sidecar_errors_total{code="INTERNAL",method="Evaluation"} 1.0' in metrics.page().decode()


def test_evaluations_stop_where_they_should(tmp_path: Path) -> None:
    def script(document: dict[str, Any]) -> object:
        return ALLOW if document["action"] == "read" else DENY

    yes, no, broken = {"action": {"name": "read"}}, {"action": {"name": "write"}}, {"action": {}}
    cases: list[tuple[str, list[object], list[bool]]] = [
        ("execute_all", [no, yes, broken, yes], [False, True, False, True]),
        ("deny_on_first_deny", [yes, no, yes], [True, False]),
        ("deny_on_first_deny", [yes, broken, yes], [True, False]),
        ("deny_on_first_deny", [yes, 7, yes], [True, False]),
        ("permit_on_first_permit", [no, broken, yes, no], [False, False, True]),
        ("permit_on_first_permit", [no, no], [False, False]),
    ]

    async def main() -> None:
        async with asking_at(tmp_path, script=script) as door:
            for semantic, items, expected in cases:
                before = len(door.of("DECISION"))
                asked = {**without("action"), "evaluations": items, "options": {"evaluations_semantic": semantic}}
                told = await door.post(asked, EVALUATIONS)
                assert [each["decision"] for each in told.body["evaluations"]] == expected, (semantic, items)
                read = [i for i, _ in zip(items, expected, strict=False) if i in (yes, no)]
                assert len(door.of("DECISION")) - before == len(read)
            assert told.status == 200 and "decision" not in told.body

    go(main)


def test_defaults_are_bounded_once_applied(tmp_path: Path) -> None:
    asked = {**GOOD, "context": {"a": "x" * 9_000}, "evaluations": [{}, {}, {}]}

    async def main() -> None:
        async with asking_at(tmp_path) as door:
            assert (await door.post(asked, EVALUATIONS)).status == 413
            assert not door.engine.seen

    go(main)


def test_obligations_are_said(tmp_path: Path) -> None:
    duty = {"kind": "mask", "parameters": {"fields": ["iban"]}}

    async def main() -> None:
        async with asking_at(tmp_path, script=lambda _: {**ALLOW, "obligations": [duty]}) as door:
            told = await door.post(GOOD)
            assert told.body["decision"] is True and told.body["context"]["obligations"] == [duty]
            assert "only if every obligation is met" in told.body["context"]["message"]

    go(main)


def test_a_decision_alone(tmp_path: Path) -> None:
    """Nothing else is told; and what cannot be told is not allowed, on record."""
    duty = {"kind": "mask", "parameters": {"fields": ["iban"]}}
    answers_to = {"read": ALLOW, "mask": {**ALLOW, "obligations": [duty]}, "write": DENY}
    settings = replace(SETTINGS, context=False)

    async def main() -> None:
        async with asking_at(tmp_path, settings, script=lambda asked: answers_to[asked["action"]]) as door:
            items = [{"action": {"name": name}} for name in answers_to]
            told = await door.post({**without("action"), "evaluations": [*items, {}]}, EVALUATIONS)
            assert told.body["evaluations"][:3] == [{"decision": True}, {"decision": False}, {"decision": False}]
            assert told.body["evaluations"][3]["context"]["error"]["status"] == 400
            for name, expected in (("read", True), ("mask", False), ("write", False)):
                assert (await door.post(asking("alice", name, ACTIVE))).body == {"decision": expected}
            outcomes = door.of("OUTCOME")
            assert [(each["status"], each["by"]["proof"]) for each in outcomes] == [("blocked", "gateway")] * 2

    go(main)


@pytest.mark.parametrize(
    ("settings", "status", "code"),
    [
        (AuthZenSettings("nobody", "socket", BILLING.id), 401, "UNAUTHENTICATED"),
        (AuthZenSettings(BILLING.id, "socket", BILLING.id), 401, "UNAUTHENTICATED"),
        (AuthZenSettings(GATEWAY.id, "mtls", BILLING.id), 401, "UNAUTHENTICATED"),
        (AuthZenSettings(GATEWAY.id, "socket", "nobody"), 403, "UNAUTHENTICATED"),
        (AuthZenSettings(GATEWAY.id, "socket", PAYROLL.id), 403, "PERMISSION_DENIED"),
    ],
)
def test_nobody_is_believed_who_is_not_registered(
    tmp_path: Path, settings: AuthZenSettings, status: int, code: str
) -> None:
    async def main() -> None:
        async with asking_at(tmp_path, settings) as door:
            for path in (EVALUATION, EVALUATIONS):
                assert (await door.post({**GOOD, "evaluations": [{}]}, path)).status == status
                assert door.of("REJECTED")[-1]["code"] == code
            assert not door.engine.seen

    go(main)


def test_where_the_subject_is_the_agent(tmp_path: Path) -> None:
    def of(kind: str, identity: str) -> dict[str, Any]:
        return {**GOOD, "subject": {"type": kind, "id": identity}}

    async def main() -> None:
        async with asking_at(tmp_path, AuthZenSettings(GATEWAY.id, "socket")) as door:
            assert (await door.post(of("agent", BILLING.id))).body["decision"] is True
            assert door.of("DECISION")[-1]["agent"]["id"] == BILLING.id
            assert (await door.post(of("user", BILLING.id))).status == 400
            assert (await door.post(of("agent", "alice"))).status == 403
            assert (await door.post(of("agent", PAYROLL.id))).status == 403
            batch = {**GOOD, "evaluations": [{"subject": of("agent", n)["subject"]} for n in ("alice", BILLING.id)]}
            told = (await door.post(batch, EVALUATIONS)).body["evaluations"]
            assert [each["decision"] for each in told] == [False, True]
            assert told[0]["context"]["error"]["status"] == 403

    go(main)


def test_no_decision_is_no_permission(tmp_path: Path) -> None:
    def fails(_: Any) -> object:
        raise EngineUnavailable("down")

    def strange(_: Any) -> object:
        raise ZeroDivisionError

    async def main(script: Callable[[Any], object]) -> None:
        async with asking_at(tmp_path, script=script) as door:
            told = await door.post(GOOD)
            assert told.status == 503 and "decision" not in told.body
            told = await door.post({**GOOD, "evaluations": [{}]}, EVALUATIONS)
            assert [each["decision"] for each in told.body["evaluations"]] == [False]
            door.run.ledger.close()
            assert (await door.post(GOOD)).status == 503
            told = await door.post({**GOOD, "evaluations": [{}]}, EVALUATIONS)
            assert told.status == 503 or not any(each["decision"] for each in told.body["evaluations"])
        (tmp_path / "door.sock").unlink()

    asyncio.run(main(fails))
    asyncio.run(main(strange))
    assert judged(tmp_path / "ledger").verdict.name == "UNANCHORED"


def test_only_the_door_says_that_it_is_one(tmp_path: Path) -> None:
    """What a PEP calls its context stays in the arguments, whatever it says."""

    async def main() -> None:
        async with asking_at(tmp_path) as door:
            await door.post({**GOOD, "context": {"door": {"kind": "envoy"}}})
            request = door.of("DECISION")[-1]["request"]
            assert json.loads(request["context"])["door"]["kind"] == "authzen"
            assert json.loads(request["arguments"])["context"] == {"door": {"kind": "envoy"}}

    go(main)


async def over_tls(
    path: DecisionPath, source: FileSource[Any], use: Callable[[int], Coroutine[Any, Any, None]]
) -> None:
    settings = AuthZenSettings(GATEWAY.id, "mtls", BILLING.id)
    door = AuthZenDoor(path, settings, Transports(lambda: source.current().bundles).of, peer_of)
    with socket.create_server(("127.0.0.1", 0)) as bound:
        async with served(door, bound, listening(source)):
            await use(bound.getsockname()[1])


def test_certificates_that_change_and_one_under_another_ca(tmp_path: Path) -> None:
    """New files are shown from the next handshake on; a PEP's certificate may be an intermediate CA's."""
    first, second = Authority("a"), Authority("b")
    files = Files(tmp_path).write(server_certificate(first), first)
    source = FileSource(files.paths, http_half, files.said.append)
    body = json.dumps(GOOD).encode()

    async def ask(port: int, root: Authority, issuer: Authority) -> int:
        mine = issuer.issue(EDGE)
        (tmp_path / "mine.pem").write_bytes(mine.chain + mine.key_pem)
        context = ssl.create_default_context(cadata=root.pem.decode())
        context.load_cert_chain(tmp_path / "mine.pem")
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=NAME)
        try:
            head = f"POST {EVALUATION} HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}\r\nconnection: close\r\n"
            writer.write(f"{head}content-type: application/json\r\n\r\n".encode() + body)
            told = await reader.read()
            return answered(told).status if told else 0
        finally:
            writer.close()

    async def use(port: int) -> None:
        assert await ask(port, first, first) == 200
        assert await ask(port, first, Authority("between", under=first)) == 200
        files.write(shown := server_certificate(second), second)
        probe = second.issue(EDGE)
        seen, _ = await asyncio.to_thread(handshake, f"127.0.0.1:{port}", tmp_path, probe)
        assert ssl.DER_cert_to_PEM_cert(seen).encode() == shown.leaf
        assert await ask(port, second, second) == 200
        with contextlib.suppress(OSError):  # refused in the handshake, or at once after it
            assert await ask(port, second, first) == 0
        assert not files.said

    async def main() -> None:
        async with running(
            tmp_path, ScriptedEngine(lambda _: ALLOW), development=False, registry=registered(*PEOPLE)
        ) as run:
            await over_tls(run.path, source, use)

    go(main)


FILES = {f"doors_authzen_tls_{name}_file": f"/{name}" for name in ("cert", "key", "client_ca")}
PORT = {"doors_authzen_gateway": "edge", "doors_authzen_listen": "127.0.0.1:7000"}


def test_what_is_set_is_had(tmp_path: Path) -> None:
    def of(**settings: Any) -> AuthZenSettings | None:
        return authzen_of(Config(data_dir=str(tmp_path / "ledger"), **settings))

    assert of() is None
    assert of(doors_authzen_gateway="edge") == AuthZenSettings("edge", "socket")
    more = {"doors_authzen_agent": "a", "doors_authzen_url": "https://pdp.example.com", "max_request_bytes": 2_000}
    assert of(**PORT, **FILES, **more, doors_authzen_context=False) == AuthZenSettings(
        "edge", "mtls", "a", "https://pdp.example.com", 2_000, False
    )
    workload = {"doors_authzen_spiffe_socket": "/run/spire/agent.sock"}
    assert of(**PORT, **workload) == AuthZenSettings("edge", "mtls")
    for settings, said in (
        ({**PORT, **FILES, **workload}, "is a port"),
        ({"doors_authzen_gateway": "edge", **workload}, "not on a unix socket"),
        ({"doors_authzen_agent": "a"}, r"doors\.authzen\.gateway is not"),
        (PORT, "is a port"),
        ({**PORT, "doors_authzen_tls_cert_file": "/c"}, "is a port"),
        ({"doors_authzen_gateway": "edge", **FILES}, "not on a unix socket"),
        ({"doors_authzen_gateway": "edge", "doors_authzen_socket_mode": "0666"}, "must shut others out"),
        ({"doors_authzen_gateway": "edge", "doors_authzen_url": "http://a"}, "must be https"),
        ({"doors_authzen_gateway": "edge", "doors_authzen_url": "https://a/b"}, "must be https"),
        ({"doors_authzen_gateway": "edge", "doors_authzen_url": "https://a?b"}, "must be https"),
    ):
        with pytest.raises(UsageError, match=said):
            of(**settings)


def test_the_program_shows_the_settings(tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    shown = sidecar("serve", "--data-dir", ledger, "--print-config", SIDECAR_DOORS_AUTHZEN_GATEWAY="edge")
    assert any("doors_authzen_gateway" in line and "edge" in line for line in shown.stdout.splitlines()), shown
    done = sidecar("serve", "--data-dir", ledger, "--dev", SIDECAR_DOORS_AUTHZEN_AGENT="a")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "doors.authzen.gateway is not" in done.stderr
