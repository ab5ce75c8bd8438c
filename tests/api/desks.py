"""A server where things wait for approvals: a registry, a policy that a test scripts, people who sign."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from sidecar.api import Metrics
from sidecar.api.messages import request_of
from sidecar.chain import strictjson
from sidecar.chain.digests import Approval, arguments_digest, read_digest
from sidecar.chain.registry import parse
from sidecar.chain.request import recorded
from sidecar.decide import Registered
from sidecar.v1 import decision_pb2 as pb
from sidecar.v1 import decision_pb2_grpc as grpc_stubs
from tests.api.running import Running, running
from tests.decide.engines import ScriptedEngine
from tests.people import Signing, person, registry_text

PEOPLE = (
    person("billing-agent", "agent", "finance"),
    person("other-agent", "agent"),
    person("ann", "approver", "lead"),
    person("bob", "approver", "lead"),
    person("cleo", "approver"),
    person("ursula", "user"),
)
WHY = [{"code": "large", "message": "a large amount"}]


@dataclass
class Policy:
    """Requires an approval with these terms until it sees ``enough``; then it answers ``after``."""

    terms: dict[str, Any] = field(default_factory=dict)
    after: str = "ALLOW"
    enough: int = 1

    def __call__(self, document: dict[str, Any]) -> object:
        if len(document["approvals"]) >= self.enough:
            return {"effect": self.after, "reasons": WHY}
        return {"effect": "REQUIRE_APPROVAL", "reasons": WHY, "approval": self.terms}


@dataclass
class Clock:
    """The sidecar's wall clock, which a test puts forward. ``ahead`` in ns."""

    ahead: int = 0

    def __call__(self) -> int:
        return time.time_ns() + self.ahead


@dataclass
class Desk:
    """One running server and everybody's keys."""

    up: Running
    policy: Policy
    engine: ScriptedEngine
    clock: Clock
    metrics: Metrics
    signing: Signing
    approvals: grpc_stubs.ApprovalServiceAsyncStub

    async def know(self, *people: dict[str, Any]) -> None:
        """Put a registry in force."""
        await self.up.in_force.put_registry(_registered(people))

    def sign(self, kind: str, by: str, digest: bytes, **changes: Any) -> pb.Signature:
        return self.signing.sign(kind, by, digest, **{"time_ns": self.clock(), **changes})

    async def ask(self, **changes: Any) -> pb.DecideResponse:
        fields: dict[str, Any] = {
            "agent": "billing-agent", "action": "payments.transfer", "arguments": b'{"amount": 9000}',
            "resource": pb.Resource(type="account", id="acct-17"), "purpose": "an invoice",
        }  # fmt: skip
        asked = pb.DecideRequest(**(fields | changes))
        asked.signature.CopyFrom(self.sign("request", asked.agent, request_of(asked).digest()))
        return await self.up.decisions.Decide(asked)

    def word(self, by: str, of: pb.DecideResponse, verdict: str = "approve", altered: Any = None) -> pb.ApproveRequest:
        """What an approver sends; fields ``altered`` after it was signed."""
        sent = self.signed_for(by, of, of.decision_id, verdict)
        sent.MergeFrom(pb.ApproveRequest(**(altered or {})))
        return sent

    def signed_for(
        self, by: str, of: pb.DecideResponse, named: str, verdict: str = "approve", comment: str = "seen"
    ) -> pb.ApproveRequest:
        """Properly signed: what is decision ``of``'s, said of the decision ``named``."""
        payload, asked = self.payload(of.seq), recorded(self.payload(of.seq))
        said = Approval(
            by, named, verdict, asked.action_digest(), arguments_digest(asked.wanted.arguments),
            payload["policy"]["bundle_digest"], payload["policy"]["revision"], comment,
        )  # fmt: skip
        return pb.ApproveRequest(
            by=by, decision_id=named, verdict=VERDICTS[verdict], action_digest=said.action_digest,
            arguments_digest=said.arguments_digest, policy_revision=said.policy_revision,
            bundle_digest=said.bundle_digest, comment=comment, signature=self.sign("approval", by, said.digest()),
        )  # fmt: skip

    async def approve(self, by: str, of: pb.DecideResponse, verdict: str = "approve") -> pb.ApproveResponse:
        return await self.approvals.Approve(self.word(by, of, verdict))

    async def listed(self, by: str) -> pb.ListApprovalsResponse:
        signature = self.sign("read", by, read_digest(by, "approvals", ""))
        return await self.approvals.ListApprovals(pb.ListApprovalsRequest(by=by, signature=signature))

    def watch(self, by: str, decision_id: str) -> Any:
        signature = self.sign("read", by, read_digest(by, "watch", decision_id))
        return self.approvals.WatchApproval(
            pb.WatchApprovalRequest(by=by, decision_id=decision_id, signature=signature)
        )

    async def state(self, by: str, decision_id: str) -> int:
        """Polling: the first state."""
        call = self.watch(by, decision_id)
        first = await call.read()
        call.cancel()
        return int(first.what)

    def payload(self, seq: int) -> dict[str, Any]:
        return self.up.ledger.payload(seq)

    def last(self) -> dict[str, Any]:
        """The last entry's payload."""
        return self.payload(self.up.ledger.position().next_seq - 1)

    def entries(self, kind: str) -> list[dict[str, Any]]:
        """All payloads of one type."""
        every = (
            strictjson.parse_object(self.up.ledger.entry(n).payload) for n in range(self.up.ledger.position().next_seq)
        )
        return [payload for payload in every if payload["type"] == kind]

    def count(self, series: str) -> float:
        """A counter now."""
        lines = self.metrics.page().decode().splitlines()
        return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(series + " "))

    async def refused(self, call: Any, status: str, **entry: Any) -> str:
        """The call is refused with this status and a REJECTED entry with these members; its words."""
        before = len(self.entries("REJECTED"))
        rejected = f'sidecar_rejected_total{{code="{status}"}}'
        count = self.count(rejected)
        try:
            await call
        except grpc.aio.AioRpcError as error:
            assert error.code().name == status, error.details()
            told = str(error.details())
        else:
            raise AssertionError("it was taken")
        assert len(self.entries("REJECTED")) == before + 1
        last = self.entries("REJECTED")[-1]
        assert {name: last[name] for name in entry} == entry
        assert last["code"] == status
        assert self.count(rejected) == count + 1
        return told


VERDICTS = {"approve": pb.APPROVAL_VERDICT_APPROVE, "reject": pb.APPROVAL_VERDICT_REJECT}


def _registered(people: Iterable[dict[str, Any]]) -> Registered:
    return Registered(parse(registry_text(*people)), "file", "/registry.json")


@contextlib.asynccontextmanager
async def desk(
    place: Path, policy: Policy | None = None, clock: Clock | None = None,
    **settings: Any,
) -> AsyncIterator[Desk]:  # fmt: skip
    """A desk over the ledger in a directory, new or as it was left; the registry is :data:`PEOPLE`."""
    policy, clock, metrics = policy or Policy(), clock or Clock(), Metrics("test")
    engine = ScriptedEngine(policy)
    settings = {"development": False, **settings}
    async with running(place, engine, metrics=metrics, wall_ns=clock, registry=_registered(PEOPLE), **settings) as up:
        at = up.ledger.position()
        approvals = grpc_stubs.ApprovalServiceStub(up.channel)
        made = Desk(up, policy, engine, clock, metrics, Signing(at.chain_id, at.epoch), approvals)
        yield made
