"""registry.json beside the policy: gated with it, in force with it, resumed with it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.test_agents import CUSTOMER, agents, key_of, until_refused, verified
from tests.cli.test_policy_in_force import PERIOD, write
from tests.needs import needs_program
from tests.program import made, serving, sidecar


def events(ledger: Path) -> list[tuple[str, str]]:
    lines = [json.loads(line)["payload"] for line in sidecar("show", ledger, "--json").stdout.splitlines()]
    return [(p["type"], p["event"]) for p in lines if p["type"] in ("REGISTRY", "POLICY")]


def test_it_comes_and_goes_with_its_policy(tmp_path: Path) -> None:
    needs_program("opa")
    ledger, auditor = made(tmp_path)
    policy, key = write(tmp_path / "policy"), key_of(tmp_path, "billing")
    absent = sidecar("serve", "--data-dir", ledger, "--policy", policy)
    assert absent.returncode == 2 and "registry: registry.json: is missing" in absent.stderr
    registry = policy / "registry.json"
    agents(registry, "add", "--key", tmp_path / "billing.pub.pem", "billing-agent")
    checked = sidecar("policy", "check", policy, "--json")
    assert json.loads(checked.stdout)["passed"], checked.stdout
    with serving(ledger, "--policy", policy, dev=False, **PERIOD) as server, server.guard(key=key) as guard:
        assert guard.ask("crm.read", CUSTOMER).effect == "ALLOW"
        agents(registry, "revoke", "billing-agent")
        assert "billing-agent is revoked" in until_refused(guard)
        assert server.stop() == 0
    both = [("REGISTRY", "activated"), ("POLICY", "activated")]
    assert events(ledger) == [("POLICY", "refused"), *both, *both]
    with serving(ledger, "--policy", policy, dev=False, **PERIOD) as server, server.guard(key=key) as guard:
        assert "billing-agent is revoked" in until_refused(guard)
        assert server.stop() == 0
    assert events(ledger)[5:] == [("REGISTRY", "resumed"), ("POLICY", "resumed")]
    assert verified(ledger, auditor)["signed"] >= 1
    registry.write_text('{"format": "sidecar/v1/registry"}')
    faulty = sidecar("policy", "check", policy)
    assert faulty.returncode == 1 and "registry.principals: is missing" in faulty.stdout + faulty.stderr
