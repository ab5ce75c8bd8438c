"""The decision path down, slow, hung, killed in the middle: nothing reaches the service behind Envoy."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.enforce.gateway import AGENT, SHIPPED, Gateway, gateway
from tests.enforce.upstream import HOST
from tests.program import sidecar


@pytest.fixture(scope="module")
def it() -> Iterator[Gateway]:
    with tempfile.TemporaryDirectory() as place, gateway(Path(place), patient=False) as running:
        recovered(running)
        yield running


def recovered(it: Gateway) -> None:
    it.until(lambda: it.ask("GET", "/open/a").status == 200)


def test_the_engine_hangs(it: Gateway) -> None:
    before = len(it.service.acts)
    with it.stopped("opa"):
        answered = it.ask("GET", "/open/a")
    told = answered.json()
    assert (answered.status, told["error"]) == (503, "undecided") and len(it.service.acts) == before
    decision = next(d for d in it.of("DECISION") if d["decision_id"] == told["decision_id"])
    assert (decision["effect"], decision["cause"]) == ("DENY", "engine_timeout")
    recovered(it)


def test_the_engine_is_down(it: Gateway) -> None:
    it.kill("opa")
    before = len(it.service.acts)
    answered = it.ask("GET", "/open/a")
    assert (answered.status, answered.json()["error"]) == (503, "undecided") and len(it.service.acts) == before
    it.start_opa()
    recovered(it)


def test_the_sidecar_hangs(it: Gateway) -> None:
    before = len(it.service.acts)
    with it.stopped("sidecar"):
        assert it.ask("GET", "/open/hung").status == 503
    assert len(it.service.acts) == before
    recovered(it)
    assert "/open/hung" not in it.service.paths()  # nor later, when the sidecar came to answer


def test_the_sidecar_is_killed_in_the_middle_of_a_call(it: Gateway) -> None:
    before, found = len(it.service.acts), list[Any]()
    asking = threading.Thread(target=lambda: found.append(it.ask("GET", "/open/killed")))
    with it.stopped("sidecar"):
        sent = it.questions()
        asking.start()
        it.until(lambda: it.questions() > sent)
        it.signal("sidecar", signal.SIGKILL)
    asking.join(60)
    it.processes["sidecar"].wait(60)
    assert found[0].status == 503 and len(it.service.acts) == before
    assert it.ask("GET", "/open/down").status == 503 and len(it.service.acts) == before  # down, as it is now
    it.start_sidecar()
    recovered(it)
    assert {"/open/killed", "/open/down"}.isdisjoint(it.service.paths())


def test_a_stream_outlives_the_sidecar_and_its_outcome_finds_the_next(it: Gateway) -> None:
    it.service.gate.clear()
    connection = http.client.HTTPConnection("127.0.0.1", it.port, timeout=60)
    connection.request("GET", "/stream/events", headers={"host": HOST})
    response = connection.getresponse()
    assert response.read(11) == b"data: one\n\n"
    (decision,) = (d for d in it.of("DECISION") if "/stream/events" in d["request"]["resource"]["id"])
    it.kill("sidecar")
    it.start_sidecar()
    recovered(it)
    it.service.gate.set()
    assert response.read() == b"data: two\n\n"
    connection.close()
    outcome = it.outcome(decision["decision_id"])
    assert (outcome["status"], outcome["downstream_status"]) == ("executed", "200")
    it.service.gate.clear()


def test_an_allow_of_which_envoy_could_not_tell_is_missing(it: Gateway) -> None:
    """And never made up. Envoy is killed while the service is still at it; nobody else may say what became of it."""
    with socket.create_connection(("127.0.0.1", it.port), 30) as connection:
        connection.sendall(b"GET /open/wait HTTP/1.1\r\nhost: api.example.com\r\n\r\n")
        it.until(lambda: "/open/wait" in it.service.paths())
        it.kill("envoy")
        assert connection.recv(4_096) == b""
    it.service.gate.set()
    waiting = next(d for d in it.of("DECISION") if "/open/wait" in d["request"]["resource"]["id"])
    done = sidecar("show", it.ledger, "--outcomes", "--json")
    missing = [f for line in done.stdout.splitlines() if (f := json.loads(line))["finding"] == "allow without outcome"]
    assert waiting["decision_id"] in {each["decision_id"] for each in missing}
    told = sidecar("timeline", it.ledger, "--agent", AGENT).stdout
    assert "allowed, and no outcome is recorded" in " ".join(told.split())


def test_afterwards_the_ledger_verifies(it: Gateway) -> None:
    told = json.loads(sidecar("verify", it.ledger, "--json").stdout)
    assert told["verdict"] == "UNANCHORED", told["findings"]


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from nodes(inner)


def test_no_shipped_configuration_fails_open() -> None:
    files = sorted(SHIPPED.glob("*.yaml"))
    assert files
    filters = [n for f in files for n in nodes(yaml.safe_load(f.read_text())) if "ExtAuthz" in str(n.get("@type", ""))]
    asking = [n for n in filters if n["@type"].endswith(".ExtAuthz")]
    assert asking and all(n["failure_mode_allow"] is False for n in asking)
    assert all(n["encode_raw_headers"] and n["with_request_body"]["pack_as_bytes"] for n in asking)
    assert all("disabled" not in n for n in filters)
    text = "".join(f.read_text() for f in files)
    assert "failure_mode_allow: true" not in text and "filter_enabled" not in text and "retry_policy" not in text
