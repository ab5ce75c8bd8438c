"""`sidecar serve --engine opa --policy DIR`: the program with an OPA of its own, seen by an agent and in the ledger."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sidecar.client import Decision, Guard
from tests.program import Serving, environment, made, serving, sidecar

from .processes import kill, stop

REGO = Path(__file__).parents[2] / "rego"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def ask(guard: Guard) -> Decision:
    return guard.ask("crm.read", ("customer", "acme-42"), {"fields": ["name"]})


def allowed_again(guard: Guard) -> Decision:
    until = time.monotonic() + 60
    while (decision := ask(guard)).effect != "ALLOW":
        assert time.monotonic() < until, decision
    return decision


def opa_of(server: Serving) -> int:
    found = re.search(r"serves the policy, pid (\d+)", "\n".join(server.said))
    assert found is not None, server.said
    return int(found[1])


def test_decisions_go_on_after_its_opa_was_killed(opa: str, tmp_path: Path) -> None:
    ledger, key = made(tmp_path)
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "opa").symlink_to(opa)
    path = f"{programs}{os.pathsep}/usr/bin{os.pathsep}/bin"
    flags = ("--engine", "opa", "--policy", REGO)
    with serving(ledger, *flags, PATH=path) as server, server.guard() as guard:
        first = ask(guard)
        assert (first.effect, first.policy.engine, len(first.policy.bundle_digest)) == ("ALLOW", "opa", 64)
        with grpc.insecure_channel(server.address) as channel:
            health = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=120)
            assert next(health).status == SERVING
            (programs / "opa").unlink()  # it cannot be started again yet
            kill(opa_of(server))
            denied = [ask(guard) for _ in range(5)]
            assert {(d.effect, d.reasons[0].code) for d in denied} == {("DENY", "engine_unavailable")}
            assert {d.policy.bundle_digest for d in denied} == {first.policy.bundle_digest}
            assert next(health).status == NOT_SERVING
            (programs / "opa").symlink_to(opa)
            last = allowed_again(guard)
            assert next(health).status == SERVING
        assert last.policy == first.policy
        assert server.stop() == 0
    entries = [json.loads(line) for line in sidecar("show", ledger, "--json").stdout.splitlines()]
    causes = [e["payload"]["cause"] for e in entries if e["payload"] and e["payload"].get("type") == "DECISION"]
    assert causes[:6] == ["policy", *["engine_unavailable"] * 5]
    assert causes[-1] == "policy"
    verified = sidecar("verify", ledger, "--custodian-key", key)
    assert verified.stdout.startswith("UNANCHORED\n")


def test_a_stopped_opa_denies_within_the_deadline(opa: str, tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    config = tmp_path / "sidecar.toml"
    config.write_text("evaluate_timeout = 0.2\n")
    flags = ("--config", config, "--engine", "opa", "--policy", REGO)
    with serving(ledger, *flags, PATH=path_with(opa)) as server, server.guard() as guard:
        pid = opa_of(server)
        stop(pid)
        try:
            denied = ask(guard)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert (denied.effect, denied.reasons[0].code) == ("DENY", "engine_timeout")
        allowed_again(guard)
        assert server.stop() == 0
        assert not Path("/proc", str(pid)).exists()


def path_with(opa: str) -> str:
    return f"{Path(opa).parent}{os.pathsep}{environment()['PATH']}"


def test_what_cannot_be_started_is_said_in_one_line(opa: str, tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "p.rego").write_text("package agents\n\ndecision := nobody\n")
    serve = ("serve", "--data-dir", ledger, "--dev", "--engine", "opa")
    for more, path, said in [
        ((), path_with(opa), "engine opa needs --policy, to start OPA with, or --opa, where one runs"),
        (("--policy", REGO), "/nowhere", "the program opa, which is not on PATH"),
        (("--policy", REGO, "--opa", "unix:/x"), path_with(opa), "the running OPA named by opa holds the policy"),
        (("--policy", bad), path_with(opa), "is refused: revision sha256:"),
        (("--policy", tmp_path / "absent"), path_with(opa), "cannot read policy bundle"),
    ]:
        done = sidecar(*serve, *more, PATH=path)
        assert done.returncode == 2, done.stderr
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
