"""AuthZEN over HTTPS with certificates: the certification's scenario, the interop decisions, and no decision at all."""

from __future__ import annotations

import http.client
import json
import ssl
import tempfile
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.client import AgentKey
from sidecar.client.permits import PermitCheck
from sidecar.client.reporter import Reporter
from tests.enforce.gateway import sign_key
from tests.enforce.pep import (
    ACTIVE,
    APP,
    BATCHES,
    EVALUATION,
    EVALUATIONS,
    FIXTURE,
    HOST,
    JERRY,
    LEAD,
    MORTY,
    PEP,
    RICK,
    TODO,
    Pep,
    asking,
    context_of,
    interop,
    pep,
    routed,
    todo,
)
from tests.program import sidecar


@pytest.fixture(scope="module")
def it() -> Iterator[Pep]:
    with tempfile.TemporaryDirectory() as place, pep(Path(place)) as running:
        yield running


@pytest.mark.parametrize("name", FIXTURE)
def test_the_certification_decides(it: Pep, name: str) -> None:
    asked, expected = FIXTURE[name]
    assert [it.decision(asked) for _ in range(2)] == [expected] * 2


@pytest.mark.parametrize("name", BATCHES)
def test_the_certification_decides_batches(it: Pep, name: str) -> None:
    asked, expected = BATCHES[name]
    assert it.decisions(asked) == expected


def test_the_interop_decisions(it: Pep) -> None:
    for who in TODO:
        for asked, expected in (*interop(who), *routed(who)):
            assert it.decision(asked) is expected, asked
    for who, expected in ((RICK, [True, True]), (MORTY, [False, True]), (JERRY, [False, False])):
        batch = {
            **asking(who.pid, "can_update_todo", {}),
            "context": {},
            "evaluations": [{"resource": todo(RICK, 2)}, {"resource": todo(who, 3)}],
        }
        assert it.decisions(batch) == expected


def test_what_an_answer_says(it: Pep) -> None:
    """And what the ledger holds of the question: all of it."""
    asked = asking("alice", "read", {**ACTIVE, "properties": {"n": 1.5}}, context={"ip": "192.0.2.1"})
    answered = it.post(EVALUATION, asked, X_Request_ID="bfe9eb29-ab87 4ca3")
    assert answered.headers["x-request-id"] == "bfe9eb29-ab87 4ca3"
    assert answered.headers["content-type"].startswith("application/json")
    context = answered.json()["context"]
    assert context["reasons"] == [{"code": "granted", "message": "a rule grants it"}]
    assert context["policy"]["revision"] == "r1" and "obligations" not in context
    decision = next(d for d in it.of("DECISION") if d["decision_id"] == context["decision_id"])
    request = decision["request"]
    assert (request["action"], request["resource"]) == ("read", {"type": "record", "id": "record-1"})
    assert json.loads(request["arguments"]) == {
        "subject": {"type": "user", "id": "alice", "properties": {}},
        "action": {"properties": {}},
        "resource": {"properties": {"n": 1.5}},
        "context": {"ip": "192.0.2.1"},
    }
    assert json.loads(request["context"]) == {"door": {"kind": "authzen", "api": "1.0"}}
    agent = decision["agent"]
    assert (agent["id"], agent["proof"], agent["gateway"], agent["gateway_proof"]) == (APP, "gateway", PEP, "mtls")
    assert decision["executor"]["id"] == PEP


def test_the_evaluations_endpoint_with_a_single_one(it: Pep) -> None:
    for more in ({}, {"evaluations": []}):
        answered = it.post(EVALUATIONS, {**FIXTURE["1"][0], **more})
        assert answered.status == 200 and answered.json()["decision"] is True


def test_the_metadata(it: Pep) -> None:
    answered = it.send("GET", "/.well-known/authzen-configuration", headers={"X-Request-ID": "7"})
    url = f"https://{HOST}:{it.port}"
    assert (answered.status, answered.headers["x-request-id"]) == (200, "7")
    assert answered.headers["content-type"].startswith("application/json")
    assert answered.json() == {
        "policy_decision_point": url,
        "access_evaluation_endpoint": url + EVALUATION,
        "access_evaluations_endpoint": url + EVALUATIONS,
    }


def test_approved_it_is_true(it: Pep) -> None:
    asked = asking("alice", "share", ACTIVE)
    told = it.post(EVALUATION, asked).json()
    approval, decision_id = told["context"]["approval"], told["context"]["decision_id"]
    assert told["decision"] is False and approval["count"] == 1 and decision_id in approval["how"]
    again = it.post(EVALUATION, asked, x_sidecar_approval_of=decision_id)
    assert again.status == 403 and "decision" not in again.json()
    key = sign_key(it.place, LEAD)
    where = ("--server", f"unix:{it.place}/s.sock", "--by", LEAD, "--key", key, "--yes")
    done = sidecar("approvals", "approve", *where, decision_id)
    assert done.returncode == 0, done.stderr
    other = it.post(EVALUATION, asking("bob", "share", ACTIVE), x_sidecar_approval_of=decision_id)
    assert other.status == 400  # another than was approved
    assert it.post(EVALUATION, asked, x_sidecar_approval_of=decision_id).json()["decision"] is True


def test_the_pep_may_report_with_its_own_key(it: Pep) -> None:
    context = it.post(EVALUATION, FIXTURE["7"][0]).json()["context"]
    note = urlsafe_b64decode(context["permit"])
    chain, first = note.split(b"\nchain ")[1][:64].decode(), it.of("GENESIS")[0]
    check = PermitCheck(chain=chain, identity=first["identity"], executor=PEP)
    arguments = {
        "subject": {"type": "user", "id": "alice", "properties": {}},
        "action": {"properties": {"soft": True}},
        "resource": {"properties": {}},
        "context": {},
    }
    taken = check.check(note, "delete", ("record", "record-1"), json.dumps(arguments, separators=(",", ":")).encode())
    key = AgentKey.from_file(sign_key(it.place, PEP))
    with Reporter(f"unix:{it.place}/s.sock", executor=PEP, key=key, chain=chain, timeout=20.0) as reporter:
        with reporter.acting(taken) as act:
            act.respond({"deleted": 1}, status="204")
        assert reporter.unreported == 0
    (outcome,) = [o for o in it.of("OUTCOME") if o["decision_id"] == context["decision_id"]]
    assert (outcome["by"]["id"], outcome["by"]["proof"], outcome["status"]) == (PEP, "signature", "executed")


@pytest.mark.parametrize("shown", ["", "other"])
def test_without_the_peps_certificate(it: Pep, shown: str) -> None:
    tls = context_of(it.place, it.place / "a.pem", shown)
    before = len(it.of("DECISION"))
    asked = json.dumps(FIXTURE["1"][0]).encode()
    try:
        answered = it.send("POST", EVALUATION, asked, {"content-type": "application/json"}, tls)
    except (ssl.SSLError, OSError, http.client.HTTPException):
        assert not shown
    else:
        assert shown and answered.status == 401 and "decision" not in answered.json()
        assert it.of("REJECTED")[-1]["code"] == "UNAUTHENTICATED"
    assert len(it.of("DECISION")) == before


def test_at_the_end_one_ledger_holds_it_all(it: Pep) -> None:
    done = sidecar("verify", it.ledger, "--json")
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["verdict"] == "UNANCHORED", told["findings"]
    assert told["decisions"]["vouched"] == len(it.of("DECISION"))
    lines = sidecar("timeline", it.ledger, "--agent", APP).stdout
    assert "via authzen" in lines and f"named by the gateway {PEP}" in lines


def test_no_decision_is_never_true(tmp_path: Path) -> None:
    """The engine hangs, then is gone, then the sidecar hangs; afterwards it is as before."""
    batch = BATCHES["resources"][0]
    with pep(tmp_path, timeout=0.5) as it:
        it.until(lambda: it.post(EVALUATION, FIXTURE["1"][0]).status == 200)
        with it.stopped("opa"):
            answered = it.post(EVALUATION, FIXTURE["1"][0])
            assert (answered.status, answered.json()["error"]) == (503, "undecided")
            found = it.post(EVALUATIONS, batch).json()["evaluations"]
        it.kill("opa")
        assert it.post(EVALUATION, FIXTURE["1"][0]).status == 503
        found += it.post(EVALUATIONS, batch).json()["evaluations"]
        assert [each["decision"] for each in found] == [False] * 4
        assert {each["context"]["error"]["status"] for each in found} == {503}
        it.start_opa()
        it.until(lambda: it.post(EVALUATION, FIXTURE["1"][0]).status == 200)
        causes = {d["cause"] for d in it.of("DECISION") if d["effect"] == "DENY"}
        assert "engine_timeout" in causes and causes <= {"engine_timeout", "engine_unavailable"}
        it.kill("sidecar")
        with pytest.raises(OSError):
            it.post(EVALUATION, FIXTURE["1"][0])
