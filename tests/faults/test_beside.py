"""The process beside the sidecar that evaluates for many, killed and stopped under load: the log says so, no answer."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.chain.entry import EntryType
from tests.faults.load import Load, Told, assert_kept, recorded
from tests.policy.processes import kill, stop
from tests.program import Serving, made, serving
from tests.wasm.processes import beside


@pytest.mark.parametrize("end", [kill, stop], ids=["killed", "stopped"])
def test_under_load_every_question_is_judged_by_the_policy(tmp_path: Path, end: Callable[[int], None]) -> None:
    ledger, key = made(tmp_path)
    told = Told()

    async def main(server: Serving) -> None:
        async with Load(server.address, told).running(unary=4, batches=8):
            while not (there := beside(server.process.pid)):
                await told.more(20)
            end(there[0])
            await told.more(300)
            while there[0] in beside(server.process.pid):  # it was stopped before it was ready, and never asked
                os.kill(there[0], signal.SIGCONT)
                await told.more(100)
                end(there[0])
                await told.more(300)
            assert await asyncio.to_thread(server.stop) == 0

    with serving(ledger) as server:
        asyncio.run(main(server))
        assert server.process.stderr is not None
        assert "until there is another, it is done here" in server.process.stderr.read()
    assert_kept(ledger, key, told)
    decisions = [payload for header, payload in recorded(ledger) if header.type is EntryType.DECISION]
    judged = {(decision["request"]["action"], decision["effect"], decision["cause"]) for decision in decisions}
    assert judged == {("crm.read", "ALLOW", "policy"), ("deploy.rollout", "DENY", "policy")}
