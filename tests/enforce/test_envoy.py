"""A real Envoy with the shipped configuration: what reaches the service behind it, and what the ledger says of that."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.enforce.gateway import AGENT, GATEWAY, TOKEN, Gateway, gateway


@pytest.fixture(scope="module")
def it() -> Iterator[Gateway]:
    with tempfile.TemporaryDirectory() as place, gateway(Path(place)) as running:
        yield running


def test_allow(it: Gateway) -> None:
    answered = it.ask("GET", "/open/a?x=1&x=2")
    assert (answered.status, answered.body) == (200, b"done\n")
    act = it.service.acts[-1]
    assert act.path == "/open/a?x=1&x=2" and act.headers["authorization"] == TOKEN
    decision = it.of("DECISION")[-1]
    assert act.headers["x-sidecar-decision-id"] == decision["decision_id"]
    outcome = it.outcome(decision["decision_id"])
    assert (outcome["status"], outcome["downstream_status"]) == ("executed", "200")
    assert outcome["by"]["id"] == GATEWAY and decision["agent"]["id"] == AGENT
    print(decision, outcome)


def test_deny(it: Gateway) -> None:
    before = it.service.paths()
    answered = it.ask("GET", "/closed")
    print(answered)
    assert answered.status == 403
    assert it.service.paths() == before
