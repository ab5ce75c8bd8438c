"""A decision is acted on once, with its obligations met, whoever holds it: what is recorded of it is what happened."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from sidecar.chain import strictjson
from sidecar.client import Ask, AsyncGuard, Decision, Guard, NoDecision, Obligation, Status, UnmetObligation
from sidecar.errors import UsageError
from tests.api.running import Running, running
from tests.decide.engines import ALLOW, ScriptedEngine

ACCOUNT = ("account", "acct-17")
CONDITION = {**ALLOW, "obligations": [{"kind": "notify", "parameters": {"to": ["ann"]}}]}
Story = Callable[[Running, AsyncGuard, list[str]], Awaitable[None]]


def run(place: Path, story: Story) -> list[tuple[str, str]]:
    """``story`` with a guard that notes what obligations it met. Gives each OUTCOME's decision and status."""
    met: list[str] = []

    def notify(obligation: Obligation, decision: Decision) -> None:
        met.append(decision.decision_id)

    async def main() -> list[tuple[str, str]]:
        async with running(place, ScriptedEngine(lambda _: CONDITION)) as up:
            async with AsyncGuard(up.address, agent="billing-agent", obligations={"notify": notify}) as guard:
                await story(up, guard, met)
            stored = (strictjson.parse_object(up.ledger.entry(n).payload) for n in range(up.ledger.position().next_seq))
            return [(each["decision_id"], each["status"]) for each in stored if each["type"] == "OUTCOME"]

    return asyncio.run(main())


def test_what_was_blocked_is_not_done_under_the_same_key_later(tmp_path: Path) -> None:
    """It ran, and the ledger went on saying that it was blocked."""
    ran: list[str] = []

    async def story(up: Running, guard: AsyncGuard, met: list[str]) -> None:
        about: Any = {"idempotency_key": "invoice-7"}
        async with AsyncGuard(up.address, agent="billing-agent") as unable:
            with pytest.raises(UnmetObligation) as blocked:
                async with unable.guarded("payments.transfer", ACCOUNT, **about):
                    ran.append("unable")
            with pytest.raises(UsageError, match="was acted on, or blocked"):
                async with unable.acting(blocked.value.decision):
                    ran.append("blocked")
        with pytest.raises(NoDecision, match="idempotency_key: stands for a decision whose outcome is recorded"):
            async with guard.guarded("payments.transfer", ACCOUNT, **about):
                ran.append("again")
        assert not met

    outcomes = run(tmp_path, story)
    assert [status for _, status in outcomes] == ["blocked"] and not ran


def test_what_was_done_is_not_done_again_after_a_restart(tmp_path: Path) -> None:
    async def first(up: Running, guard: AsyncGuard, met: list[str]) -> None:
        decision = await guard.check("payments.transfer", ACCOUNT, idempotency_key="invoice-7")
        again = await guard.check("payments.transfer", ACCOUNT, idempotency_key="invoice-7")  # an answer that was lost
        assert again == decision
        await guard.report(decision.decision_id, Status.EXECUTED)

    async def then(up: Running, guard: AsyncGuard, met: list[str]) -> None:
        with pytest.raises(NoDecision, match="whose outcome is recorded"):
            await guard.check("payments.transfer", ACCOUNT, idempotency_key="invoice-7")
        await guard.check("payments.transfer", ACCOUNT, idempotency_key="invoice-8")

    assert run(tmp_path, first) == run(tmp_path, then)


@pytest.mark.parametrize("how", ["ask", "ask_many", "stream"])
def test_what_was_only_asked_for_is_acted_on_once_and_under_its_conditions(tmp_path: Path, how: str) -> None:
    """`acting` ran under any ALLOW, whatever it was allowed under, as often as it was entered."""
    acted: list[str] = []

    async def asked(guard: AsyncGuard) -> Decision | NoDecision:
        if how == "ask_many":
            return (await guard.ask_many([Ask("payments.transfer", ACCOUNT)]))[0]
        if how == "ask":
            return await guard.ask("payments.transfer", ACCOUNT)
        async with guard.stream() as stream:
            return await stream.ask("payments.transfer", ACCOUNT)

    async def story(up: Running, guard: AsyncGuard, met: list[str]) -> None:
        decision = await asked(guard)
        assert isinstance(decision, Decision) and not met
        async with guard.acting(decision):
            assert met == [decision.decision_id]
            acted.append(decision.decision_id)
        with pytest.raises(UsageError, match="ask anew"):
            async with guard.acting(decision):
                acted.append("twice")
        async with AsyncGuard(up.address, agent="billing-agent") as unable:
            other = await asked(unable)
            assert isinstance(other, Decision)
            with pytest.raises(UnmetObligation):
                async with unable.acting(other):
                    acted.append("unmet")
        assert met == acted == [decision.decision_id]

    assert [status for _, status in run(tmp_path, story)] == ["executed", "blocked"]


def test_for_threads_too(tmp_path: Path) -> None:
    acted: list[str] = []

    def act(address: str) -> None:
        with Guard(address, agent="billing-agent", obligations={"notify": lambda *_: acted.append("met")}) as guard:
            decision = guard.ask("payments.transfer", ACCOUNT)
            with guard.acting(decision):
                acted.append("acted")
            with pytest.raises(UsageError, match="ask anew"), guard.acting(decision):
                acted.append("twice")

    async def story(up: Running, guard: AsyncGuard, met: list[str]) -> None:
        await asyncio.to_thread(act, up.address)

    assert [status for _, status in run(tmp_path, story)] == ["executed"]
    assert acted == ["met", "acted"]
