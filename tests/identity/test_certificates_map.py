"""From a certificate that was verified already to a principal, alone and beside a signature."""

from __future__ import annotations

import time
from typing import Any

import pytest

from sidecar.chain.request import Option, Request
from sidecar.chain.signing import sign
from sidecar.chain.statement import Statement
from sidecar.errors import CallerUnproved, NotPermitted
from sidecar.identity import Certificate, Claim, Proved, Prover, Shown, Terms, Transport
from tests.identity.agents import BILLING, PAYROLL, Agent, registry_of

CHAIN, ID = bytes(range(32)), "spiffe://example.org/billing"
REQUEST = Request("billing-agent", Option("crm.read", "customer", "acme-42"))
CLAIM = Claim("request", "billing-agent", REQUEST.digest())
OTHER = b"the SPKI of an RSA key"


def certificate(spki: bytes = OTHER, name: str = "") -> Certificate:
    return Certificate(bytes(32), spki, name)


def prove(shown: Shown, *entries: dict[str, Any], require: tuple[str, ...] = ("mtls",), claim: Claim = CLAIM) -> Proved:
    prover = Prover(Terms(frozenset(require)), CHAIN, 3, time.time_ns)
    return prover.prove(claim, shown, registry_of(*entries))


def signed(by: Agent, shown: Certificate | None) -> Shown:
    said = Statement("request", CHAIN, 3, by.id, by.key_id, CLAIM.digest, time.time_ns(), bytes(16))
    return Shown(Transport("ipv4:127.0.0.1", shown), said.encode(), sign(by.key, said.encode()))


def sent(shown: Certificate | None) -> Shown:
    return Shown(Transport("ipv4:127.0.0.1", shown))


WITH_ID = BILLING.entry(spiffe_ids=[{"id": ID}])


def test_by_spiffe_id_or_by_key() -> None:
    by_id = prove(sent(certificate(name=ID)), WITH_ID)
    assert (by_id.id, by_id.proof, by_id.member()["spiffe_id"]) == ("billing-agent", "mtls", ID)
    assert by_id.member()["certificate"] == "00" * 32
    by_key = prove(sent(certificate(BILLING.spki)), BILLING.entry())
    assert (by_key.id, by_key.proof) == ("billing-agent", "mtls")


def test_both() -> None:
    both = prove(signed(BILLING, certificate(name=ID)), WITH_ID, require=("signature", "mtls"))
    assert both.proof == "signature+mtls"
    assert {"statement", "signature", "key", "certificate", "spiffe_id"} <= both.member().keys()


EXPIRED = {"id": ID, "not_after": "2026-01-01T00:00:00.000000000Z"}
REVOKED = {**WITH_ID["keys"][0], "status": "revoked"}
FUTURE = {"id": ID, "not_before": "2999-01-01T00:00:00.000000000Z"}


@pytest.mark.parametrize(
    ("shown", "entry", "why"),
    [
        (sent(None), WITH_ID, "no certificate"),
        (sent(certificate()), WITH_ID, "certificate"),
        (sent(certificate(name="spiffe://example.org/other")), WITH_ID, "certificate"),
        # An id that is not registered is not made good by a key that is.
        (sent(certificate(BILLING.spki, "spiffe://example.org/other")), WITH_ID, "certificate"),
        (sent(certificate(name=ID)), BILLING.entry(spiffe_ids=[EXPIRED]), "certificate"),
        (sent(certificate(name=ID)), BILLING.entry(spiffe_ids=[FUTURE]), "certificate"),
        (
            sent(certificate(BILLING.spki)),
            BILLING.entry(keys=[REVOKED]),
            "certificate",
        ),
        (signed(BILLING, None), WITH_ID, "no certificate"),
    ],
)
def test_certificates_that_prove_nobody(shown: Shown, entry: dict[str, Any], why: str) -> None:
    with pytest.raises(CallerUnproved) as caught:
        prove(shown, entry)
    assert caught.value.why == why


def test_a_certificate_is_no_signature() -> None:
    with pytest.raises(CallerUnproved) as caught:
        prove(sent(certificate(name=ID)), WITH_ID, require=("signature", "mtls"))
    assert caught.value.why == "no signature"


def test_one_signs_and_another_sends() -> None:
    with pytest.raises(NotPermitted) as caught:
        prove(signed(BILLING, certificate(PAYROLL.spki)), BILLING.entry(), PAYROLL.entry())
    assert (caught.value.why, caught.value.principal) == ("name", "payroll-agent")


def test_in_another_name_than_the_certificates() -> None:
    with pytest.raises(NotPermitted) as caught:
        prove(sent(certificate(PAYROLL.spki)), BILLING.entry(), PAYROLL.entry())
    assert (caught.value.why, caught.value.principal) == ("name", "payroll-agent")


@pytest.mark.parametrize("status", ["suspended", "revoked"])
def test_status(status: str) -> None:
    with pytest.raises(NotPermitted) as caught:
        prove(sent(certificate(name=ID)), {**WITH_ID, "status": status})
    assert caught.value.why == status


@pytest.mark.parametrize("terms", [{"require": frozenset()}, {"require": frozenset({"password"})}, {"window": 0.5}])
def test_terms_out_of_range(terms: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"require|window"):
        Terms(**terms)
