"""The guards against the real program: killed, started again, its ledger put back; and each question decided once."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sidecar.client import Ask, AsyncGuard, Decision, Effect, Guard, NoDecision
from sidecar.client.retry import Pace
from tests.program import Serving, made, serving, sidecar

CUSTOMER = ("customer", "acme-42")
AMPLE = 60.0  # seconds; a start of the program is well within it


def entries(ledger: Path, kind: str) -> list[dict]:
    shown = sidecar("show", ledger, "--json").stdout.splitlines()
    return [line["payload"] for line in map(json.loads, shown) if line["payload"]["type"] == kind]


def verdict(ledger: Path, key: Path) -> str:
    return str(json.loads(sidecar("verify", ledger, "--custodian-key", key, "--json").stdout)["verdict"])


class Failures:
    """A pace that says when an attempt has failed."""

    def __init__(self) -> None:
        self.seen = threading.Event()
        self._real = Pace()
        self.pace = Pace(sleep=self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.seen.set()
        self._real.sleep(seconds)


def test_a_question_asked_while_the_sidecar_is_down_is_decided_once_it_is_back(tmp_path: Path) -> None:
    ledger, key = made(tmp_path)
    failures = Failures()
    with ThreadPoolExecutor(1) as other:
        with serving(ledger) as server:
            guard = Guard(server.address, agent="billing-agent", timeout=AMPLE, pace=failures.pace)
            before = guard.check("crm.read", CUSTOMER)
            server.stop(signal.SIGKILL)
        answer = other.submit(guard.check, "crm.read", CUSTOMER, {"again": True})
        assert failures.seen.wait(AMPLE)  # it has been asked, and nobody was there
        assert not answer.done()
        with serving(ledger) as server:
            after = answer.result(AMPLE)
            assert server.stop() == 0
        guard.close()
    assert (before.effect, after.effect) == (Effect.ALLOW, Effect.ALLOW)
    assert [d["decision_id"] for d in entries(ledger, "DECISION")] == [before.decision_id, after.decision_id]
    assert verdict(ledger, key) == "UNANCHORED"


def test_a_key_of_ones_own_gets_the_same_decision_from_another_guard_and_after_a_kill(tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)

    def asked(server: Serving) -> Decision:
        with server.guard() as guard:
            guard.check("crm.read", CUSTOMER)  # so that the guard has a receipt to send
            return guard.check("crm.read", CUSTOMER, {"fields": ["name"]}, idempotency_key="invoice-7")

    with serving(ledger) as server:
        first, second = asked(server), asked(server)
        server.stop(signal.SIGKILL)
    with serving(ledger) as server:
        third = asked(server)
        with server.guard() as guard, pytest.raises(NoDecision, match="idempotency_key"):
            guard.check("crm.read", CUSTOMER, {"fields": ["iban"]}, idempotency_key="invoice-7")
        assert server.stop() == 0
    assert first.decision_id == second.decision_id == third.decision_id
    assert first.receipt == second.receipt
    keys = [d["request"]["idempotency_key"] for d in entries(ledger, "DECISION")]
    assert keys.count("invoice-7") == 1


def test_a_batch_is_answered_in_order_and_recorded(tmp_path: Path) -> None:
    ledger, key = made(tmp_path)
    questions = [Ask("crm.read", ("customer", f"c-{n}")) for n in range(62)]
    with serving(ledger) as server, server.guard() as guard:
        answers = guard.ask_many(
            [*questions, Ask("deploy.rollout", ("service", "x")), Ask("crm.read", ("customer", ""))]
        )
        later = guard.ask_many(questions[:1])
        assert server.stop() == 0
    assert [a.effect for a in answers[:63] + later] == [Effect.ALLOW] * 62 + [Effect.DENY, Effect.ALLOW]
    assert isinstance(answers[63], NoDecision)
    assert "resource.id" in str(answers[63])
    recorded = {d["decision_id"]: d["request"]["resource"]["id"] for d in entries(ledger, "DECISION")}
    assert [recorded[a.decision_id] for a in answers[:62]] == [f"c-{n}" for n in range(62)]
    assert verdict(ledger, key) == "UNANCHORED"


def test_a_stream_outlives_its_sidecar_and_decides_each_question_once(tmp_path: Path) -> None:
    ledger, key = made(tmp_path)

    async def whole() -> list[Decision]:
        def ask(number: int) -> asyncio.Task[Decision]:
            return asyncio.create_task(stream.ask("crm.read", ("customer", f"c-{number}")))

        address = f"unix:{ledger}.sock"
        async with AsyncGuard(address, agent="billing-agent", timeout=AMPLE) as guard, guard.stream() as stream:
            with serving(ledger) as server:
                asked = [ask(number) for number in range(200)]
                await asked[20]  # some are answered, some under way, some not even sent
                await asyncio.to_thread(server.stop, signal.SIGKILL)
            asked += [ask(number) for number in range(200, 220)]
            running = serving(ledger)
            server = await asyncio.to_thread(running.__enter__)
            try:
                decisions = await asyncio.gather(*asked)
                assert await asyncio.to_thread(server.stop) == 0
            finally:
                running.__exit__(None, None, None)
            return decisions

    decisions = asyncio.run(whole())
    recorded = {d["decision_id"]: d["request"]["resource"]["id"] for d in entries(ledger, "DECISION")}
    assert [recorded[d.decision_id] for d in decisions] == [f"c-{n}" for n in range(220)]
    assert len(recorded) == 220  # one entry for each question: none was decided twice
    assert verdict(ledger, key) == "UNANCHORED"


def test_a_ledger_put_back_to_an_older_state_is_noticed(tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    with serving(ledger) as server:
        assert server.stop() == 0
    shutil.copytree(ledger, tmp_path / "copy")
    with serving(ledger) as server:
        guard = Guard(server.address, agent="billing-agent", timeout=AMPLE)
        kept = guard.check("crm.read", CUSTOMER).receipt
        assert server.stop() == 0
    shutil.rmtree(ledger)
    (tmp_path / "copy").rename(ledger)
    with serving(ledger) as server, guard:
        for _ in range(2):
            with pytest.raises(NoDecision, match="has lost what it had answered") as caught:
                guard.check("crm.read", CUSTOMER)
            assert caught.value.receipt == kept
        assert server.stop() == 0
    assert entries(ledger, "DECISION") == []
    assert len(entries(ledger, "REJECTED")) >= 1


def test_a_receipt_of_another_ledger_goes_with_the_question_and_is_then_replaced(tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    with serving(ledger) as server:
        guard = Guard(server.address, agent="billing-agent", timeout=AMPLE)
        for _ in range(9):
            guard.check("crm.read", CUSTOMER)
        assert server.stop() == 0
    shutil.rmtree(ledger)
    assert sidecar("init", "--data-dir", ledger, "--custodian", tmp_path / "auditor.pub.pem").returncode == 0
    with serving(ledger) as server, guard:
        for _ in range(2):
            guard.check("crm.read", CUSTOMER)
        assert server.stop() == 0
    assert [d.get("receipt_check") for d in entries(ledger, "DECISION")] == ["foreign", None]


@pytest.mark.parametrize("close", [True, False])
def test_a_closed_guard_fails_at_once(tmp_path: Path, close: bool) -> None:
    failures = Failures()
    guard = Guard(f"unix:{tmp_path}/none.sock", agent="a", timeout=0.5, pace=failures.pace)
    if close:
        guard.close()
    with pytest.raises(NoDecision):
        guard.check("crm.read", CUSTOMER)
    assert failures.seen.is_set() != close
