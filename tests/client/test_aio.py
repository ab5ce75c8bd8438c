"""The asyncio guard against a real grpc.aio server on a unix socket that answers from a script."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import grpc
import pytest

from sidecar.client import (
    ApprovalRequired,
    AsyncGuard,
    Denied,
    NoDecision,
    Status,
    UnmetObligation,
    UnreportedOutcome,
)
from sidecar.errors import RequestError, UsageError
from sidecar.v1 import decision_pb2 as pb
from tests.client.fake_sidecar import AT_ONCE, Abort, FakeSidecar, Silence, allow, answer, deny, running

ACCOUNT = ("account", "acme-42")
AMPLE = 30.0  # seconds; no test here waits for it
MASK = pb.Obligation(kind="mask_fields", parameters=b'{"fields":["iban"]}')


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    # grpc.aio serves one loop per process.
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def drive(loop, tmp_path):
    """Runs ``scenario(guard, server)`` against a scripted sidecar."""

    def run(sidecar: FakeSidecar, scenario: Any, **options: Any) -> Any:
        async def whole() -> Any:
            async with running(sidecar, tmp_path) as server:
                settings = {"timeout": AMPLE, "pace": AT_ONCE, **options}
                async with AsyncGuard(server.address, agent="billing-agent", **settings) as guard:
                    return await scenario(guard, server)

        return loop.run(whole())

    return run


async def transfer(guard: AsyncGuard, ran: list[str]) -> None:
    async with guard.guarded("payments.transfer", ACCOUNT, {"amount": 120}):
        ran.append("transfer")


def test_allow_runs_the_action_once_and_reports_it(drive):
    sidecar, ran = FakeSidecar(allow()), []

    async def scenario(guard, _):
        async with guard.guarded("payments.transfer", ACCOUNT, {"amount": 120}, purpose="invoice") as permit:
            ran.append("transfer")
            permit.respond({"transaction": "t-7"})

    drive(sidecar, scenario)
    assert ran == ["transfer"]
    assert sidecar.outcomes == [("d-1", "EXECUTED")]
    assert len(sidecar.deadlines) == 2
    assert all(left is not None and left < AMPLE + 1 for left in sidecar.deadlines)
    assert json.loads(sidecar.told[0].response) == {"transaction": "t-7"}
    assert sidecar.asked[0].purpose == "invoice"
    assert json.loads(sidecar.asked[0].arguments) == {"amount": 120}


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (deny(), Denied),
        (answer(pb.EFFECT_REQUIRE_APPROVAL), ApprovalRequired),
        (answer(pb.EFFECT_UNSPECIFIED), NoDecision),
        (answer(99), NoDecision),
        (allow(spoil=lambda good: good.replace(b"ALLOW", b"DENY")), NoDecision),
        (Abort(grpc.StatusCode.UNAVAILABLE), NoDecision),
        (Abort(grpc.StatusCode.CANCELLED), NoDecision),
        (Abort(grpc.StatusCode.INVALID_ARGUMENT), NoDecision),
    ],
)
def test_without_an_allow_it_does_not_run(drive, reply, error):
    sidecar, ran = FakeSidecar(*[reply] * 4), []

    async def scenario(guard, _):
        with pytest.raises(error):
            await transfer(guard, ran)

    drive(sidecar, scenario)
    assert ran == []
    assert sidecar.outcomes == []
    again = isinstance(reply, Abort) and reply.code is not grpc.StatusCode.INVALID_ARGUMENT
    assert len(sidecar.asked) == (4 if again else 1)
    assert len({*sidecar.raw}) == 1


def test_a_slow_sidecar_is_no_permission(drive):
    sidecar, ran = FakeSidecar(*[Silence()] * 4), []

    async def scenario(guard, _):
        with pytest.raises(NoDecision, match=r"none within 0\.2 s") as caught:
            await transfer(guard, ran)
        return caught.value.cause

    assert drive(sidecar, scenario, timeout=0.2) == "timeout"
    assert ran == []
    assert sidecar.deadlines[0] < 1


def test_a_cancelled_question_is_no_permission(drive):
    sidecar, ran = FakeSidecar(Silence()), []

    async def scenario(guard, server):
        asking = asyncio.create_task(transfer(guard, ran))
        await server.silent.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    drive(sidecar, scenario)
    assert ran == []
    assert sidecar.outcomes == []


def test_no_sidecar_and_a_sidecar_that_goes_away(drive, loop, tmp_path):
    ran: list[str] = []

    async def nobody() -> None:
        async with AsyncGuard(f"unix:{tmp_path}/none.sock", agent="a", timeout=AMPLE, attempts=1) as guard:
            with pytest.raises(NoDecision) as caught:
                await transfer(guard, ran)
            assert caught.value.cause == "unreachable"

    loop.run(nobody())
    sidecar = FakeSidecar(allow("d-1"), allow("d-2"))

    async def scenario(guard, server):
        await transfer(guard, ran)
        await server.server.stop(None)
        with pytest.raises(NoDecision):
            await transfer(guard, ran)

    drive(sidecar, scenario, attempts=1)
    assert ran == ["transfer"]
    assert sidecar.outcomes == [("d-1", "EXECUTED")]


def test_a_sidecar_that_goes_away_during_the_action_leaves_the_result(drive):
    sidecar, lost = FakeSidecar(allow()), []

    async def scenario(guard, server):
        @guard.guarded("payments.transfer", ACCOUNT)
        async def pay() -> str:
            await server.server.stop(None)
            return "paid"

        return await pay(), guard.unreported

    assert drive(sidecar, scenario, on_unreported=lost.append, attempts=1) == ("paid", 1)
    assert [(u.decision_id, u.status) for u in lost] == [("d-1", Status.EXECUTED)]


@pytest.mark.parametrize("error", [ValueError("downstream said no"), SystemError()])
def test_an_action_that_fails_is_reported_and_its_error_goes_on(drive, error):
    sidecar = FakeSidecar(allow())

    async def scenario(guard, _):
        with pytest.raises(type(error)) as caught:
            async with guard.guarded("a", ACCOUNT):
                raise error
        assert caught.value is error

    drive(sidecar, scenario)
    assert sidecar.outcomes == [("d-1", "FAILED")]


def test_a_cancelled_action_is_reported_as_failed(drive):
    sidecar = FakeSidecar(allow())

    async def scenario(guard, _):
        started = asyncio.Event()

        @guard.guarded("a", ACCOUNT)
        async def endless() -> None:
            started.set()
            await asyncio.Event().wait()

        action = asyncio.create_task(endless())
        await started.wait()
        action.cancel()
        with pytest.raises(asyncio.CancelledError):
            await action

    drive(sidecar, scenario)
    assert sidecar.outcomes == [("d-1", "FAILED")]


def test_a_report_cut_short_is_sent_once_more_and_the_cancellation_goes_on(drive):
    """As where a loop ends: what a cancelled run still does is cancelled once more."""
    sidecar, lost = FakeSidecar(allow(), report_fault=Silence()), []

    async def scenario(guard, server):
        @guard.guarded("a", ACCOUNT)
        async def broken() -> None:
            raise KeyError("broken")

        action = asyncio.create_task(broken())
        await server.silent.wait()
        sidecar.report_fault = None
        action.cancel()
        with pytest.raises(asyncio.CancelledError):
            await action

    drive(sidecar, scenario, on_unreported=lost.append)
    assert sidecar.outcomes == [("d-1", "FAILED")] * 2 and not lost


def test_a_report_cut_short_twice_is_counted(drive):
    sidecar, ran, lost = FakeSidecar(allow(), report_fault=Silence()), [], []

    async def scenario(guard, server):
        action = asyncio.create_task(transfer(guard, ran))
        for _ in range(2):  # after the first it is sent once more
            await server.silent.wait()
            server.silent.clear()
            action.cancel()
        with pytest.raises(asyncio.CancelledError):
            await action

    drive(sidecar, scenario, on_unreported=lost.append)
    assert ran == ["transfer"]
    assert lost == [UnreportedOutcome("d-1", Status.EXECUTED, "CancelledError")]


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_known_obligation_is_met_before_the_action(drive, asynchronous):
    sidecar, order = FakeSidecar(allow(obligations=[MASK])), []

    def mask(obligation, _):
        order.append(obligation.parameters)

    async def mask_later(obligation, decision):
        mask(obligation, decision)

    async def scenario(guard, _):
        async with guard.guarded("a", ACCOUNT):
            order.append("action")

    drive(sidecar, scenario, obligations={"mask_fields": mask_later if asynchronous else mask})
    assert order == [{"fields": ["iban"]}, "action"]


async def failing_handler(*_: object) -> None:
    raise RuntimeError


@pytest.mark.parametrize("obligations", [{}, {"mask_fields": failing_handler}])
def test_an_obligation_unknown_or_unmet_blocks(drive, obligations):
    sidecar, ran = FakeSidecar(allow(obligations=[MASK])), []

    async def scenario(guard, _):
        with pytest.raises(UnmetObligation):
            await transfer(guard, ran)

    drive(sidecar, scenario, obligations=obligations)
    assert ran == []
    assert sidecar.outcomes == [("d-1", "BLOCKED")]


def test_a_decorated_action_is_judged_by_its_own_arguments(drive):
    sidecar, paid = FakeSidecar(allow("d-1"), deny("d-2"), allow("d-3")), []

    async def scenario(guard, _):
        @guard.guarded("payments.transfer", resource=lambda amount, to: ("account", to))
        async def pay(amount: int, to: str) -> int:
            """Pays."""
            paid.append((amount, to))
            return amount

        assert pay.__doc__ == "Pays."
        assert await pay(5, to="acme") == 5
        with pytest.raises(Denied):
            await pay(6, "evil")
        with pytest.raises(RequestError):
            await pay(object(), "acme")

    drive(sidecar, scenario)
    assert paid == [(5, "acme")]
    assert sidecar.outcomes == [("d-1", "EXECUTED")]
    assert [(q.resource.id, json.loads(q.arguments), q.last_receipt) for q in sidecar.asked] == [
        ("acme", {"amount": 5, "to": "acme"}, b""),
        ("evil", {"amount": 6, "to": "evil"}, sidecar.given[1]),
    ]


def test_actions_side_by_side_keep_their_own_decisions(drive):
    sidecar = FakeSidecar(*(allow(f"d-{i}") for i in range(20)))

    async def scenario(guard, _):
        @guard.guarded("a", ACCOUNT)
        async def act(number: int) -> int:
            if number % 2:
                raise LookupError
            return number

        calls: list[Coroutine[Any, Any, int]] = [act(i) for i in range(20)]
        return await asyncio.gather(*calls, return_exceptions=True)

    results = drive(sidecar, scenario)
    assert [r if isinstance(r, int) else type(r) for r in results] == [LookupError if i % 2 else i for i in range(20)]
    assert len({d for d, _ in sidecar.outcomes}) == 20
    assert sorted(s for _, s in sidecar.outcomes) == ["EXECUTED"] * 10 + ["FAILED"] * 10


class Transfer:
    """An action that is an object."""

    def __init__(self, ran: list[int]) -> None:
        self._ran = ran

    async def __call__(self, amount: int) -> int:
        await asyncio.sleep(0)
        self._ran.append(amount)
        if amount > 100:
            raise LookupError
        return amount


DISGUISES: dict[str, Callable[[Transfer], Callable[..., Any]]] = {
    "an object": lambda act: act,
    "a partial": lambda act: functools.partial(act, amount=7),
    "a decorator's": lambda act: lambda amount: act(amount),
    "a task's": lambda act: lambda amount: asyncio.ensure_future(act(amount)),
}


@pytest.mark.parametrize("disguise", DISGUISES.values(), ids=DISGUISES)
def test_what_returns_an_awaitable_is_awaited_before_its_outcome_is_told(drive, disguise):
    sidecar, ran = FakeSidecar(allow("d-1"), allow("d-2"), deny("d-3")), []

    async def scenario(guard, _):
        act = guard.guarded("a", ACCOUNT)(disguise(Transfer(ran)))
        assert await act(amount=7) == 7
        with pytest.raises(LookupError):
            await act(amount=101)
        with pytest.raises(Denied):
            await act(amount=8)

    drive(sidecar, scenario)
    assert ran == [7, 101]
    assert sidecar.outcomes == [("d-1", "EXECUTED"), ("d-2", "FAILED")]
    assert [json.loads(q.arguments) for q in sidecar.asked] == [{"amount": 7}, {"amount": 101}, {"amount": 8}]


def test_a_plain_function_is_over_when_it_returns(drive):
    sidecar = FakeSidecar(allow("d-1"))

    async def scenario(guard, _):
        assert await guard.guarded("a", ACCOUNT)(lambda amount: amount + 1)(1) == 2

    drive(sidecar, scenario)
    assert sidecar.outcomes == [("d-1", "EXECUTED")]


def test_a_generator_is_refused_when_decorated():
    async def some():
        yield 1

    class Some:
        async def __call__(self):
            yield 1

    for each in (some, functools.partial(some), Some()):
        with pytest.raises(UsageError, match="generator"):
            AsyncGuard("localhost:1", agent="a").guarded("a", ACCOUNT)(each)


def test_a_permit_is_for_one_run(drive):
    async def scenario(guard, _):
        once = guard.guarded("a", ACCOUNT)
        async with once:
            pass
        with pytest.raises(UsageError, match="one run"):
            async with once:
                raise AssertionError("the body ran")

    drive(FakeSidecar(allow(), allow()), scenario)


def test_a_guard_serves_one_loop(drive):
    sidecar, ran = FakeSidecar(allow(), allow()), []

    async def scenario(guard, _):
        await transfer(guard, ran)

        def elsewhere() -> None:
            with pytest.raises(UsageError, match="another event loop"):
                asyncio.run(transfer(guard, ran))

        await asyncio.to_thread(elsewhere)

    drive(sidecar, scenario)
    assert ran == ["transfer"]


def test_a_question_that_permits_nothing_and_a_report_of_what_was_run_elsewhere(drive):
    sidecar = FakeSidecar(deny("d-1"), allow("d-2"))

    async def scenario(guard, _):
        assert (await guard.ask("a", ACCOUNT)).decision_id == "d-1"
        with pytest.raises(RequestError, match=r"^response: "):
            await guard.report("d-0", Status.FAILED, float("nan"))
        seq = await guard.report("d-0", Status.FAILED, None)
        await guard.ask("a", ACCOUNT)
        return seq

    assert drive(sidecar, scenario) == 8
    assert [(t.decision_id, t.response) for t in sidecar.told] == [("d-0", b"null")]
    assert sidecar.asked[1].last_receipt == sidecar.given[1]


def test_where_an_executor_is_named_it_reports(drive):
    sidecar = FakeSidecar(allow(permit=b"a permit"), allow(permit=b"p", obligations=[MASK]))

    async def scenario(guard, _):
        async with guard.guarded("payments.transfer", ACCOUNT, {"amount": 120}, executor="payments-api") as permit:
            handed_on = permit.decision.permit, permit.decision.executor
        with pytest.raises(UnmetObligation):
            await guard.check("payments.transfer", ACCOUNT, executor="payments-api")
        return handed_on

    assert drive(sidecar, scenario) == (b"a permit", "payments-api")
    assert sidecar.told == []
