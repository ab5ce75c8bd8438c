"""Many questions over one call, against a real grpc.aio server that answers from a script."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import grpc
import pytest

from sidecar.client import AsyncGuard, Effect, NoDecision
from sidecar.errors import RequestError, UsageError
from sidecar.v1 import decision_pb2 as pb
from tests.client.fake_sidecar import AT_ONCE, Abort, FakeSidecar, Refuse, Silence, allow, deny, running

ACCOUNT = ("account", "acme-42")
AMPLE = 30.0  # seconds; no test here waits for it
AWAY = Abort(grpc.StatusCode.UNAVAILABLE, "going away")


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def drive(loop, tmp_path):
    """Runs ``scenario(stream, server, guard)`` over one stream to a scripted sidecar."""

    def run(sidecar: FakeSidecar, scenario, **options):
        async def whole():
            async with running(sidecar, tmp_path) as server:
                settings = {"timeout": AMPLE, "pace": AT_ONCE, **options}
                async with AsyncGuard(server.address, agent="a", **settings) as guard, guard.stream() as stream:
                    return await scenario(stream, server, guard)

        return loop.run(whole())

    return run


def numbers(sidecar: FakeSidecar) -> list[int]:
    return [pb.StreamQuestion.FromString(raw).correlation_id for raw in sidecar.raw]


def test_each_question_gets_its_own_answer_in_whatever_order(drive):
    sidecar = FakeSidecar(*(allow(f"d-{n}", held=n % 3 != 2) for n in range(30)))

    async def scenario(stream, *_):
        return await asyncio.gather(*(stream.ask("a", ACCOUNT, {"n": n}) for n in range(30)))

    decisions = drive(sidecar, scenario)
    # The receipt names the request's digest: an answer handed to another question would not have been believed.
    assert [d.decision_id for d in decisions] == [f"d-{n}" for n in range(30)]
    assert numbers(sidecar) == list(range(1, 31))


def test_what_is_asked_at_once_goes_in_few_messages(drive):
    sidecar = FakeSidecar(*(allow(f"d-{n}") for n in range(100)))

    async def scenario(stream, *_):
        small = (stream.ask("a", ACCOUNT, {"n": n}) for n in range(80))
        large = (stream.ask("a", ACCOUNT, {"n": n, "text": "x" * 10_000}) for n in range(80, 100))
        return await asyncio.gather(*small, *large)

    assert [d.decision_id for d in drive(sidecar, scenario)] == [f"d-{n}" for n in range(100)]
    assert sidecar.together == [32, 32, 18, *[2] * 9]  # 32 questions, or once there are 16 KiB


def test_a_deny_is_an_answer_and_a_refusal_is_none(drive):
    sidecar = FakeSidecar(deny(), Refuse(3, "action: is empty"), allow("d-3"))

    async def scenario(stream, *_):
        assert (await stream.ask("a", ACCOUNT)).effect is Effect.DENY
        with pytest.raises(NoDecision, match="action: is empty") as caught:
            await stream.ask("", ACCOUNT)
        assert caught.value.cause == "refused"
        with pytest.raises(RequestError):
            await stream.ask("a", "no pair")
        return await stream.ask("a", ACCOUNT)

    assert drive(sidecar, scenario).decision_id == "d-3"
    assert sidecar.asked[1].last_receipt == sidecar.given[0]


def test_a_wrong_receipt_is_no_answer(drive):
    async def scenario(stream, *_):
        with pytest.raises(NoDecision, match="disagree"):
            await stream.ask("a", ACCOUNT)

    drive(FakeSidecar(allow(spoil=lambda good: good.replace(b"ALLOW", b"DENY"))), scenario)


@pytest.mark.parametrize("lost", [AWAY, Abort(grpc.StatusCode.INTERNAL, "Internal error from Core")])
def test_what_a_lost_stream_left_open_is_sent_again_with_the_same_bytes(drive, lost):
    sidecar = FakeSidecar(Silence(), Silence(), lost, *(allow(f"d-{n}") for n in range(3)))

    async def scenario(stream, *_):
        return await asyncio.gather(*(stream.ask("a", ACCOUNT, {"n": n}) for n in range(3)))

    assert [d.decision_id for d in drive(sidecar, scenario)] == ["d-0", "d-1", "d-2"]
    assert sidecar.raw[:3] == sidecar.raw[3:]
    assert len({*sidecar.raw}) == 3


def test_a_question_is_not_sent_more_often_than_allowed(drive):
    sidecar = FakeSidecar(*[AWAY] * 4, allow("d-5"))

    async def scenario(stream, *_):
        with pytest.raises(NoDecision, match="going away") as caught:
            await stream.ask("a", ACCOUNT)
        assert caught.value.cause == "unreachable"
        return await stream.ask("a", ACCOUNT)

    assert drive(sidecar, scenario).decision_id == "d-5"
    assert len(sidecar.raw) == 5


def test_a_stream_that_is_refused_is_not_tried_again(drive):
    sidecar = FakeSidecar(Abort(grpc.StatusCode.PERMISSION_DENIED), allow("d-2"))

    async def scenario(stream, *_):
        with pytest.raises(NoDecision, match="PERMISSION_DENIED"):
            await stream.ask("a", ACCOUNT)
        return await stream.ask("a", ACCOUNT)

    assert drive(sidecar, scenario).decision_id == "d-2"
    assert len(sidecar.raw) == 2


def test_a_late_answer_is_no_decision(drive):
    sidecar = FakeSidecar(Silence())

    async def scenario(stream, *_):
        with pytest.raises(NoDecision, match=r"none within 0\.3 s") as caught:
            await stream.ask("a", ACCOUNT)
        assert caught.value.cause == "timeout"

    drive(sidecar, scenario, timeout=0.3)
    assert len(sidecar.raw) == 1


def test_a_cancelled_question_leaves_the_others(drive):
    sidecar = FakeSidecar(Silence(), allow("d-2"))

    async def scenario(stream, server, _):
        asking = asyncio.create_task(stream.ask("a", ACCOUNT))
        await server.silent.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        return await stream.ask("a", ACCOUNT)

    assert drive(sidecar, scenario).decision_id == "d-2"


def test_leaving_ends_what_is_still_asked(drive):
    asking = []

    async def scenario(stream, server, _):
        asking.append(asyncio.create_task(stream.ask("a", ACCOUNT)))
        await server.silent.wait()

    async def outcome():
        with pytest.raises(NoDecision, match="closed before the answer"):
            await asking[0]

    sidecar = FakeSidecar(Silence())
    drive(sidecar, scenario)
    asking[0].get_loop().run_until_complete(outcome())


def test_a_guard_closed_under_a_stream_opens_another(drive):
    sidecar = FakeSidecar(Silence(), allow("d-1"), allow("d-2"))

    async def scenario(stream, server, guard):
        asking = asyncio.create_task(stream.ask("a", ACCOUNT))
        await server.silent.wait()
        await guard.close()
        return [await asking, await stream.ask("a", ACCOUNT)]

    assert [d.decision_id for d in drive(sidecar, scenario)] == ["d-1", "d-2"]
    assert sidecar.raw[0] == sidecar.raw[1]


def test_no_sidecar_is_no_decision(loop, tmp_path):
    async def whole():
        address = f"unix:{tmp_path}/none.sock"
        async with AsyncGuard(address, agent="a", timeout=1.0) as guard, guard.stream() as stream:
            with pytest.raises(NoDecision, match=r"none\.sock") as caught:
                await stream.ask("a", ACCOUNT)
            assert caught.value.cause == "unreachable"

    loop.run(whole())


def test_a_stream_is_used_inside_its_block(drive):
    async def scenario(stream, _, guard):
        with pytest.raises(UsageError, match="entered once"):
            await stream.__aenter__()
        with pytest.raises(UsageError, match="inside its"):
            await guard.stream().ask("a", ACCOUNT)
        return stream

    stream = drive(FakeSidecar(), scenario)

    async def afterwards():
        with pytest.raises(UsageError, match="inside its"):
            await stream.ask("a", ACCOUNT)

    asyncio.run(afterwards())
