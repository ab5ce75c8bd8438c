"""A policy directory that is followed while the sidecar serves: shown, refused when it is bad, compared afterwards."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from sidecar.client import Denied, Guard
from tests.needs import needs_program
from tests.program import Serving, made, serving, sidecar

RULES = """package agents

default decision := {{"effect": "DENY", "reasons": [{{"code": "not_granted", "message": "no rule allows this"}}]}}

decision := {{"effect": "ALLOW", "reasons": [{{"code": "{code}", "message": "it may be read"}}]}} if {{
	input.action == "{action}"
}}
"""
TESTS = """package agents_test

import data.agents

test_allowed if agents.decision.effect == "ALLOW" with input as {{"action": "{action}"}}

test_denied if agents.decision.effect == "DENY" with input as {{"action": "x"}}
"""
EXPECTATIONS = """expectations:
  - name: reading
    input: {{agent: {{id: a}}, action: {action}, resource: {{type: t, id: i}}, time: 2026-11-23T12:00:00Z}}
    expect: {{effect: ALLOW, reasons: [{code}]}}
"""
PERIOD = {"SIDECAR_POLICY_SOURCE_PERIOD": "0.1"}
PATIENCE = 120.0  # seconds; a guard against waiting forever, not a measure of speed


def write(directory: Path, *, action: str = "crm.read", code: str = "reader") -> Path:
    """A policy that allows one action."""
    directory.mkdir(exist_ok=True)
    for name, text in (("p.rego", RULES), ("p_test.rego", TESTS), ("expectations.yaml", EXPECTATIONS)):
        (directory / name).write_text(text.format(action=action, code=code))
    return directory


def ask(guard: Guard, action: str) -> tuple[str, str]:
    """Effect and first reason."""
    decision = guard.ask(action, ("customer", "c-1"))
    return decision.effect.value, decision.reasons[0].code


def until(server: Serving, action: str, wanted: tuple[str, str]) -> None:
    """Ask until it is answered so."""
    deadline = time.monotonic() + PATIENCE
    with server.guard() as guard:
        while ask(guard, action) != wanted:
            assert time.monotonic() < deadline, f"never became {wanted}"
            time.sleep(0.02)  # between two looks


def shown(ledger: Path) -> dict[str, Any]:
    done = sidecar("policy", "show", ledger, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("engine", ["wasm", "opa"])
def test_a_directory_is_followed(tmp_path: Path, engine: str) -> None:
    needs_program("opa")
    ledger, key = made(tmp_path)
    policy = write(tmp_path / "policy")
    with serving(ledger, "--policy", policy, "--engine", engine, **PERIOD) as server:
        until(server, "crm.read", ("ALLOW", "reader"))
        write(policy, action="crm.write", code="writer")
        until(server, "crm.write", ("ALLOW", "writer"))
        until(server, "crm.read", ("DENY", "not_granted"))
        (policy / "p.rego").write_text("package agents\n\nbroken :=")
        deadline = time.monotonic() + PATIENCE
        while [e["event"] for e in shown(ledger)["history"]].count("refused") == 0:
            assert time.monotonic() < deadline
        until(server, "crm.write", ("ALLOW", "writer"))
        assert server.stop() == 0
    found = shown(ledger)
    first, second, *refused = found["history"]
    assert (first["event"], second["event"], {e["event"] for e in refused}) == ("activated", "activated", {"refused"})
    assert found["active"]["seq"] == second["seq"] and second["from"]["revision"] == first["revision"]
    assert second["revision"].startswith("sha256:") and second["source"] == {"kind": "directory", "place": str(policy)}
    finding = next(f for step in refused[-1]["gate"] for f in step["findings"])
    assert (finding["file"], finding["line"]) == ("p.rego", 3)
    text = sidecar("policy", "show", ledger).stdout
    assert text.startswith(f"in force {second['revision']}\n") and "refused  " in text and "p.rego:3" in text
    assert sidecar("verify", ledger, "--custodian-key", key).stdout.startswith("UNANCHORED\n")


def test_the_last_good_policy_is_resumed_and_a_bad_one_at_first_is_an_error(tmp_path: Path) -> None:
    needs_program("opa")
    ledger, _ = made(tmp_path)
    policy = write(tmp_path / "policy")
    (policy / "expectations.yaml").unlink()
    done = sidecar("serve", "--data-dir", ledger, "--dev", "--policy", policy)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and "expectations" in done.stderr
    write(policy)
    with serving(ledger, "--policy", policy, **PERIOD) as server:
        assert server.stop() == 0
    (policy / "p.rego").write_text("broken")
    with serving(ledger, "--policy", policy, **PERIOD) as server:
        until(server, "crm.read", ("ALLOW", "reader"))
        assert server.stop() == 0
    assert [e["event"] for e in shown(ledger)["history"]][:3] == ["refused", "activated", "resumed"]


def test_diff_lists_what_comes_out_otherwise(tmp_path: Path) -> None:
    needs_program("opa")
    ledger, _ = made(tmp_path)
    policy = write(tmp_path / "policy")
    with serving(ledger, "--policy", policy) as server, server.guard() as guard:
        for action in ("crm.read", "crm.write", "crm.delete", "crm.read"):
            ask(guard, action)
        assert server.stop() == 0
    other = write(tmp_path / "other", action="crm.write", code="writer")
    active = shown(ledger)["active"]
    for name in (active["revision"][:20], active["bundle_digest"][:8]):
        done = sidecar("policy", "diff", name, other, "--ledger", ledger, "--json")
        assert done.returncode == 1, done.stderr
        found = json.loads(done.stdout)
        assert (found["compared"], found["differ"]) == (4, 3)
        assert [(d["action"], d["before"]["effect"], d["after"]["effect"]) for d in found["decisions"]] == [
            ("crm.read", "ALLOW", "DENY"), ("crm.write", "DENY", "ALLOW"), ("crm.read", "ALLOW", "DENY"),
        ]  # fmt: skip
    same = sidecar("policy", "diff", policy, active["revision"], "--ledger", ledger)
    assert (same.returncode, same.stdout) == (0, "4 decisions and alternatives compared; otherwise: 0\n")
    text = sidecar("policy", "diff", policy, other, "--ledger", ledger, "--engine", "opa", "--agent", "billing-agent")
    assert text.returncode == 1 and "  after  ALLOW: it may be read (writer)" in text.stdout
    assert sidecar("policy", "diff", "0" * 40, other, "--ledger", ledger).returncode == 1


def test_shadow_lets_go_on_only_whom_it_is_agreed_with(tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    with serving(ledger, SIDECAR_ENFORCEMENT="shadow") as server:
        with Guard(server.address, agent="stranger", shadow=True, timeout=20.0) as willing:
            with willing.guarded("crm.read", ("customer", "c-1")) as permit:
                ran = True
            assert ran and permit.decision.effect == "DENY" and not permit.decision.enforced
        with Guard(server.address, agent="stranger", timeout=20.0) as strict, pytest.raises(Denied):
            strict.check("crm.read", ("customer", "c-1"))
        asked = (
            "--server",
            server.address,
            "--agent",
            "stranger",
            "--action",
            "crm.read",
            "--resource",
            "customer:c-1",
        )
        assert "DENY  crm.read  (not enforced: shadow)" in sidecar("decide", "--server", server.address, *asked).stdout
        assert server.stop() == 0
    lines = [json.loads(line)["payload"] for line in sidecar("show", ledger, "--json").stdout.splitlines()]
    decisions = [p for p in lines if p["type"] == "DECISION"]
    assert {(p["effect"], p["enforced"]) for p in decisions} == {("DENY", False)}
    assert [p["status"] for p in lines if p["type"] == "OUTCOME"] == ["executed"]
    assert "DENY (not enforced: shadow)" in sidecar("show", ledger).stdout
    with (
        serving(ledger) as enforcing,
        Guard(enforcing.address, agent="stranger", shadow=True, timeout=20.0) as guard,
        pytest.raises(Denied),
    ):
        guard.check("crm.read", ("customer", "c-1"))
