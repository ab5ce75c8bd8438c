"""mTLS at the door: who gets in, who is refused in the handshake, who after it, and material that changes."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ssl
import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from sidecar.api import Metrics, ServerTls, Transports, half
from sidecar.client import Material
from sidecar.identity import PRIVATE, Bundles
from sidecar.v1 import decision_pb2 as pb
from sidecar.v1 import decision_pb2_grpc as stubs
from tests.api.pages import Series, moved, series
from tests.api.running import Running, answered, request, running, streamed
from tests.api.tls_files import Files, channel, handshake, server_certificate
from tests.authorities import HOUR, NOW, SERVER, Authority, Issued
from tests.identity.agents import BILLING, registered

A, B = Authority("ca of a"), Authority("ca of b")
ID = "spiffe://a/billing-agent"
REFUSED = ("sidecar_rejected_total", "UNAUTHENTICATED")
UNPROVED = ("sidecar_unproved_total", "certificate")
HANDSHAKES = ("sidecar_tls_handshakes_total",)


class Federated:
    """Material of two trust domains, as the Workload API gives it; fixed."""

    def __init__(self) -> None:
        shown = server_certificate(A)
        roots = {"a": (A.der,), "b": (B.der,)}
        self._half = half(mutual=True)(Material(shown.chain, shown.key_pem, roots))

    def current(self) -> Any:
        return self._half

    def close(self) -> None:
        pass


PRINCIPAL = BILLING.entry(spiffe_ids=[{"id": ID}, {"id": "spiffe://b/agent"}])
BY_CERTIFICATE: dict[str, Any] = {"development": False, "require": ("mtls",)}


@contextlib.asynccontextmanager
async def served(tmp_path: Path, tls: ServerTls, transports: Transports, **more: Any) -> AsyncIterator[Running]:
    """A sidecar that believes certificates alone, with the billing agent registered."""
    async with running(tmp_path, tls=tls, transports=transports, **BY_CERTIFICATE, **more) as run:
        await run.in_force.put_registry(registered(PRINCIPAL))
        yield run


def federated(tmp_path: Path, metrics: Metrics) -> Any:
    tls = ServerTls(Federated(), metrics.tls_handshake)
    return served(tmp_path, tls, Transports(tls.bundles), metrics=metrics)


async def code_of(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refused.value.code(), refused.value.details() or ""


async def ask(run: Running, shown: Issued | None, authority: Authority = A) -> pb.DecideResponse:
    async with channel(run.address, authority, shown) as to:
        answer: pb.DecideResponse = await stubs.DecisionServiceStub(to).Decide(request(), timeout=20)  # type: ignore
        return answer


GOOD = {
    "P-256": A.issue(ID),
    "RSA": A.issue(ID, key=rsa.generate_private_key(public_exponent=65537, key_size=2048)),
    "over an intermediate": Authority("intermediate of a", under=A).issue(ID),
    "of a federated trust domain": B.issue("spiffe://b/agent"),
}


def test_callers_of_known_trust_domains_are_answered(tmp_path: Path) -> None:
    async def main() -> None:
        async with federated(tmp_path, Metrics("test")) as run:
            for shown in GOOD.values():
                assert (await ask(run, shown)).effect == pb.EFFECT_ALLOW

    asyncio.run(main())


AFTER_IT = {
    "another domain's id, minted by a federated CA": (B.issue(ID), "its own trust domain"),
    "several URI SANs": (A.issue(ID, "spiffe://a/other"), "several URI SANs"),
    "no SPIFFE id": (A.issue("https://a/agent"), "no SPIFFE id"),
    "no name": (A.issue(), "no trust domain"),
    "an unknown trust domain": (A.issue("spiffe://c/agent"), "no trust domain"),
    "too large": (A.issue(ID, dns=[f"{n:063}.example" for n in range(100)]), "too long"),
}


@pytest.mark.parametrize(("shown", "why"), AFTER_IT.values(), ids=list(AFTER_IT))
def test_a_certificate_that_gets_through_the_handshake_is_judged_and_its_refusal_recorded(tmp_path, shown, why):
    metrics = Metrics("test")

    async def main() -> Series:
        async with federated(tmp_path, metrics) as run:
            before, first = metrics.page(), run.ledger.position().next_seq
            code, said = await code_of(ask(run, shown))
            assert (code, why in said) == (grpc.StatusCode.UNAUTHENTICATED, True), said
            assert run.ledger.position().next_seq == first + 1
            entry = run.ledger.payload(first)
            assert (entry["type"], entry["code"], entry["cause"]) == ("REJECTED", "UNAUTHENTICATED", said)
            return moved(before, metrics.page())

    counted = asyncio.run(main())
    assert (counted[REFUSED], counted[UNPROVED], counted[HANDSHAKES]) == (1.0, 1.0, 1.0)
    assert not [key for key in counted if key[0] == "sidecar_decisions_total"]


def test_no_method_answers_an_unproved_caller(tmp_path: Path) -> None:
    shown = B.issue(ID)

    async def questions() -> AsyncIterator[pb.DecideStreamRequest]:
        yield streamed(request())

    async def main() -> None:
        async with federated(tmp_path, Metrics("test")) as run, channel(run.address, A, shown) as to:
            decisions: Any = stubs.DecisionServiceStub(to)
            reading: Any = stubs.LedgerServiceStub(to)
            first = run.ledger.position().next_seq
            outcome = pb.ReportOutcomeRequest(agent="a", decision_id="d", status=pb.OUTCOME_STATUS_EXECUTED)
            reads = [reading.Head(pb.HeadRequest()), reading.GetEntry(pb.GetEntryRequest(seq=0))]
            for call in (*reads, reading.Prove(pb.ProveRequest(seq=0)), decisions.ReportOutcome(outcome)):
                assert (await code_of(call))[0] is grpc.StatusCode.UNAUTHENTICATED
            batch = await decisions.DecideBatch(pb.DecideBatchRequest(requests=[request()]))
            given = await answered(decisions.DecideStream(questions()))
            assert [each.refusal.code for each in batch.answers] == [grpc.StatusCode.UNAUTHENTICATED.value[0]]
            assert [each.answer.refusal.code for each in given] == [grpc.StatusCode.UNAUTHENTICATED.value[0]]
            recorded = [run.ledger.payload(seq) for seq in range(first, run.ledger.position().next_seq)]
            assert {(each["type"], each["code"]) for each in recorded} == {("REJECTED", "UNAUTHENTICATED")}
            assert sum(each["count"] for each in recorded) == 6

    asyncio.run(main())


IN_IT = {
    "none": None,
    "expired": A.issue(ID, end=NOW - HOUR / 2),
    "not yet valid": A.issue(ID, start=NOW + HOUR / 2),
    "for servers only": A.issue(ID, purposes=[SERVER]),
    "self-signed": Authority("somebody").issue(ID),
    "of another CA": Authority("elsewhere").issue(ID),
    "an Ed25519 key, which gRPC's TLS does not take": A.issue(ID, key=ed25519.Ed25519PrivateKey.generate()),
}


@pytest.mark.parametrize("shown", IN_IT.values(), ids=list(IN_IT))
def test_a_handshake_that_fails_reaches_no_method_and_is_counted(tmp_path, shown):
    metrics = Metrics("test")

    async def main() -> Series:
        async with federated(tmp_path, metrics) as run:
            before, first = metrics.page(), run.ledger.position().next_seq
            code, _ = await code_of(ask(run, shown))
            assert code is grpc.StatusCode.UNAVAILABLE
            assert run.ledger.position().next_seq == first
            return moved(before, metrics.page())

    counted = asyncio.run(main())
    assert counted.pop(HANDSHAKES) >= 1
    assert counted == {}


def test_a_caller_without_tls_gets_no_answer(tmp_path: Path) -> None:
    async def main() -> None:
        async with federated(tmp_path, Metrics("test")) as run:
            code, _ = await code_of(run.decisions.Decide(request(), timeout=20))
            assert code is grpc.StatusCode.UNAVAILABLE

    asyncio.run(main())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_tls_before_1_2_is_not_spoken(tmp_path, version):
    async def main() -> None:
        async with federated(tmp_path, Metrics("test")) as run:
            with pytest.raises(ssl.SSLError, match=r"EOF|VERSION"):
                await asyncio.to_thread(_old, run.address, tmp_path, version)
            for newer in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                _, agreed = await asyncio.to_thread(handshake, run.address, tmp_path, GOOD["P-256"], version=newer)
                assert agreed == newer.name.replace("_", ".")

    asyncio.run(main())


def _old(address: str, place: Path, version: ssl.TLSVersion) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that it is old is the point
        handshake(address, place, GOOD["P-256"], version=version, settle=_weakest)


def _weakest(context: ssl.SSLContext) -> None:
    context.set_ciphers("DEFAULT:@SECLEVEL=0")


def assert_recorded(run: Running, said: str, metrics: Metrics) -> None:
    """The last entry is the one refusal, and it is counted."""
    entry = run.ledger.payload(run.ledger.position().next_seq - 1)
    assert (entry["type"], entry["code"], entry["cause"]) == ("REJECTED", "UNAUTHENTICATED", said)
    counted = series(metrics.page())
    assert (counted[REFUSED], counted[UNPROVED]) == (1.0, 1.0)


def test_a_kept_connection_is_good_only_as_long_as_its_certificate(tmp_path: Path) -> None:
    clock, metrics = [datetime.datetime.now(datetime.UTC)], Metrics("test")
    tls = ServerTls(Federated())
    transports = Transports(tls.bundles, now=lambda: clock[0])

    async def main() -> None:
        shown = A.issue(ID, end=NOW + HOUR)
        async with (
            served(tmp_path, tls, transports, metrics=metrics) as run,
            channel(run.address, A, shown) as to,
        ):
            decisions: Any = stubs.DecisionServiceStub(to)
            assert (await decisions.Decide(request())).effect == pb.EFFECT_ALLOW
            clock[0] = NOW + HOUR
            code, said = await code_of(decisions.Decide(request()))
            assert (code, "has expired" in said) == (grpc.StatusCode.UNAUTHENTICATED, True)
            assert_recorded(run, said, metrics)
            renewed = A.issue(ID, end=NOW + 2 * HOUR)
            assert (await ask(run, renewed)).effect == pb.EFFECT_ALLOW

    asyncio.run(main())


def test_a_kept_connection_is_good_only_as_long_as_the_sidecars_own_certificate(tmp_path: Path) -> None:
    """Nobody is answered until it is renewed; by no fault of the caller's, and so not as one."""
    files = Files(tmp_path).write(server_certificate(A), A)
    tls = files.server()

    async def main() -> None:
        transports = Transports(tls.bundles, ends=tls.not_after)
        async with served(tmp_path, tls, transports) as run, channel(run.address, A, A.issue(ID)) as to:
            decisions: Any = stubs.DecisionServiceStub(to)
            assert (await decisions.Decide(request())).effect == pb.EFFECT_ALLOW
            files.write(A.issue(purposes=[SERVER], end=NOW - HOUR / 2), A)
            before = run.ledger.position().next_seq
            code, said = await code_of(decisions.Decide(request()))
            assert (code, "certificate that is shown here has ended" in said) == (grpc.StatusCode.UNAVAILABLE, True)
            assert run.ledger.position().next_seq == before
            files.write(server_certificate(A), A)
            assert (await decisions.Decide(request())).effect == pb.EFFECT_ALLOW

    asyncio.run(main())


def test_a_ca_that_is_rotated_out_no_longer_vouches_on_a_kept_connection(tmp_path: Path) -> None:
    new, metrics = Authority("ca of a"), Metrics("test")
    server = server_certificate(A)
    files = Files(tmp_path).write(server, A)
    tls = files.server()

    async def main() -> None:
        shown = A.issue(ID)
        async with (
            served(tmp_path, tls, Transports(tls.bundles), metrics=metrics) as run,
            channel(run.address, A, shown) as to,
        ):
            decisions: Any = stubs.DecisionServiceStub(to)
            assert (await decisions.Decide(request())).effect == pb.EFFECT_ALLOW
            files.write(server, A, new)
            assert (await decisions.Decide(request())).effect == pb.EFFECT_ALLOW
            assert (await ask(run, new.issue(ID))).effect == pb.EFFECT_ALLOW
            files.write(server, new)
            code, said = await code_of(decisions.Decide(request()))
            assert (code, "does not lead to a root" in said) == (grpc.StatusCode.UNAUTHENTICATED, True)
            assert_recorded(run, said, metrics)
            assert (await code_of(ask(run, shown)))[0] is grpc.StatusCode.UNAVAILABLE  # now in the handshake
            assert (await ask(run, new.issue(ID))).effect == pb.EFFECT_ALLOW

    asyncio.run(main())


def test_new_files_are_shown_live_and_broken_ones_are_not(tmp_path: Path) -> None:
    metrics = Metrics("test")
    first, second = server_certificate(A), server_certificate(A)
    files = Files(tmp_path).write(first, A)
    tls = files.server(metrics)

    async def shown_by(run: Running) -> bytes:
        return (await asyncio.to_thread(handshake, run.address, tmp_path, GOOD["P-256"]))[0]

    async def main() -> None:
        transports = Transports(tls.bundles)
        async with served(tmp_path, tls, transports, metrics=metrics) as run:
            assert await shown_by(run) == first.certificate.public_bytes(Encoding.DER)
            before = metrics.page()
            for number, (name, (which, broken)) in enumerate(BROKEN.items(), 1):
                files.write(first, A).spoil(which, broken)
                assert await shown_by(run) == first.certificate.public_bytes(Encoding.DER), name
                assert len(files.said) == number, name
                assert await ask(run, GOOD["P-256"])
                assert len(files.said) == number, name  # said once, not at each look
            assert moved(before, metrics.page())["sidecar_tls_faults_total",] == len(BROKEN)
            files.write(second, A)
            assert await shown_by(run) == second.certificate.public_bytes(Encoding.DER)
            assert tls.not_after() == second.certificate.not_valid_after_utc.timestamp()

    asyncio.run(main())
    assert not [said for said in files.said if "BEGIN" in said]


CERT, KEY, CA = 0, 1, 2
BROKEN = {
    "nonsense for a key": (KEY, b"nonsense"),
    "a key under a password": (
        KEY,
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n",
    ),
    "a certificate of another key": (CERT, A.issue(ID).leaf),
    "half a certificate": (CERT, A.pem[:100]),
    "a CA file with a certificate that is no CA's": (CA, A.pem + A.issue(ID).leaf),
    "an empty CA file": (CA, b""),
}


def test_what_was_verified_is_remembered_but_not_for_ever() -> None:
    class Call:
        """What gRPC's context shows of one connection."""

        def __init__(self, shown: Issued) -> None:
            self._shown = shown

        def peer(self) -> str:
            return "ipv4:192.0.2.7:4711"

        def auth_context(self) -> dict[str, list[bytes]]:
            return {"x509_pem_cert": [self._shown.leaf]}

    bundles = Bundles({PRIVATE: [A.der]})
    transports = Transports(lambda: bundles)
    first, second = Call(A.issue(ID)), Call(A.issue("spiffe://a/other"))
    known = transports.of(first)
    assert known.peer == "ipv4:192.0.2.7"
    assert known.certificate is not None and known.certificate.spiffe_id == ID
    assert transports.of(first).certificate is known.certificate  # not verified anew
    other = transports.of(second).certificate
    assert other is not None and other.spiffe_id == "spiffe://a/other"
