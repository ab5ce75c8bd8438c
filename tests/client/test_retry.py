"""Asking again: when, how long, with which bytes; and the reports that are repeated or not."""

from __future__ import annotations

from dataclasses import dataclass, field

import grpc
import pytest

from sidecar.client import Guard, NoDecision
from sidecar.client.retry import Pace, Patience, Tries
from sidecar.errors import UsageError
from tests.client.fake_sidecar import AT_ONCE, Abort, FakeSidecar, allow, scripted_channel

ACCOUNT = ("account", "acme-42")
AWAY = Abort(grpc.StatusCode.UNAVAILABLE, "connection refused")
LATE = Abort(grpc.StatusCode.DEADLINE_EXCEEDED)


class Failed(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return f"said {self._code.name}"


@dataclass
class Clock:
    now: float = 100.0
    slept: list[float] = field(default_factory=list)

    def pace(self, chance: float = 1.0) -> Pace:
        return Pace(clock=lambda: self.now, sleep=self.sleep, chance=lambda: chance)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def guard_of(sidecar: FakeSidecar, pace: Pace = AT_ONCE, **options) -> Guard:
    return Guard(scripted_channel(sidecar), agent="billing-agent", pace=pace, **options)


@pytest.mark.parametrize("fault", [AWAY, LATE, Abort(grpc.StatusCode.CANCELLED)], ids=str)
def test_a_question_is_asked_again_with_the_same_bytes(fault):
    sidecar = FakeSidecar(fault, fault, fault, allow("d-9"), allow("d-10"))
    guard = guard_of(sidecar)
    assert guard.check("a", ACCOUNT).decision_id == "d-9"
    assert len(sidecar.raw) == 4
    assert len({*sidecar.raw}) == 1
    guard.check("a", ACCOUNT)
    keys = [request.idempotency_key for request in sidecar.asked]
    assert len({*keys[:4]}) == 1
    assert len({*keys}) == 2  # another question, another key
    assert all(len(key) == 32 for key in keys)


def test_every_attempt_ends_and_then_there_is_no_decision():
    sidecar = FakeSidecar(*[AWAY] * 9)
    with pytest.raises(NoDecision, match="UNAVAILABLE: connection refused") as caught:
        guard_of(sidecar).check("a", ACCOUNT)
    assert (caught.value.cause, len(sidecar.asked)) == ("unreachable", 4)
    sidecar = FakeSidecar(*[AWAY] * 9)
    with pytest.raises(NoDecision):
        guard_of(sidecar, attempts=1).check("a", ACCOUNT)
    assert len(sidecar.asked) == 1


def test_pauses_double_up_to_a_limit_and_chance_shortens_them():
    clock = Clock()
    with pytest.raises(NoDecision):
        guard_of(FakeSidecar(*[AWAY] * 9), clock.pace(), attempts=8, timeout=60).check("a", ACCOUNT)
    assert clock.slept == [0.025, 0.05, 0.1, 0.2, 0.4, 0.4, 0.4]
    assert clock.pace(chance=0.0).pause(1) == 0.0125


def test_attempts_share_one_deadline():
    clock = Clock()
    tries = Tries(Patience("unix:/x", 2.0, 4, clock.pace()))
    shares = []
    for _ in range(3):
        shares.append(tries.seconds)
        clock.now += tries.seconds
        clock.now += tries.pause_after(Failed(grpc.StatusCode.DEADLINE_EXCEEDED))
    shares.append(tries.seconds)
    assert shares == pytest.approx([1.0, 0.4875, 0.21875, 0.11875])
    assert clock.now + shares[-1] == pytest.approx(102.0)
    with pytest.raises(NoDecision, match=r"none within 2 s") as caught:
        tries.pause_after(Failed(grpc.StatusCode.DEADLINE_EXCEEDED))
    assert caught.value.cause == "timeout"


def test_nothing_is_tried_after_the_deadline():
    clock = Clock()
    tries = Tries(Patience("unix:/x", 2.0, 50, clock.pace()))
    clock.now += 1.99
    with pytest.raises(NoDecision):
        tries.pause_after(Failed(grpc.StatusCode.UNAVAILABLE))


def test_a_sidecar_that_never_came_back_is_unreachable_not_late():
    clock = Clock()
    tries = Tries(Patience("unix:/x", 2.0, 2, clock.pace()))
    assert not tries.waits
    tries.pause_after(Failed(grpc.StatusCode.UNAVAILABLE))
    assert tries.waits
    with pytest.raises(NoDecision, match="said UNAVAILABLE") as caught:
        tries.pause_after(Failed(grpc.StatusCode.DEADLINE_EXCEEDED))
    assert caught.value.cause == "unreachable"


@pytest.mark.parametrize(
    ("fault", "sent"),
    [(AWAY, 4), (LATE, 4), (Abort(grpc.StatusCode.CANCELLED), 4), (Abort(grpc.StatusCode.FAILED_PRECONDITION), 1)],
    ids=["away", "late", "cancelled", "refused"],
)
def test_a_report_is_repeated_as_a_question_is(fault, sent):
    sidecar = FakeSidecar(allow(), report_fault=fault)
    guard = guard_of(sidecar)
    with guard.guarded("a", ACCOUNT):
        pass
    assert sidecar.outcomes == [("d-1", "EXECUTED")] * sent
    assert guard.unreported == 1


def test_the_callers_own_key_stands_for_the_same_bytes_each_time():
    sidecar = FakeSidecar(allow("d-1"), allow("d-2"), allow("d-2"))
    guard = guard_of(sidecar)
    guard.check("a", ACCOUNT)
    for _ in range(2):
        guard.check("a", ACCOUNT, {"amount": 1}, idempotency_key="invoice-7")
    assert sidecar.raw[1] == sidecar.raw[2]
    assert sidecar.asked[1].last_receipt == b""


@pytest.mark.parametrize("attempts", [0, -1, 101])
def test_a_bad_number_of_attempts_is_refused(attempts):
    with pytest.raises(UsageError, match="attempts"):
        Guard("localhost:1", agent="a", attempts=attempts)
