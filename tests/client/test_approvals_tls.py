"""Approving and reporting over TLS: the caller's certificate counts too, and does not stand in for a signature."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from sidecar.api import ServerTls, Transports, half
from sidecar.client import (
    AgentKey,
    ApprovalRequired,
    Approver,
    Effect,
    FileSource,
    Guard,
    NoDecision,
    Status,
    TlsFiles,
)
from sidecar.client.act import Act
from sidecar.client.permits import PermitCheck
from sidecar.client.reporter import AsyncReporter, Reporter
from sidecar.errors import UsageError
from sidecar.v1 import decision_pb2 as pb
from sidecar.v1 import decision_pb2_grpc as grpc_stubs
from tests.api.desks import Desk, desk
from tests.api.tls_files import NAME, Files, channel, server_certificate
from tests.authorities import Authority, Issued
from tests.people import key, person

CA = Authority("ca")
ASK = ("payments.transfer", ("account", "acct-17"), {"amount": 9000})
WHO = (("billing-agent", "agent"), ("ann", "approver"), ("crm-api", "executor"))
AMPLE = 60.0
CERTIFICATES = {name: CA.issue(f"spiffe://a/{name}") for name, _ in WHO}


@contextlib.asynccontextmanager
async def served(tmp_path: Path) -> AsyncIterator[Desk]:
    """Everybody has a key and a SPIFFE id; of callers a certificate alone is required."""
    place = tmp_path / "server"
    place.mkdir()
    tls = ServerTls(FileSource(Files(place).write(server_certificate(CA), CA).paths, half(mutual=True)))
    people = [person(name, kind, spiffe_ids=[{"id": f"spiffe://a/{name}"}]) for name, kind in WHO]
    async with desk(tmp_path, tls=tls, transports=Transports(tls.bundles), require=("mtls",)) as made:
        await made.know(*people)
        yield made


def shown(tmp_path: Path, name: str) -> TlsFiles:
    place = tmp_path / name
    place.mkdir(exist_ok=True)
    return TlsFiles(*Files(place).write(CERTIFICATES[name], CA).paths, NAME)


def approver(tmp_path: Path, d: Desk, certificate: str = "ann") -> Approver:
    own = AgentKey(key("ann"))
    return Approver(d.up.address, by="ann", key=own, timeout=AMPLE, tls=shown(tmp_path, certificate))


def test_agent_approver_and_executor_over_tls(tmp_path: Path) -> None:
    """The whole way: asked by certificate, approved by certificate and signature, permitted, reported."""

    def agent(d: Desk) -> bytes:
        tls = shown(tmp_path, "billing-agent")
        with Guard(d.up.address, agent="billing-agent", timeout=AMPLE, tls=tls) as guard:
            with pytest.raises(ApprovalRequired) as needs:
                guard.check(*ASK, executor="crm-api")
            with approver(tmp_path, d) as one:
                (pending,), _ = one.list()
                assert one.approve(pending) == "approved"
            allowed = guard.wait_for_approval(needs.value, AMPLE)
            assert allowed.effect is Effect.ALLOW
            return allowed.permit

    async def main() -> None:
        async with served(tmp_path) as d:
            brought = await asyncio.to_thread(agent, d)
            (approval,) = d.entries("APPROVAL")
            assert (approval["by"]["id"], approval["by"]["spiffe_id"]) == ("ann", "spiffe://a/ann")
            assert approval["by"]["proof"].startswith("signature") and approval["by"]["certificate"]
            chain, identity = d.up.ledger.position().chain_id.hex(), d.payload(0)["identity"]
            permit = PermitCheck(chain=chain, identity=identity, executor="crm-api").check(
                brought, action=ASK[0], resource=ASK[1], arguments=ASK[2]
            )
            tls, act = shown(tmp_path, "crm-api"), Act(permit)
            act.end()
            with Reporter(d.up.address, executor="crm-api", key=None, chain=chain, timeout=AMPLE, tls=tls) as reports:
                first = await asyncio.to_thread(reports.report, act, Status.EXECUTED)
            async with AsyncReporter(
                d.up.address, executor="crm-api", key=None, chain=chain, timeout=AMPLE, tls=tls
            ) as again:
                assert await again.report(act, Status.EXECUTED) == first
            assert [(e["by"]["id"], e["by"]["proof"]) for e in d.entries("OUTCOME")] == [("crm-api", "mtls")]

    asyncio.run(main())


def raw(d: Desk, certificate: Issued) -> tuple[Any, grpc.aio.Channel]:
    opened = channel(d.up.address, CA, certificate)
    return grpc_stubs.ApprovalServiceStub(opened), opened


def test_a_certificate_alone_approves_nothing_and_anothers_does_not_do(tmp_path: Path) -> None:
    def asked(d: Desk) -> None:
        tls = shown(tmp_path, "billing-agent")
        with (
            Guard(d.up.address, agent="billing-agent", timeout=AMPLE, tls=tls) as guard,
            pytest.raises(ApprovalRequired),
        ):
            guard.check(*ASK)

    async def main() -> None:
        async with served(tmp_path) as d:
            await asyncio.to_thread(asked, d)
            decision = pb.DecideResponse(
                seq=d.up.ledger.position().next_seq - 1, decision_id=d.last()["decision_id"]
            )  # fmt: skip
            stub, opened = raw(d, CERTIFICATES["ann"])
            for verdict in ("approve", "reject"):
                word = d.word("ann", decision, verdict)
                word.ClearField("signature")
                about = {"principal": "ann", "decision_id": decision.decision_id}
                assert "always signed" in await d.refused(stub.Approve(word), "UNAUTHENTICATED", **about)
            assert d.count('sidecar_unproved_total{why="no signature"}') == 2
            with (  # ann's key behind the agent's certificate
                approver(tmp_path, d, "billing-agent") as one,
                pytest.raises(NoDecision, match="PERMISSION_DENIED"),
            ):
                await asyncio.to_thread(one.list)
            stolen, other = raw(d, CERTIFICATES["billing-agent"])
            await d.refused(stolen.Approve(d.word("ann", decision)), "PERMISSION_DENIED")
            assert d.count('sidecar_unproved_total{why="name"}') == 2
            assert not d.entries("APPROVAL")
            await opened.close()
            await other.close()

    asyncio.run(main())


def test_a_channel_that_is_given_has_its_own_credentials(tmp_path: Path) -> None:
    with (
        grpc.insecure_channel("127.0.0.1:1") as given,
        pytest.raises(UsageError, match="credentials of its own"),
    ):
        Approver(given, by="ann", key=AgentKey(key("ann")), tls=shown(tmp_path, "ann"))
