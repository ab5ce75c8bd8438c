"""The machine's clock jumps under a busy ledger: each jump is on record, and the verifier has nothing to object."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from sidecar.chain.entry import EntryType
from sidecar.chain.request import Option, Request
from sidecar.decide import DecisionPath, Settings, new_decision_id
from sidecar.identity import Shown, Transport
from sidecar.ledger import Ledger, Moment, Options, SystemClock
from tests.api.running import found, judged, wrap
from tests.decide.engines import ALLOW, AnyPolicy, ScriptedEngine
from tests.faults.load import recorded

SECOND = 1_000_000_000
HOUR = 3_600 * SECOND
YEAR = 365 * 24 * HOUR
UNPROVED = Shown(Transport("unix:"))
ASKED = Request("billing-agent", Option("crm.read", "customer", "acme-42"))


class JumpingClock(SystemClock):
    """The machine's clocks; the wall clock is off by ``offset`` ns."""

    offset = 0

    def now(self) -> Moment:
        now = super().now()
        return dataclasses.replace(now, wall_ns=now.wall_ns + self.offset)


def opened(directory: Path, clock: JumpingClock) -> tuple[Ledger, DecisionPath]:
    ledger = Ledger.open(directory, wrap=wrap, options=Options(), clock=clock, on_failure=lambda error: None)
    engine = ScriptedEngine(lambda _: ALLOW)
    path = DecisionPath(
        engine,
        AnyPolicy(),
        ledger,
        Settings(development=True),
        new_id=new_decision_id,
        wall_ns=lambda: clock.now().wall_ns,
    )
    return ledger, path


async def many(path: DecisionPath, count: int) -> list[bytes]:
    answers = await asyncio.gather(*(path.decide(ASKED, UNPROVED) for _ in range(count)))
    return [answer.recorded.receipt for answer in answers]


def steps(directory: Path) -> list[int]:
    return [int(v["step_ns"]) for header, v in recorded(directory) if header.type is EntryType.CLOCK]


def assert_verifies(directory: Path, receipts: list[bytes]) -> None:
    report = judged(directory, receipts)
    assert report.verdict.name == "UNANCHORED", report.findings


def near(step: int, jump: int) -> bool:
    return abs(step - jump) < HOUR // 2


@pytest.mark.parametrize("jumps", [(HOUR,), (-HOUR,), (YEAR, -YEAR), (-80 * YEAR, 200 * YEAR), (2 * SECOND, 3 * HOUR)])
def test_jumps_under_load(tmp_path: Path, jumps: tuple[int, ...]) -> None:
    found(tmp_path / "ledger")
    clock = JumpingClock()
    ledger, path = opened(tmp_path / "ledger", clock)
    receipts = asyncio.run(many(path, 20))
    for jump in jumps:
        clock.offset += jump
        receipts += asyncio.run(many(path, 20))
    ledger.close()
    told = steps(tmp_path / "ledger")
    assert len(told) == len(jumps) and all(map(near, told, jumps))
    assert_verifies(tmp_path / "ledger", receipts)


@pytest.mark.parametrize("jump", [-HOUR, -YEAR, HOUR])
def test_a_jump_between_two_runs(tmp_path: Path, jump: int) -> None:
    """Time that went back between two starts is on record; time that went on needs no word."""
    found(tmp_path / "ledger")
    clock, receipts = JumpingClock(), []
    for _ in range(2):
        ledger, path = opened(tmp_path / "ledger", clock)
        receipts += asyncio.run(many(path, 5))
        ledger.close()
        clock.offset += jump
    told = steps(tmp_path / "ledger")
    assert len(told) == (jump < 0) and all(near(step, jump) for step in told)
    assert_verifies(tmp_path / "ledger", receipts)


def test_a_clock_that_never_stands_still(tmp_path: Path) -> None:
    """Every reading jumps: decisions are still answered, and each entry's jump is on record."""

    class Mad(JumpingClock):
        def now(self) -> Moment:
            self.offset = HOUR - self.offset
            return super().now()

    found(tmp_path / "ledger")
    ledger, path = opened(tmp_path / "ledger", Mad())
    receipts = asyncio.run(many(path, 10))
    ledger.close()
    assert steps(tmp_path / "ledger")
    assert_verifies(tmp_path / "ledger", receipts)


@pytest.mark.parametrize("past_midnight", [False, True])
def test_a_key_is_decided_once_whatever_the_clock_says(tmp_path: Path, past_midnight: bool) -> None:
    """A jump of an hour, forth or back, neither forgets an idempotency key nor decides it twice; over midnight too."""
    found(tmp_path / "ledger")
    clock = JumpingClock()
    into = clock.now().wall_ns % (24 * HOUR)
    clock.offset = (24 * HOUR if past_midnight else 12 * HOUR) + HOUR // 2 - into
    ledger, path = opened(tmp_path / "ledger", clock)
    asked = dataclasses.replace(ASKED, idempotency_key="k")

    async def ask() -> Any:
        return (await path.decide(asked, UNPROVED)).decision_id

    ids = set()
    for jump in (0, HOUR, -2 * HOUR):
        clock.offset += jump
        ids.add(asyncio.run(ask()))
    ledger.close()
    assert len(ids) == 1
    assert_verifies(tmp_path / "ledger", [])
