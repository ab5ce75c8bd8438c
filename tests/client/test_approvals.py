"""Waiting for an approval, approving, delegating: the SDK against a real sidecar."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from sidecar.client import (
    AgentKey,
    ApprovalRequired,
    Approver,
    AsyncApprover,
    AsyncGuard,
    Decision,
    Denied,
    Effect,
    Guard,
    NoDecision,
    NotApproved,
    Pending,
    delegate,
    dump_delegation,
    load_delegation,
)
from sidecar.errors import RequestError, UsageError
from tests.api.desks import Desk, Policy, desk
from tests.people import key

ASK = ("payments.transfer", ("account", "acct-17"), {"amount": 9000})
PATIENCE = 60.0


def run(place: Path, story: Callable[[Desk, AsyncGuard], Awaitable[None]], **given: Any) -> None:
    async def main() -> None:
        async with desk(place, **given) as made, guard(place) as asking:
            await story(made, asking)

    asyncio.run(main())


def guard(place: Path, **more: Any) -> AsyncGuard:
    return AsyncGuard(f"unix:{place}/s.sock", agent="billing-agent", key=AgentKey(key("billing-agent")), **more)


def approver(place: Path, by: str = "ann") -> Approver:
    return Approver(f"unix:{place}/s.sock", by=by, key=AgentKey(key(by)))


async def word(place: Path, say: Callable[[Approver, Pending], str], by: str = "ann") -> str:
    """What an approver, in a thread, does with the oldest that waits for it."""

    def work() -> str:
        with approver(place, by) as one:
            pending, more = one.list()
            assert not more
            return say(one, pending[0])

    return await asyncio.to_thread(work)


async def required(asking: AsyncGuard) -> ApprovalRequired:
    with pytest.raises(ApprovalRequired) as raised:
        await asking.check(*ASK, purpose="an invoice")
    return raised.value


def test_an_agent_waits_and_is_allowed(tmp_path: Path) -> None:
    async def story(d: Desk, asking: AsyncGuard) -> None:
        needs = await required(asking)
        assert needs.decision.approval is not None
        assert (needs.decision.approval.count, needs.decision.approval.roles) == (2, ("lead",))
        waiting = asyncio.ensure_future(asking.wait_for_approval(needs, PATIENCE))

        def approve(one: Approver, pending: Pending) -> str:
            assert (pending.decision_id, pending.agent) == (needs.decision_id, "billing-agent")
            assert (pending.action, pending.resource, pending.arguments) == (ASK[0], ASK[1], '{"amount":9000}')
            assert (pending.purpose, pending.reasons[0].code) == ("an invoice", "large")
            return one.approve(pending, "seen")

        assert await word(tmp_path, approve) == "pending"
        assert await word(tmp_path, approve, "bob") == "approved"
        allowed = await waiting
        assert allowed.effect is Effect.ALLOW
        assert [e["comment"] for e in d.entries("APPROVAL")] == ["seen", "seen"]
        again = await asking.wait_for_approval(needs.decision, PATIENCE)  # as after a restart of the agent
        assert (again.decision_id, again.receipt) == (allowed.decision_id, allowed.receipt)

    run(tmp_path, story, policy=Policy({"count": 2, "roles": ["lead"]}, enough=2))


def test_a_guard_for_threads_waits_too(tmp_path: Path) -> None:
    async def story(d: Desk, asking: AsyncGuard) -> None:
        def work() -> Decision:
            with Guard(f"unix:{tmp_path}/s.sock", agent="billing-agent", key=AgentKey(key("billing-agent"))) as own:
                with pytest.raises(ApprovalRequired) as needs:
                    own.check(*ASK)
                with approver(tmp_path) as one:
                    one.approve(one.list()[0][0])
                return own.wait_for_approval(needs.value, PATIENCE)

        assert (await asyncio.to_thread(work)).effect is Effect.ALLOW

    run(tmp_path, story)


def test_an_approver_on_asyncio_lists_approves_and_rejects(tmp_path: Path) -> None:
    async def story(d: Desk, asking: AsyncGuard) -> None:
        first = await required(asking)
        address = f"unix:{tmp_path}/s.sock"
        async with AsyncApprover(address, by="ann", key=AgentKey(key("ann"))) as ann:
            (pending,), more = await ann.list()
            assert (pending.decision_id, more) == (first.decision_id, False)
            assert await ann.approve(pending, "seen") == "approved"
            assert await ann.approve(pending, "seen") == "approved"  # the same words again
            with pytest.raises(NoDecision, match="FAILED_PRECONDITION"):
                await ann.approve(pending, "and again")
            assert (await asking.wait_for_approval(first, PATIENCE)).effect is Effect.ALLOW
            await required(asking)
            (pending,), _ = await ann.list()
            assert await ann.reject(pending) == "rejected"
        async with AsyncApprover(address, by="ann", key=AgentKey(key("bob"))) as mallory:
            with pytest.raises(NoDecision, match="UNAUTHENTICATED"):
                await mallory.list()
        assert [each["verdict"] for each in d.entries("APPROVAL")] == ["approve", "reject"]
        assert [each["by"]["proof"] for each in d.entries("APPROVAL")] == ["signature", "signature"]

    run(tmp_path, story)


def test_an_approver_on_asyncio_whose_word_is_cancelled_says_it_again(tmp_path: Path) -> None:
    async def story(d: Desk, asking: AsyncGuard) -> None:
        await required(asking)
        async with AsyncApprover(f"unix:{tmp_path}/s.sock", by="ann", key=AgentKey(key("ann"))) as ann:
            (pending,), _ = await ann.list()
            said = asyncio.ensure_future(ann.approve(pending))
            await asyncio.sleep(0)
            said.cancel()
            with pytest.raises(asyncio.CancelledError):
                await said
            assert await ann.approve(pending) == "approved"
        assert len(d.entries("APPROVAL")) == 1

    run(tmp_path, story)


@pytest.mark.parametrize("state", ["rejected", "pending", "expired"])
def test_nobody_approves(tmp_path: Path, state: str) -> None:
    async def story(d: Desk, asking: AsyncGuard) -> None:
        needs = await required(asking)
        if state == "rejected":
            assert await word(tmp_path, lambda one, pending: one.reject(pending, "no")) == "rejected"
        with pytest.raises(NotApproved) as raised:
            await asking.wait_for_approval(needs, 0.2 if state == "pending" else PATIENCE)
        assert raised.value.state == state
        assert len(d.entries("DECISION")) == 1

    run(tmp_path, story, policy=Policy({"expires_seconds": 1} if state == "expired" else {}))


def test_the_policy_may_deny_in_spite_of_it(tmp_path: Path) -> None:
    async def story(d: Desk, asking: AsyncGuard) -> None:
        needs = await required(asking)
        await word(tmp_path, lambda one, pending: one.approve(pending))
        with pytest.raises(Denied):
            await asking.wait_for_approval(needs, PATIENCE)

    run(tmp_path, story, policy=Policy(after="DENY"))


def test_a_wait_outlives_the_sidecar(tmp_path: Path) -> None:
    """The sidecar starts again, in another epoch: who waits watches on, signed anew."""

    async def main() -> None:
        async with guard(tmp_path) as asking:
            async with desk(tmp_path) as d:
                needs = await required(asking)
                waiting = asyncio.ensure_future(asking.wait_for_approval(needs, PATIENCE))
                while not d.up.path.approvals.watched:  # noqa: ASYNC110  # nobody tells of a new watcher
                    await asyncio.sleep(0)
                d.up.path.approvals.end_watches()
            async with desk(tmp_path) as d:
                await word(tmp_path, lambda one, pending: one.approve(pending))
                assert (await waiting).effect is Effect.ALLOW

    asyncio.run(main())


def test_only_what_it_was_asked_itself_can_be_waited_for(tmp_path: Path) -> None:
    async def story(d: Desk, asking: AsyncGuard) -> None:
        needs = await required(asking)
        unknown = dataclasses.replace(needs.decision, asked=None)
        with pytest.raises(UsageError):
            await asking.wait_for_approval(unknown, PATIENCE)
        with pytest.raises(NoDecision, match="PERMISSION_DENIED"):
            await asyncio.to_thread(approver(tmp_path, "ursula").list)

    run(tmp_path, story)


def test_a_chain_of_delegations_is_made_narrower_at_each_step(tmp_path: Path) -> None:
    first = delegate(
        AgentKey(key("ursula")), "ursula", "ann", ["payments.*"], ["account:*"], seconds=3600, further=1
    )  # fmt: skip
    assert load_delegation(dump_delegation(first)) == first
    narrow = ["payments.transfer"], ["account:acct-*"]
    second = delegate(AgentKey(key("ann")), "ann", "billing-agent", *narrow, seconds=7200, parent=first)
    for wider in ({"actions": ["*"]}, {"resources": ["*"]}, {"further": 1}, {"from_": "bob"}):
        given: dict[str, Any] = {"from_": "ann", "actions": ["payments.*"], "resources": ["account:*"], "further": 0}
        with pytest.raises(RequestError, match="parent"):
            delegate(AgentKey(key("ann")), to="billing-agent", seconds=60, parent=first, **(given | wider))
    for odd in ({"actions": []}, {"resources": ["a*b"]}, {"further": 8}, {"to": ""}):
        given = {"to": "billing-agent", "actions": ["a"], "resources": ["*"], "further": 0}
        with pytest.raises(RequestError, match="delegation"):
            delegate(AgentKey(key("ann")), "ann", seconds=60, **(given | odd))
    for broken in (
        b"",
        b"{}",
        dump_delegation(first).replace(b"account", b"acc\\nount ")[:-9],
        b'{"text":"","key":"","signature":""}',
    ):
        with pytest.raises(RequestError, match="delegations"):
            load_delegation(broken)

    async def story(d: Desk, asking: AsyncGuard) -> None:
        answer = await asking.check(*ASK, delegations=[first, second])
        assert [g["id"] for g in d.payload(answer.seq)["delegators"]] == ["ursula", "ann"]
        with pytest.raises(NoDecision, match="PERMISSION_DENIED"):
            await asking.check(*ASK, delegations=[second])

    run(tmp_path, story, policy=Policy(enough=0))


class _Gone(grpc.RpcError):
    """The connection, with the answer on it."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return "gone"


class _LosesFirst(grpc.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]  # of any message
    """Passes every call on, and loses the first answer to an approval."""

    def __init__(self) -> None:
        self.approved = 0

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        answered = continuation(client_call_details, request)
        if not client_call_details.method.endswith("/Approve"):
            return answered
        self.approved += 1
        if self.approved == 1:
            answered.result()
            raise _Gone
        return answered


def test_an_approval_whose_answer_was_lost_is_taken_once_and_answered(tmp_path: Path) -> None:
    async def story(d: Desk, asking: AsyncGuard) -> None:
        await required(asking)
        losing = _LosesFirst()

        def work() -> str:
            with grpc.insecure_channel(f"unix:{tmp_path}/s.sock") as plain:
                one = Approver(grpc.intercept_channel(plain, losing), by="ann", key=AgentKey(key("ann")))
                return one.approve(one.list()[0][0])

        assert await asyncio.to_thread(work) == "approved"
        assert losing.approved == 2
        assert len(d.entries("APPROVAL")) == 1
        assert not d.entries("REJECTED")

    run(tmp_path, story)
