"""An agent in another language has the .proto and nothing of ours: it asks, checks its receipt, acts and reports."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.languages.building import go_example, node_example
from tests.program import made, serving, sidecar

Build = Callable[[Path], list[str]]


def run(command: list[str], address: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command, address], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("build", [go_example, node_example])
def test_the_example_asks_acts_and_reports(build: Build, tmp_path: Path) -> None:
    command = build(tmp_path)
    ledger, key = made(tmp_path)
    with serving(ledger) as server:
        done = run(command, server.address)
        assert done.returncode == 0, done.stderr
        assert server.stop() == 0
        gone = run([*command], f"unix:{tmp_path}/nobody.sock")
        assert gone.returncode != 0
        assert "ALLOW" not in gone.stdout
    said = re.fullmatch(r"ALLOW (\S+) at seq (\d+), outcome at seq (\d+)\n", done.stdout)
    assert said is not None, done.stdout
    decision, outcome = (entry(ledger, seq) for seq in said.group(2, 3))
    assert decision["decision_id"] == said[1]
    assert (decision["type"], decision["request"]["action"], decision["effect"]) == ("DECISION", "crm.read", "ALLOW")
    assert (outcome["type"], outcome["decision_id"], outcome["status"]) == ("OUTCOME", said[1], "executed")
    assert json.loads(outcome["response"]) == {"name": "Acme GmbH"}
    report = json.loads(sidecar("verify", ledger, "--custodian-key", key, "--json").stdout)
    assert report["verdict"] == "UNANCHORED", report["findings"]


@pytest.mark.parametrize("kind", ["ed25519", "p256"])
def test_the_node_example_signs(kind: str, tmp_path: Path) -> None:
    """From proto/SIGNING.md alone: a sidecar that believes signatures alone answers, and anybody can check them."""
    command = node_example(tmp_path)
    ledger, _ = made(tmp_path)
    registry = tmp_path / "registry.json"
    key = tmp_path / "agent.pem"
    assert sidecar("keys", "agent", "--type", kind, "--out", key).returncode == 0
    public = tmp_path / "agent.pub.pem"
    assert sidecar("agents", "add", "--registry", registry, "--key", public, "billing-agent").returncode == 0
    with serving(ledger, dev=False, SIDECAR_REGISTRY=str(registry)) as server:
        unsigned = run(command, server.address)
        assert unsigned.returncode != 0 and "ALLOW" not in unsigned.stdout
        done = subprocess.run([*command, server.address, str(key)], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert server.stop() == 0
    report = json.loads(sidecar("verify", ledger, "--json").stdout)
    assert (report["verdict"], report["decisions"]["signed"]) == ("UNANCHORED", 1), report["findings"]


def entry(ledger: Path, seq: str) -> dict:
    payload = json.loads(sidecar("show", ledger, "--seq", seq, "--json").stdout)["payload"]
    assert isinstance(payload, dict)
    return payload
