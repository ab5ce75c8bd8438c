"""Who waits behind another decision under the same approvals: what came into force meanwhile holds for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from sidecar.errors import EngineError
from sidecar.ledger.batch import Batch
from sidecar.ledger.store import LmdbStore
from sidecar.v1 import decision_pb2 as pb
from tests.api.desks import PEOPLE, Desk
from tests.api.test_approvals import run


def changed(name: str, **members: Any) -> tuple[dict[str, Any], ...]:
    return tuple(person | members if person["id"] == name else person for person in PEOPLE)


@asynccontextmanager
async def held(d: Desk, asked: pb.DecideResponse) -> AsyncIterator[None]:
    """While the policy thinks of a first request under the approvals of ``asked``, which comes to nothing."""
    thinking, go = asyncio.Event(), asyncio.Event()
    evaluate = d.engine.evaluate

    async def fails(document: Any, timeout: float) -> Any:
        thinking.set()
        await go.wait()
        raise EngineError("the engine was ended")

    d.engine.evaluate = fails  # type: ignore[method-assign]
    first = asyncio.ensure_future(d.ask(approval_of=asked.decision_id))
    await thinking.wait()
    d.engine.evaluate = evaluate  # type: ignore[method-assign]
    yield
    go.set()
    assert (await first).effect == pb.EFFECT_DENY


async def arrived(d: Desk, calls: int) -> None:
    """Until so many calls more have been proved and wait: each takes a nonce."""
    nonces = d.up.path._prover._nonces
    due = len(nonces) + calls
    while len(nonces) < due:  # noqa: ASYNC110  nothing else tells
        await asyncio.sleep(0)


@pytest.mark.parametrize(("name", "status"), [("billing-agent", "suspended"), ("ann", "revoked")])
def test_who_is_barred_meanwhile_is_not_allowed(tmp_path: Path, name: str, status: str) -> None:
    async def story(d: Desk) -> None:
        asked = await d.ask()
        await d.approve("ann", asked)
        async with held(d, asked):
            second = asyncio.ensure_future(d.ask(approval_of=asked.decision_id))
            await arrived(d, 1)
            await d.know(*changed(name, status=status))
        with pytest.raises(grpc.aio.AioRpcError):
            await second
        assert [each["effect"] for each in d.entries("DECISION")] == ["REQUIRE_APPROVAL", "DENY"]

    run(tmp_path, story)


def test_an_approver_who_is_barred_meanwhile_is_not_heard(tmp_path: Path) -> None:
    async def story(d: Desk) -> None:
        asked = await d.ask()
        await d.approve("ann", asked)
        async with held(d, asked):
            word = asyncio.ensure_future(d.approve("bob", asked, "reject"))
            await arrived(d, 1)
            await d.know(*changed("bob", status="suspended"))
        with pytest.raises(grpc.aio.AioRpcError):
            await word
        assert len(d.entries("APPROVAL")) == 1

    run(tmp_path, story)


def test_many_at_once_do_not_fill_the_list(tmp_path: Path) -> None:
    async def story(d: Desk) -> None:
        asked = await asyncio.gather(*(d.ask() for _ in range(150)), return_exceptions=True)
        assert sum(isinstance(each, pb.DecideResponse) for each in asked) == 100
        assert {each.code().name for each in asked if isinstance(each, grpc.aio.AioRpcError)} == {"RESOURCE_EXHAUSTED"}
        assert len(d.up.path.approvals) == 100

    run(tmp_path, story)


def test_what_nobody_waited_for_counts_too(tmp_path: Path) -> None:
    """An agent that hangs up while its decisions are written would else fill the list at the next start, for all."""
    held, go = threading.Event(), threading.Event()

    class Slow(LmdbStore):
        def commit(self, batch: Batch) -> None:
            if held.is_set():
                go.wait()
            super().commit(batch)

    async def story(d: Desk) -> None:
        held.set()
        asked = [asyncio.ensure_future(d.ask(purpose=f"{n}")) for n in range(100)]
        try:
            while len(d.engine.seen) < 100:  # noqa: ASYNC110  nothing else tells
                await asyncio.sleep(0)
            for each in asked:
                each.cancel()
            while b'sidecar_errors_total{code="CANCELLED",method="Decide"} 100.0' not in d.metrics.page():  # noqa: ASYNC110
                await asyncio.sleep(0)
        finally:
            go.set()
        other = await d.ask(agent="other-agent")
        assert len(d.up.path.approvals) == 101 == len(d.entries("DECISION"))
        assert (await d.listed("ann")).pending[1].decision_id == other.decision_id
        assert "100 decisions of this agent wait" in await d.refused(d.ask(), "RESOURCE_EXHAUSTED")

    run(tmp_path, story, open_store=Slow.open)
