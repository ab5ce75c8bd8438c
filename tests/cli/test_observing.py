"""Metrics and log of the real program: what an operator sees of it, and that no caller's word is among it."""

from __future__ import annotations

import contextlib
import json
import re
import socketserver
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import grpc
import pytest

from sidecar.client import Denied
from sidecar.config import host_and_port
from sidecar.errors import UsageError
from sidecar.v1 import decision_pb2 as pb
from sidecar.v1 import decision_pb2_grpc as grpc_stubs
from tests.api.pages import Series, series
from tests.program import Serving, made, serving, sidecar

SECRET = "s3cr3t"  # stands in every field and header a caller can write
HEADERS = (("traceparent", SECRET), ("authorization", f"Bearer {SECRET}"), (SECRET, SECRET), ("x-bin", SECRET.encode()))


class FakeOpa(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Answers as an OPA does, or badly, as the question's ``arguments.mode`` says; ``up`` is what its health says."""

    daemon_threads = True
    up = True


class _Answers(BaseHTTPRequestHandler):
    server: FakeOpa
    protocol_version = "HTTP/1.1"

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._send(200 if self.server.up else 500, b"{}")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._send(*_answer(json.loads(body)["input"]))

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


_PROVENANCE = {"provenance": {"version": "0", "bundles": {"policies": {"revision": "r1"}}}}


def _answer(asked: dict[str, Any]) -> tuple[int, bytes]:
    """Whatever the mode, the answer quotes the question."""
    mode, quoted = asked["arguments"].get("mode", "deny"), json.dumps(asked)
    reasons = [{"code": "quoted", "message": quoted[:1000]}]
    obligations = [{"kind": "note", "parameters": asked["arguments"]}]
    decision = {"effect": mode.upper(), "reasons": reasons, "obligations": obligations, "asked": asked}
    answers: dict[str, tuple[int, object]] = {
        "error": (500, {"code": "internal_error", "message": quoted, "errors": [{"code": "e", "message": quoted}]}),
        "misshaped": (200, {"result": {"effect": quoted, "reasons": quoted}, **_PROVENANCE}),
        "undefined": (200, {"warning": quoted, **_PROVENANCE}),
        "array": (200, [quoted]),
    }
    status, answer = answers.get(mode, (200, {"result": decision, **_PROVENANCE}))
    return status, quoted.encode()[:-1] if mode == "garbage" else json.dumps(answer).encode()


@contextlib.contextmanager
def fake_opa(path: Path) -> Iterator[FakeOpa]:
    with FakeOpa(str(path), _Answers) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


def url(server: Serving) -> str:
    """Where the sidecar said that its metrics are."""
    found = [match[0] for line in server.said if (match := re.search(r"http://\S+/metrics", line))]
    assert len(found) == 1, server.said
    return found[0].rstrip('"}')


def scrape(server: Serving) -> Series:
    with urllib.request.urlopen(url(server), timeout=60) as answer:
        return series(answer.read())


def until(true: Callable[[], bool]) -> None:
    """Ask again until it is so; at most a minute."""
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_served_page_moves_with_what_is_decided(tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    with serving(ledger, "--metrics", "127.0.0.1:0") as server, server.guard() as guard:
        assert url(server).startswith("http://127.0.0.1:")
        before = scrape(server)
        assert before["sidecar_ready",] == 1.0
        assert before["sidecar_decisions_total", "policy", "ALLOW"] == 0.0
        guard.check("crm.read", ("customer", "acme-42"))
        with pytest.raises(Denied):
            guard.check("deploy.rollout", ("service", "payments"))
        after = scrape(server)
        assert after["sidecar_decisions_total", "policy", "ALLOW"] == 1.0
        assert after["sidecar_decisions_total", "policy", "DENY"] == 1.0
        assert after["sidecar_ledger_entries_total",] == before["sidecar_ledger_entries_total",] + 2
        assert after["sidecar_commit_seconds_count",] > before["sidecar_commit_seconds_count",]
        assert any(name == "sidecar_build_info" and "wasm" in labels for name, *labels in after)
        assert server.stop() == 0


def test_without_the_flag_nothing_is_served(tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    with serving(ledger) as server:
        assert not [line for line in server.said if "metrics" in line]
        listening = Path(f"/proc/{server.process.pid}/net/tcp").read_text().splitlines()
        inodes = {line.split()[9] for line in listening[1:] if line.split()[3] == "0A"}
        own = {str(fd.readlink()) for fd in Path(f"/proc/{server.process.pid}/fd").iterdir()}
        assert not {f"socket:[{inode}]" for inode in inodes} & own


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (":9464", ("127.0.0.1", 9464)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        ("localhost:65535", ("localhost", 65535)),
        ("[::1]:9464", ("::1", 9464)),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, parts: tuple[str, int]) -> None:
    assert host_and_port("metrics", text) == parts


@pytest.mark.parametrize("text", ["9464", "h", "h:65536", "::1:9464", "unix:/tmp/x", "[::1:1", "[]:1", "a:b", "h:1\n"])
def test_an_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="metrics"):
        host_and_port("metrics", text)


def test_a_wrong_address_is_one_line(tmp_path: Path) -> None:
    done = sidecar("serve", "--data-dir", tmp_path, "--metrics", "9464")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "metrics" in done.stderr


def test_readiness_follows_the_engine(tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    with (
        fake_opa(tmp_path / "opa.sock") as opa,
        serving(ledger, "--metrics", ":0", "--engine", "opa", "--opa", f"unix:{tmp_path}/opa.sock") as server,
    ):
        for up in (False, True):
            opa.up = up
            until(lambda up=up: scrape(server)["sidecar_ready",] == float(up))  # type: ignore[misc]


def asked(mode: str, **changes: Any) -> pb.DecideRequest:
    """A question with the secret in each field a caller can write."""
    fields: dict[str, Any] = {
        "agent": f"agent-{SECRET}",
        "action": f"action.{SECRET}",
        "resource": pb.Resource(type=f"type-{SECRET}", id=f"id-{SECRET}"),
        "arguments": json.dumps({"mode": mode, SECRET: SECRET}).encode(),
        "context": json.dumps({SECRET: SECRET}).encode(),
        "purpose": f"because {SECRET}",
        "alternatives": [
            pb.Alternative(action=f"other.{SECRET}", resource=pb.Resource(type=f"t-{SECRET}", id=f"i-{SECRET}"))
        ],
        **changes,
    }
    return pb.DecideRequest(**fields)


def malformed() -> list[bytes]:
    """Requests that are refused, each for another field, all with the secret where it hurts."""
    bad: list[dict[str, Any]] = [
        {"agent": f"\n{SECRET}"},
        {"agent": SECRET * 300},
        {"action": f"\x00{SECRET}"},
        {"resource": pb.Resource(type=SECRET * 300, id="x")},
        {"resource": pb.Resource(type="x", id=SECRET * 300)},
        {"arguments": f'{{"{SECRET}": 1, "{SECRET}": 2}}'.encode()},
        {"arguments": f'{{"{SECRET}": NaN}}'.encode()},
        {"context": f'"{SECRET}"'.encode()},
        {"context": b'{"' + SECRET.encode() + b'": "\xff"}'},
        {"purpose": SECRET * 300},
        {"trace_parent": SECRET},
        {"idempotency_key": SECRET * 30},
        {"last_receipt": SECRET.encode()},
        {"arguments": json.dumps({"blob": SECRET * 200_000}).encode()},
    ]
    whole = asked("allow").SerializeToString()
    broken = whole.replace(f"id-{SECRET}".encode(), b"id\xff" + SECRET.encode())
    return [*(asked("allow", **changes).SerializeToString() for changes in bad), broken, SECRET.encode()]


def test_no_word_of_a_caller_is_in_the_log(tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    flags = ["--metrics", "127.0.0.1:0", "--engine", "opa", "--opa", f"unix:{tmp_path}/opa.sock"]
    with (
        fake_opa(tmp_path / "opa.sock"),
        serving(ledger, *flags, SIDECAR_LOG_LEVEL="debug") as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        ids = _everything_that_can_be_asked(channel)
        with urllib.request.urlopen(url(server), timeout=60) as page:
            assert SECRET not in page.read().decode()
        assert server.process.stderr is not None
        server.process.terminate()
        written = server.process.stderr.read()
    whole = "\n".join([*server.said, written])
    assert SECRET not in whole
    lines = [json.loads(line) for line in written.splitlines()]
    decided = {line["decision_id"]: line for line in lines if line["message"] == "decided"}
    assert list(decided) == ids
    assert [line["cause"] for line in decided.values()][:2] == ["policy", "policy"]
    assert all(line["level"] == "debug" and line["duration_ms"] > 0 and line["seq"] > 0 for line in decided.values())
    told = {line["message"] for line in lines if line["level"] == "warning"}
    assert told >= {"denied for want of a policy decision", "refused", "answered with an error"}
    assert sum(line["count"] for line in lines if line["message"] == "refused") == len(malformed()) + 1


def _everything_that_can_be_asked(channel: grpc.Channel) -> list[str]:
    """The ids of what was decided, in their order."""
    decisions = grpc_stubs.DecisionServiceStub(channel)
    ids = []
    for mode in ("allow", "deny", "error", "misshaped", "undefined", "array", "garbage"):
        answer = decisions.Decide(asked(mode, idempotency_key=f"{mode}-{SECRET}"), timeout=60, metadata=HEADERS)
        assert (answer.effect == pb.EFFECT_ALLOW) == (mode == "allow")
        ids.append(answer.decision_id)
    report = pb.ReportOutcomeRequest(
        agent=f"agent-{SECRET}",
        decision_id=ids[0],
        status=pb.OUTCOME_STATUS_EXECUTED,
        response=f'"{SECRET}"'.encode(),
    )
    decisions.ReportOutcome(report, timeout=60, metadata=HEADERS)
    raw = channel.unary_unary("/sidecar.v1.DecisionService/Decide")
    for message in malformed():
        with pytest.raises(grpc.RpcError):
            raw(message, timeout=60, metadata=HEADERS)
    with pytest.raises(grpc.RpcError):
        decisions.ReportOutcome(pb.ReportOutcomeRequest(agent=SECRET, decision_id=SECRET), timeout=60)
    with pytest.raises(grpc.RpcError):
        channel.unary_unary(f"/sidecar.v1.DecisionService/{SECRET}")(b"", timeout=60, metadata=HEADERS)
    return ids
