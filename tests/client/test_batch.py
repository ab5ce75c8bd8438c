"""Several questions in one call: each gets its own answer or its own refusal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc
import pytest

from sidecar.client import Alternative, Ask, AsyncGuard, Decision, Effect, Guard, NoDecision
from sidecar.errors import RequestError
from sidecar.v1 import decision_pb2 as pb
from tests.client.fake_sidecar import AT_ONCE, Abort, FakeSidecar, Refuse, allow, deny, running, scripted_channel

ACCOUNT = ("account", "acme-42")
THREE = [Ask("a", ACCOUNT, {"n": n}) for n in range(3)]
Asking = Callable[..., list[Decision | NoDecision]]


@pytest.fixture(scope="module")
def loop():
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(params=["threads", "asyncio"])
def ask_many(request, loop, tmp_path) -> Asking:
    """Asks a scripted sidecar with either guard; both make the same promises."""

    def by_thread(sidecar: FakeSidecar, *batches):
        guard = Guard(scripted_channel(sidecar), agent="a", pace=AT_ONCE)
        return [guard.ask_many(batch) for batch in batches][-1]

    def by_loop(sidecar: FakeSidecar, *batches):
        async def whole():
            async with (
                running(sidecar, tmp_path) as server,
                AsyncGuard(server.address, agent="a", timeout=30, pace=AT_ONCE) as guard,
            ):
                return [await guard.ask_many(batch) for batch in batches][-1]

        return loop.run(whole())

    return by_thread if request.param == "threads" else by_loop


def test_each_question_has_its_own_answer_in_order(ask_many):
    sidecar = FakeSidecar(allow("d-1"), deny("d-2"), Refuse(3, "arguments: duplicate key"))
    allowed, denied, refused = ask_many(sidecar, THREE)
    assert (allowed.decision_id, allowed.effect) == ("d-1", Effect.ALLOW)
    assert (denied.decision_id, denied.effect) == ("d-2", Effect.DENY)
    assert isinstance(refused, NoDecision)
    assert (refused.cause, "arguments: duplicate key" in str(refused)) == ("refused", True)
    assert [q.arguments for q in sidecar.asked] == [b'{"n":0}', b'{"n":1}', b'{"n":2}']
    assert len({q.idempotency_key for q in sidecar.asked}) == 3


def test_the_latest_receipt_goes_with_the_next_batch(ask_many):
    sidecar = FakeSidecar(allow("d-1"), allow("d-2"), allow("d-3"), Refuse(9, "last_receipt: gone"))
    (lost,) = ask_many(sidecar, THREE, [Ask("a", ACCOUNT)])
    assert sidecar.asked[3].last_receipt == sidecar.given[2]
    assert isinstance(lost, NoDecision)
    assert (lost.receipt, "has lost what it had answered" in str(lost)) == (sidecar.given[2], True)


def test_an_answer_that_is_none_is_no_decision_for_that_question_only(ask_many):
    sidecar = FakeSidecar(allow(spoil=lambda _: b"x"), Refuse(0), allow("d-3"))
    first, second, third = ask_many(sidecar, THREE)
    assert (first.cause, first.receipt) == ("protocol", b"x")
    assert second.cause == "protocol"
    assert third.decision_id == "d-3"


def test_a_lost_batch_is_sent_again_with_the_same_bytes(ask_many):
    sidecar = FakeSidecar(Abort(grpc.StatusCode.UNAVAILABLE), *(allow(f"d-{n}") for n in range(3)))
    assert [answer.decision_id for answer in ask_many(sidecar, THREE)] == ["d-0", "d-1", "d-2"]
    assert len({*sidecar.raw}) == 1


def test_a_refused_batch_raises(ask_many):
    with pytest.raises(NoDecision, match="RESOURCE_EXHAUSTED"):
        ask_many(FakeSidecar(Abort(grpc.StatusCode.RESOURCE_EXHAUSTED)), THREE)


def test_what_cannot_be_sent_is_never_sent(ask_many):
    sidecar = FakeSidecar()
    assert ask_many(sidecar, []) == []
    with pytest.raises(RequestError, match="65 members; the limit is 64"):
        ask_many(sidecar, [Ask("a", ACCOUNT)] * 65)
    with pytest.raises(RequestError, match=r"^arguments: "):
        ask_many(sidecar, [Ask("a", ACCOUNT), Ask("a", ACCOUNT, {"x": float("nan")})])
    assert sidecar.asked == []


def test_a_question_of_a_batch_carries_all_that_a_single_one_does(ask_many):
    verdict = pb.AlternativeVerdict(effect=pb.EFFECT_ALLOW)
    sidecar = FakeSidecar(allow(alternatives=[verdict]))
    draft = Alternative("payments.draft", ("draft", "new"))
    question = Ask("a", ACCOUNT, {}, {"hour": 9}, "why", [draft], "k-1", "00-" + "a" * 32 + "-" + "b" * 16 + "-01")
    (decision,) = ask_many(sidecar, [question])
    assert decision.alternatives[0].alternative is draft
    sent = sidecar.asked[0]
    assert (sent.context, sent.purpose, sent.idempotency_key) == (b'{"hour":9}', "why", "k-1")
    assert sent.trace_parent == question.trace_parent
