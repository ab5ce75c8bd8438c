"""Traces of the real program: from the agent's span through the sidecar to OPA, to a real OTLP receiver."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import TracerProvider

from sidecar.config import Config
from sidecar.errors import UsageError
from tests.cli.test_observing import SECRET, asked, scrape
from tests.needs import needs_program
from tests.program import Serving, made, serving, sidecar

PATIENCE = 60.0
SERVER = "sidecar.v1.DecisionService/Decide"
STEPS = ["authenticate", "evaluate", "commit"]
QUICK = {"OTEL_BSP_SCHEDULE_DELAY": "50"}


@dataclass
class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    """An OTLP receiver. ``refuse``: its answer to everything; ``hangs``: it never answers."""

    port: int = 0
    refuse: bool = False
    hangs: bool = False
    spans: list[tuple[str, Span]] = field(default_factory=list)  # with the service's name
    raw: bytes = b""
    _changed: threading.Condition = field(default_factory=threading.Condition)
    end: threading.Event = field(default_factory=threading.Event)

    def Export(self, request: Any, context: Any) -> Any:
        with self._changed:
            for each in request.resource_spans:
                names = {a.key: a.value.string_value for a in each.resource.attributes}
                self.spans += [(names["service.name"], s) for scope in each.scope_spans for s in scope.spans]
            self.raw += request.SerializeToString()
            self._changed.notify_all()
        if self.hangs:
            self.end.wait(PATIENCE)
        if self.refuse:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no")
        return otlp.ExportTraceServiceResponse()

    def until(self, enough: Callable[[list[tuple[str, Span]]], bool]) -> list[tuple[str, Span]]:
        with self._changed:
            assert self._changed.wait_for(lambda: enough(self.spans), PATIENCE), [(n, s.name) for n, s in self.spans]
            return list(self.spans)


@contextlib.contextmanager
def receiving(**how: bool) -> Iterator[Receiver]:
    receiver = Receiver(**how)
    server = grpc.server(futures.ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(receiver, server)
    receiver.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield receiver
    finally:
        receiver.end.set()
        server.stop(None).wait()


def traced(receiver: Receiver) -> dict[str, str]:
    return {"SIDECAR_OTEL_ENDPOINT": f"http://127.0.0.1:{receiver.port}", "SIDECAR_LOG_LEVEL": "debug", **QUICK}


def attributes(span: Span) -> dict[str, Any]:
    return {a.key: a.value.string_value or a.value.int_value for a in span.attributes}


def log_of(server: Serving) -> list[dict[str, Any]]:
    """What it logged after it was ready, once it ended."""
    assert server.process.stderr is not None
    server.process.terminate()
    return [json.loads(line) for line in server.process.stderr.read().splitlines()]


def test_from_the_agents_span_to_opas(tmp_path: Path) -> None:
    """One trace: agent, sidecar with its three steps, and OPA's own span under the step that asked it."""
    needs_program("opa")
    ledger, _ = made(tmp_path)
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("agent")
    with receiving() as receiver:
        tracing = {"type": "grpc", "address": f"127.0.0.1:{receiver.port}", "sample_percentage": 100}
        with (
            opa_serving(tmp_path, {"distributed_tracing": tracing}) as address,
            serving(ledger, "--metrics", ":0", "--engine", "opa", "--opa", address, **traced(receiver)) as server,
            server.guard() as guard,
        ):
            with tracer.start_as_current_span("agent's work") as span:
                decision = guard.ask("crm.read", ("customer", "c-1"))
                own_key = guard.ask("crm.read", ("customer", "c-1"), idempotency_key="mine")
                here = span.get_span_context()
            assert own_key.effect == decision.effect
            mine = here.trace_id.to_bytes(16, "big")

            def whole(spans: list[tuple[str, Span]]) -> bool:
                ours = [name for name, s in spans if s.trace_id == mine]
                return ours.count("decision-sidecar") >= 8 and ours.count("opa") >= 2

            spans = receiver.until(whole)
            assert scrape(server)["sidecar_spans_total", "made"] >= 8
            lines = log_of(server)
        ours = [s for name, s in spans if s.trace_id == mine and name == "decision-sidecar"]
        roots = {attributes(s)["sidecar.decision_id"]: s for s in ours if s.name == SERVER}
        assert set(roots) == {decision.decision_id, own_key.decision_id}
        for root in roots.values():
            assert root.parent_span_id == here.span_id.to_bytes(8, "big")
            steps = sorted((s for s in ours if s.parent_span_id == root.span_id), key=lambda s: s.start_time_unix_nano)
            assert [s.name for s in steps] == STEPS
            assert all(root.start_time_unix_nano <= s.start_time_unix_nano <= s.end_time_unix_nano for s in steps)
            evaluate = steps[1].span_id
            assert any(s.parent_span_id == evaluate for name, s in spans if name == "opa")
        told = attributes(roots[decision.decision_id])
        assert told["sidecar.effect"] == decision.effect.value and told["sidecar.cause"] == "policy"
        assert told["sidecar.policy.revision"] == decision.policy.revision == "r1"
        assert told["sidecar.seq"] > 0 and len(told["sidecar.chain"]) == 64
        decided = {line["decision_id"]: line for line in lines if line["message"] == "decided"}
        assert decided[decision.decision_id]["trace_id"] == f"{here.trace_id:032x}"
    recorded = [json.loads(line)["payload"] for line in sidecar("show", ledger, "--json").stdout.splitlines()]
    parents = {p["decision_id"]: p["request"]["trace_parent"] for p in recorded if p["type"] == "DECISION"}
    assert parents[decision.decision_id].startswith(f"00-{here.trace_id:032x}-{here.span_id:016x}-")
    assert parents[own_key.decision_id] == ""  # the caller's key stands for the same bytes, under whatever span


@contextlib.contextmanager
def opa_serving(place: Path, settings: dict[str, Any]) -> Iterator[str]:
    """A real OPA with the starter policy as a bundle of revision r1."""
    policy = Path(__file__).parent.parent.parent / "rego"
    bundle = place / "bundle.tar.gz"
    ignored = ("--ignore", "*_test.rego", "--ignore", "*.yaml", "--ignore", "*.md")
    subprocess.run(["opa", "build", "-b", policy, "--revision", "r1", *ignored, "-o", bundle], check=True)
    config = place / "opa.yaml"
    config.write_text(json.dumps(settings))
    at = place / "opa.sock"
    command = ["opa", "run", "--server", "--disable-telemetry", "--log-level", "error", "--addr", f"unix://{at}"]
    with subprocess.Popen([*command, "--config-file", config, "--bundle", bundle]) as process:
        try:
            deadline = time.monotonic() + PATIENCE
            while not at.exists():
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.02)
            yield f"unix:{at}"
        finally:
            process.kill()


def test_no_word_of_a_caller_or_policy_is_in_a_span(tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    with (
        receiving() as receiver,
        serving(ledger, **traced(receiver)) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        ask = channel.unary_unary("/sidecar.v1.DecisionService/Decide")
        odd = (("traceparent", SECRET), ("tracestate", f"a={SECRET}"), ("baggage", f"b={SECRET}"))
        for message in (asked("allow"), asked("allow", agent=f"\n{SECRET}"), asked("allow", arguments=SECRET.encode())):
            with contextlib.suppress(grpc.RpcError):
                ask(message.SerializeToString(), timeout=60, metadata=odd)
        spans = receiver.until(lambda spans: [s.name for _, s in spans].count(SERVER) == 3)
        failed = [attributes(s)["rpc.grpc.status"] for _, s in spans if s.name == SERVER and s.status.code == 2]
        assert failed == ["INVALID_ARGUMENT", "INVALID_ARGUMENT"]
        assert SECRET.encode() not in receiver.raw
        assert SECRET not in json.dumps(log_of(server))


def test_a_receiver_that_hangs_refuses_or_is_gone_costs_no_decision(tmp_path: Path) -> None:
    """More is asked than its queue holds, each answered, and the end comes in time."""
    ledger, _ = made(tmp_path)
    small = {"OTEL_BSP_MAX_QUEUE_SIZE": "8", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4"}
    with socket.socket() as nobody, receiving(hangs=True) as hung, receiving(refuse=True) as refusing:
        nobody.bind(("127.0.0.1", 0))  # taken, and nobody listens
        for port in (hung.port, refusing.port, nobody.getsockname()[1]):
            more = {**small, **QUICK, "SIDECAR_OTEL_ENDPOINT": f"http://127.0.0.1:{port}"}
            with serving(ledger, "--metrics", ":0", **more) as server, server.guard() as guard:
                for number in range(20):
                    guard.check("crm.read", ("customer", f"c-{number}"))
                if port == hung.port:
                    hung.until(lambda spans: len(spans) > 0)
                now = scrape(server)
                assert now["sidecar_spans_total", "made"] == 80 and now["sidecar_spans_total", "exported"] == 0
                if port == refusing.port:
                    deadline = time.monotonic() + PATIENCE
                    while scrape(server)["sidecar_spans_total", "failed"] == 0:
                        assert time.monotonic() < deadline
                assert now["sidecar_decisions_total", "policy", "ALLOW"] == 20
                assert server.stop() == 0


def test_untraced_nothing_of_it_is_imported(tmp_path: Path) -> None:
    code = "import sys, sidecar.main, sidecar.client; print([n for n in sys.modules if n.startswith('opentelemetry')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_the_extra_it_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "opentelemetry").mkdir()
    (tmp_path / "opentelemetry" / "__init__.py").write_text("raise ImportError\n")
    ledger, _ = made(tmp_path)
    more = {"SIDECAR_OTEL_ENDPOINT": "http://127.0.0.1:4317", "PYTHONPATH": str(tmp_path)}
    done = sidecar("serve", "--data-dir", ledger, "--dev", **more)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "pip install 'decision-sidecar[otel]'" in done.stderr


@pytest.mark.parametrize("text", ["127.0.0.1:4317", "ftp://h:1", "http://h", "http://"])
def test_an_endpoint_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"otel\.endpoint"):
        Config(data_dir="d", otel_endpoint=text)


def test_a_span_that_is_not_recorded_has_no_parent_to_give() -> None:
    from sidecar.client import trace_parent

    assert trace_parent() == ""
    with trace.use_span(trace.INVALID_SPAN):
        assert trace_parent() == ""
