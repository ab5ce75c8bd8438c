"""What a client certificate does in the end: who is proved by it, and who is refused, by status, entry and metric."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography.hazmat.primitives import hashes

from sidecar.api import Metrics, Transports
from sidecar.v1 import decision_pb2 as pb
from sidecar.v1 import decision_pb2_grpc as stubs
from tests.api.pages import series
from tests.api.running import Running, judged, request, running
from tests.api.tls_files import Files, channel, server_certificate
from tests.authorities import Authority, Issued, p256
from tests.identity.agents import BILLING, GATEWAY, PAYROLL, Agent, registered

CA = Authority("ca")
ID, OTHERS = "spiffe://a/billing-agent", "spiffe://a/payroll-agent"
PAST = "2020-01-01T00:00:00.000000000Z"
KEYED = Agent("keyed-agent", p256())
EVERYBODY = (
    BILLING.entry(spiffe_ids=[{"id": ID}]),
    PAYROLL.entry(spiffe_ids=[{"id": OTHERS}]),
    GATEWAY.entry("executor", spiffe_ids=[{"id": "spiffe://a/gateway"}]),
    Agent("past-agent", p256()).entry(
        spiffe_ids=[{"id": "spiffe://a/past", "not_after": "2020-01-01T00:00:00.000000000Z"}]
    ),
    Agent("suspended-agent", p256()).entry(status="suspended", spiffe_ids=[{"id": "spiffe://a/suspended"}]),
    Agent("revoked-agent", p256()).entry(status="revoked", spiffe_ids=[{"id": "spiffe://a/revoked"}]),
    KEYED.entry(),
)
Story = Callable[[Running, Any, pb.HeadResponse], Awaitable[None]]


def played(
    tmp_path: Path, shown: Issued, story: Story, *, require: tuple[str, ...] = ("mtls",), dev: bool = False
) -> Metrics:
    """The story of a caller with this certificate, told with stubs and the chain's head; what was written verifies."""
    metrics = Metrics("test")
    tls = Files(tmp_path).write(server_certificate(CA), CA).server(metrics)

    async def main() -> None:
        settings: dict[str, Any] = {"development": dev, "require": require}
        async with (
            running(tmp_path, tls=tls, transports=Transports(tls.bundles), metrics=metrics, **settings) as run,
            channel(run.address, CA, shown) as to,
        ):
            await run.in_force.put_registry(registered(*EVERYBODY))
            head = await stubs.LedgerServiceStub(to).Head(pb.HeadRequest())  # type: ignore[misc]
            await story(run, stubs.DecisionServiceStub(to), head)

    asyncio.run(main())
    report = judged(tmp_path / "ledger")
    assert report.verdict.name == "UNANCHORED", report.findings
    return metrics


def refused_as(code: str, question: Callable[[pb.HeadResponse], pb.DecideRequest], principal: str = "") -> Story:
    """A story that ends in this refusal, on record."""

    async def story(run: Running, decisions: Any, head: pb.HeadResponse) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await decisions.Decide(question(head))
        assert refused.value.code().name == code, refused.value.details()
        entry = run.ledger.payload(run.ledger.position().next_seq - 1)
        assert (entry["type"], entry["code"], entry["principal"]) == ("REJECTED", code, principal)

    return story


def as_named(agent: str = "billing-agent") -> Callable[[pb.HeadResponse], pb.DecideRequest]:
    return lambda head: request(agent=agent)


def signed_by(agent: Agent) -> Callable[[pb.HeadResponse], pb.DecideRequest]:
    return lambda head: agent.request(request(agent=agent.id), head)


@pytest.mark.parametrize(
    ("shown", "agent", "spiffe_id"),
    [(CA.issue(ID), "billing-agent", ID), (CA.issue(key=KEYED.key), "keyed-agent", "")],
    ids=["by its SPIFFE id", "by its key"],
)
def test_a_certificate_proves_its_principal_in_answer_and_entry(tmp_path, shown, agent, spiffe_id):
    async def story(run: Running, decisions: Any, head: pb.HeadResponse) -> None:
        answer = await decisions.Decide(request(agent=agent))
        assert (answer.effect, answer.agent_proof) == (pb.EFFECT_ALLOW, "mtls")
        member = run.ledger.payload(answer.seq)["agent"]
        assert (member["id"], member["proof"], member["spiffe_id"]) == (agent, "mtls", spiffe_id)
        assert bytes.fromhex(member["certificate"]) == shown.certificate.fingerprint(hashes.SHA256())
        assert member["attributes"] == {"limit": 100}
        report = pb.ReportOutcomeRequest(
            agent=agent, decision_id=answer.decision_id, status=pb.OUTCOME_STATUS_EXECUTED, response=b"{}"
        )
        told = await decisions.ReportOutcome(report)
        assert run.ledger.payload(told.seq)["by"]["proof"] == "mtls"

    played(tmp_path, shown, story)


REFUSED = {
    "another's name": (CA.issue(OTHERS), "PERMISSION_DENIED", "name", "payroll-agent"),
    "a SPIFFE id that nobody has": (CA.issue("spiffe://a/unknown"), "UNAUTHENTICATED", "certificate", ""),
    "a SPIFFE id whose time is over": (CA.issue("spiffe://a/past"), "UNAUTHENTICATED", "certificate", ""),
    "a key that nobody has": (CA.issue(), "UNAUTHENTICATED", "certificate", ""),
    "a registered key under an unknown SPIFFE id": (
        CA.issue("spiffe://a/unknown", key=KEYED.key),
        "UNAUTHENTICATED",
        "certificate",
        "",
    ),
}


@pytest.mark.parametrize("dev", [False, True], ids=["proved", "dev"])
@pytest.mark.parametrize(("shown", "code", "why", "principal"), REFUSED.values(), ids=list(REFUSED))
def test_who_is_not_the_one_named_is_refused_in_development_too(tmp_path, shown, code, why, principal, dev):
    metrics = played(tmp_path, shown, refused_as(code, as_named(), principal), dev=dev)
    page = series(metrics.page())
    assert (page["sidecar_unproved_total", why], page["sidecar_rejected_total", code]) == (1, 1)


STATES = {
    "suspended": ("spiffe://a/suspended", "suspended-agent", "suspended"),
    "revoked": ("spiffe://a/revoked", "revoked-agent", "revoked"),
    "an executor, who asks nothing": ("spiffe://a/gateway", "payments-gateway", "kind"),
}


@pytest.mark.parametrize(("spiffe_id", "agent", "why"), STATES.values(), ids=list(STATES))
def test_a_good_certificate_of_one_who_may_not_ask_is_refused(tmp_path, spiffe_id, agent, why):
    story = refused_as("PERMISSION_DENIED", as_named(agent), agent)
    page = series(played(tmp_path, CA.issue(spiffe_id), story).page())
    assert page["sidecar_unproved_total", why] == 1


def test_where_both_are_required_both_must_be_there_and_of_one_principal(tmp_path):
    both = ("signature", "mtls")

    async def good(run: Running, decisions: Any, head: pb.HeadResponse) -> None:
        answer = await decisions.Decide(signed_by(BILLING)(head))
        member = run.ledger.payload(answer.seq)["agent"]
        assert (answer.agent_proof, member["spiffe_id"]) == ("signature+mtls", ID)
        assert member["statement"]
        await refused_as("UNAUTHENTICATED", as_named())(run, decisions, head)
        await refused_as("PERMISSION_DENIED", signed_by(PAYROLL), "billing-agent")(run, decisions, head)

    page = series(played(tmp_path, CA.issue(ID), good, require=both).page())
    assert (page["sidecar_unproved_total", "no signature"], page["sidecar_unproved_total", "name"]) == (1, 1)


def test_an_outcome_with_anothers_certificate_is_refused(tmp_path):
    async def story(run: Running, decisions: Any, head: pb.HeadResponse) -> None:
        answer = await decisions.Decide(request())
        async with channel(run.address, CA, CA.issue(OTHERS)) as to:
            report = pb.ReportOutcomeRequest(
                agent="billing-agent", decision_id=answer.decision_id, status=pb.OUTCOME_STATUS_EXECUTED
            )
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stubs.DecisionServiceStub(to).ReportOutcome(report)  # type: ignore[misc]
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        entry = run.ledger.payload(run.ledger.position().next_seq - 1)
        assert (entry["type"], entry["principal"]) == ("REJECTED", "payroll-agent")

    played(tmp_path, CA.issue(ID), story)
