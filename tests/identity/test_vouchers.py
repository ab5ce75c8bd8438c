"""What a gateway says of who asks: taken from a registered gateway that was proved, of registered agents alone."""

from __future__ import annotations

import time
from typing import Any

import pytest

from sidecar.chain.request import Option, Request
from sidecar.errors import CallerUnproved, NotPermitted
from sidecar.identity import REPORTERS, Certificate, Claim, Prover, Shown, Terms, Transport, Voucher
from tests.identity.agents import BILLING, GATEWAY, PAYROLL, registry_of

ID, EDGE = "spiffe://example.org/billing", "spiffe://example.org/edge"
CLAIM = Claim("request", "billing-agent", Request("billing-agent", Option("http.get", "http", "a/b")).digest())
AGENT = BILLING.entry(spiffe_ids=[{"id": ID}])
EXECUTOR = GATEWAY.entry("executor", spiffe_ids=[{"id": EDGE}])
PROVER = Prover(Terms(), bytes(32), 0, time.time_ns)


def shown(voucher: Voucher, certificate: Certificate | None = None) -> Shown:
    return Shown(Transport("unix:", certificate), voucher=voucher)


def voucher(proof: str = "socket", **changed: str) -> Voucher:
    return Voucher(**{"gateway": GATEWAY.id, "proof": proof, **changed})


def test_an_agent_behind_a_socket() -> None:
    proved = PROVER.prove(CLAIM, shown(voucher()), registry_of(AGENT, EXECUTOR))
    assert proved.member() == {
        "id": "billing-agent", "proof": "gateway", "roles": ["billing"], "attributes": {"limit": 100},
        "gateway": "payments-gateway", "gateway_proof": "socket", "certificate": "", "spiffe_id": "",
    }  # fmt: skip


def test_a_gateway_with_a_certificate_and_an_agent_with_one() -> None:
    said = voucher("mtls", certificate="ab" * 32, spiffe_id=ID)
    edge = Certificate(bytes(32), b"key", EDGE)
    member = PROVER.prove(CLAIM, shown(said, edge), registry_of(AGENT, EXECUTOR)).member()
    assert (member["gateway_proof"], member["certificate"], member["spiffe_id"]) == ("mtls", "ab" * 32, ID)


def test_the_gateway_for_itself() -> None:
    claim = Claim("outcome", GATEWAY.id, bytes(32), REPORTERS)
    assert PROVER.prove(claim, shown(voucher()), registry_of(AGENT, EXECUTOR)).id == GATEWAY.id


OTHER_EDGE = Certificate(bytes(32), b"key", ID)  # the agent's own, in the gateway's place


@pytest.mark.parametrize(
    ("said", "certificate", "entries", "why"),
    [
        (voucher(), None, (), "gateway"),
        (voucher(), None, (AGENT,), "gateway"),
        (voucher(gateway="billing-agent"), None, (AGENT, EXECUTOR), "gateway"),
        (voucher(), None, (AGENT, {**EXECUTOR, "status": "suspended"}), "gateway"),
        (voucher(), None, (AGENT, {**EXECUTOR, "kind": "approver"}), "gateway"),
        (voucher("mtls"), None, (AGENT, EXECUTOR), "gateway"),
        (voucher("mtls"), OTHER_EDGE, (AGENT, EXECUTOR), "gateway"),
        (voucher("mtls"), Certificate(bytes(32), b"key", "spiffe://example.org/x"), (AGENT, EXECUTOR), "certificate"),
        (voucher(), None, (EXECUTOR,), "unknown"),
        (voucher(spiffe_id=EDGE), None, (AGENT, EXECUTOR), "certificate"),
        (voucher(spiffe_id="spiffe://example.org/x"), None, (AGENT, EXECUTOR), "certificate"),
    ],
)
def test_nobody_is_proved(
    said: Voucher, certificate: Certificate | None, entries: tuple[dict[str, Any], ...], why: str
) -> None:
    with pytest.raises(CallerUnproved) as caught:
        PROVER.prove(CLAIM, shown(said, certificate), registry_of(*entries) if entries else None)
    assert caught.value.why == why


@pytest.mark.parametrize(("changed", "why"), [({"status": "suspended"}, "suspended"), ({"kind": "user"}, "kind")])
def test_agents_that_may_not_ask(changed: dict[str, str], why: str) -> None:
    with pytest.raises(NotPermitted) as caught:
        PROVER.prove(CLAIM, shown(voucher()), registry_of({**AGENT, **changed}, EXECUTOR))
    assert caught.value.why == why


def test_no_gateway_asks_for_itself() -> None:
    with pytest.raises(NotPermitted):
        PROVER.prove(Claim("request", GATEWAY.id, bytes(32)), shown(voucher()), registry_of(AGENT, EXECUTOR))


def test_a_registry_that_changed_meanwhile() -> None:
    proved = PROVER.prove(CLAIM, shown(voucher(spiffe_id=ID)), registry_of(AGENT, EXECUTOR))
    richer = {**AGENT, "roles": ["lead"]}
    assert PROVER.again(proved, registry_of(richer, EXECUTOR)).roles == ("lead",)
    for entries in ((AGENT,), (PAYROLL.entry(), EXECUTOR), ({**AGENT, "spiffe_ids": []}, EXECUTOR)):
        with pytest.raises(CallerUnproved):
            PROVER.again(proved, registry_of(*entries))


def test_a_proof_that_is_none() -> None:
    with pytest.raises(ValueError, match="socket or by mtls"):
        voucher("promise")
