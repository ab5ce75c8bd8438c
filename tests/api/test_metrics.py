"""Every answer that is no permission moves a counter, and no caller can make a new series."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from sidecar.api import Metrics
from sidecar.api.messages import request_of
from sidecar.decide import Answer, Caller, Judgement, Stages
from sidecar.errors import EngineError, EngineTimeout, EngineUnavailable, LedgerError, PolicyMisshaped, PolicyUndefined
from sidecar.identity import Proved, Shown, Transport
from sidecar.ledger import Options, Recorded
from sidecar.ledger.batch import Batch
from sidecar.ledger.store import LmdbStore
from sidecar.policy import Verdict
from sidecar.v1 import decision_pb2 as pb
from tests.api.pages import Series, families, moved, series
from tests.api.running import Running, request, running, streamed
from tests.decide.engines import ALLOW, VERSION, HangingEngine, ScriptedEngine
from tests.ledger.worlds import StoreAround

MIB = 1024 * 1024
DENY = {"effect": "DENY", "reasons": [{"code": "no", "message": "a test denies it"}]}
Provoke = Callable[[Running], Awaitable[None]]


def counted(tmp_path: Path, provoke: Provoke, engine: Any = None, **options: Any) -> Series:
    """What moved while ``provoke`` had its way with a running server."""
    metrics = Metrics("test")

    async def main() -> Series:
        async with running(tmp_path, engine, metrics=metrics, **options) as run:
            before = metrics.page()
            await provoke(run)
            return moved(before, metrics.page())

    return asyncio.run(main())


async def refused(call: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await call


def raises(error: Exception) -> Callable[[dict[str, Any]], object]:
    def script(_: dict[str, Any]) -> object:
        raise error

    return script


def one(method: str, code: str, *, recorded: bool) -> Series:
    """The movement of one refused call; ``recorded`` where it is the caller's fault."""
    both: Series = {("sidecar_errors_total", code, method): 1.0}
    if recorded:
        both[("sidecar_rejected_total", code)] = 1.0
    return both


def test_a_decision_is_counted_after_its_answer(tmp_path: Path) -> None:
    metrics = Metrics("test")

    async def main() -> None:
        async with running(tmp_path, metrics=metrics) as run:
            before = metrics.page()
            await run.path.decide(request_of(request()), Shown(Transport("unix:")))
            assert ("sidecar_decisions_total", "policy", "ALLOW") not in moved(before, metrics.page())
            await asyncio.sleep(0)
            assert moved(before, metrics.page())[("sidecar_decisions_total", "policy", "ALLOW")] == 1.0

    asyncio.run(main())


def test_decisions_by_effect_and_their_time_by_stage(tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda document: ALLOW if document["action"] == "crm.read" else DENY)
    metrics = Metrics("test")

    async def main() -> None:
        async with running(tmp_path, engine, metrics=metrics) as run:
            before = metrics.page()
            for action in ("crm.read", "crm.read", "crm.delete"):
                await run.decisions.Decide(request(action=action))
            after = metrics.page()
            assert moved(before, after) == {
                ("sidecar_decisions_total", "policy", "ALLOW"): 2.0,
                ("sidecar_decisions_total", "policy", "DENY"): 1.0,
            }
            now = series(after)
            assert [now["sidecar_decision_seconds_count", s] for s in ("evaluate", "record", "total")] == [3.0] * 3
            parts = now["sidecar_decision_seconds_sum", "evaluate"] + now["sidecar_decision_seconds_sum", "record"]
            assert 0 < parts <= now["sidecar_decision_seconds_sum", "total"]
            assert now["sidecar_commit_entries_sum",] == 3.0
            assert now["sidecar_commit_seconds_count",] >= now["sidecar_commit_entries_count",] >= 1.0

    asyncio.run(main())


def test_a_time_is_counted_in_every_bucket_that_it_is_not_above() -> None:
    metrics, judged = Metrics("test"), Judgement(Verdict("ALLOW", (), ()), "policy", ALLOW, VERSION)
    answer = Answer("", judged, (), Caller(Proved("a", "asserted"), "unix"), Recorded(0, 0, b"", b""), enforced=True)
    for total in (0.0002, 0.5001, 9.0):
        metrics.decided(answer, Stages(0.001, 0.0, total))
    now = series(metrics.page())
    within = {bound: now["sidecar_decision_seconds_bucket", bound, "total"] for bound in ("0.0002", "0.5", "1.0")}
    assert within == {"0.0002": 1.0, "0.5": 1.0, "1.0": 2.0}
    for stage, took in (("evaluate", 0.003), ("record", 0.0), ("total", 9.5003)):
        assert now["sidecar_decision_seconds_sum", stage] == pytest.approx(took)
        assert now["sidecar_decision_seconds_bucket", "+Inf", stage] == 3.0
        assert now["sidecar_decision_seconds_count", stage] == 3.0


def test_what_is_seen_of_the_ledger_is_what_it_says(tmp_path: Path) -> None:
    metrics = Metrics("1.2.3", wall_ns=lambda: began + 90 * 10**9)
    began = 0

    async def main() -> None:
        nonlocal began
        async with running(tmp_path, metrics=metrics) as run:
            await run.decisions.Decide(request())
            began = run.ledger.began()
            usage, now = run.ledger.usage(), series(metrics.page())
            assert usage.entries >= 3
            assert now["sidecar_ledger_entries_total",] == now["sidecar_unanchored_entries",] == usage.entries
            assert now["sidecar_ledger_used_bytes",] == usage.bytes_used > 0
            assert now["sidecar_ledger_limit_bytes",] == usage.bytes_limit == Options().max_bytes
            assert 0 < now["sidecar_ledger_headroom_bytes",] < usage.bytes_limit - usage.bytes_used
            assert now["sidecar_ledger_disk_free_bytes",] > 0
            assert now["sidecar_queue_depth",] == 0.0
            assert now["sidecar_unanchored_age_seconds",] == 90.0
            assert now["sidecar_build_info", "wasm", "test 1", "1.2.3"] == 1.0
        assert families(metrics.page()) >= {"sidecar_decisions_total", "sidecar_build_info", "sidecar_ready"}
        assert "sidecar_ledger_used_bytes" not in families(metrics.page())  # it is closed, and the page still comes

    asyncio.run(main())


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        (raises(EngineError("broken")), "engine_error"),
        (raises(EngineTimeout("late")), "engine_timeout"),
        (raises(EngineUnavailable("gone")), "engine_unavailable"),
        (raises(PolicyUndefined("no value")), "policy_undefined"),
        (raises(PolicyMisshaped("odd")), "policy_misshaped"),
        (raises(RuntimeError("a promise broken")), "engine_error"),
        (lambda _: {"effect": "MAYBE"}, "policy_misshaped"),
        (lambda _: object(), "policy_misshaped"),
    ],
)
def test_a_deny_for_want_of_a_decision_is_counted_by_cause(
    tmp_path: Path, script: Callable[[dict[str, Any]], object], cause: str
) -> None:
    async def provoke(run: Running) -> None:
        assert (await run.decisions.Decide(request())).effect == pb.EFFECT_DENY

    assert counted(tmp_path, provoke, ScriptedEngine(script)) == {
        ("sidecar_decisions_total", cause, "DENY"): 1.0,
        ("sidecar_fail_closed_total", cause): 1.0,
    }


def test_a_hung_engine_is_counted(tmp_path: Path) -> None:
    async def provoke(run: Running) -> None:
        assert (await run.decisions.Decide(request(), timeout=4.0)).effect == pb.EFFECT_DENY

    moves = counted(tmp_path, provoke, HangingEngine())
    assert moves["sidecar_fail_closed_total", "engine_timeout"] == 1.0


def test_an_alternative_that_could_not_be_judged_is_counted(tmp_path: Path) -> None:
    def script(document: dict[str, Any]) -> object:
        return ALLOW if document["action"] == "crm.read" else raises(EngineUnavailable("gone"))(document)

    async def provoke(run: Running) -> None:
        other = pb.Alternative(action="crm.list", resource=pb.Resource(type="customer", id="acme-42"))
        await run.decisions.Decide(request(alternatives=[other]))

    assert counted(tmp_path, provoke, ScriptedEngine(script)) == {
        ("sidecar_decisions_total", "policy", "ALLOW"): 1.0,
        ("sidecar_fail_closed_total", "engine_unavailable"): 1.0,
    }


@pytest.mark.parametrize(
    "message",
    [
        request(agent="").SerializeToString(),
        request(arguments=b'{"a": 1, "a": 2}').SerializeToString(),
        request(purpose="x" * 2000).SerializeToString(),
        request(arguments=b'{"blob": "' + b"x" * MIB + b'"}').SerializeToString(),
        request(last_receipt=b"none").SerializeToString(),
        b"\xff\xff",
    ],
)
def test_a_malformed_request_is_counted(tmp_path: Path, message: bytes) -> None:
    async def provoke(run: Running) -> None:
        await refused(run.channel.unary_unary("/sidecar.v1.DecisionService/Decide")(message))

    assert counted(tmp_path, provoke) == one("Decide", "INVALID_ARGUMENT", recorded=True)


def test_an_agent_unproved_is_counted(tmp_path: Path) -> None:
    async def provoke(run: Running) -> None:
        await refused(run.decisions.Decide(request()))

    expected = one("Decide", "UNAUTHENTICATED", recorded=True) | {("sidecar_unproved_total", "no signature"): 1.0}
    assert counted(tmp_path, provoke, development=False) == expected


def test_refused_outcomes_and_reads_are_counted(tmp_path: Path) -> None:
    unknown = "019ab4a0-7c3e-7f11-8a55-0242ac120002"

    async def provoke(run: Running) -> None:
        denied = await run.decisions.Decide(request())
        for decision_id in (unknown, denied.decision_id):
            report = pb.ReportOutcomeRequest(
                agent="billing-agent", decision_id=decision_id, status=pb.OUTCOME_STATUS_EXECUTED
            )
            await refused(run.decisions.ReportOutcome(report))
        await refused(run.reading.GetEntry(pb.GetEntryRequest(seq=10**6)))
        await refused(run.reading.Prove(pb.ProveRequest(seq=denied.seq)))

    assert counted(tmp_path, provoke, ScriptedEngine(lambda _: DENY)) == {
        ("sidecar_decisions_total", "policy", "DENY"): 1.0,
        **one("ReportOutcome", "NOT_FOUND", recorded=True),
        **one("ReportOutcome", "FAILED_PRECONDITION", recorded=True),
        ("sidecar_outcomes_refused_total", "unknown"): 1.0,
        ("sidecar_outcomes_refused_total", "no allow"): 1.0,
        **one("GetEntry", "NOT_FOUND", recorded=False),
        **one("Prove", "FAILED_PRECONDITION", recorded=False),
    }


def test_refusals_of_batches_and_their_questions_are_counted(tmp_path: Path) -> None:
    async def provoke(run: Running) -> None:
        await run.decisions.DecideBatch(pb.DecideBatchRequest(requests=[request(), request(agent="")]))
        await refused(run.decisions.DecideBatch(pb.DecideBatchRequest()))

    assert counted(tmp_path, provoke) == {
        ("sidecar_decisions_total", "policy", "ALLOW"): 1.0,
        ("sidecar_errors_total", "INVALID_ARGUMENT", "DecideBatch"): 2.0,
        ("sidecar_rejected_total", "INVALID_ARGUMENT"): 2.0,
    }


def test_refusals_of_streams_and_their_questions_are_counted(tmp_path: Path) -> None:
    async def provoke(run: Running) -> None:
        stream = run.channel.stream_stream("/sidecar.v1.DecisionService/DecideStream")()
        await stream.write(streamed(request(agent="")).SerializeToString())
        assert pb.DecideStreamResponse.FromString(await stream.read()).answers[0].answer.HasField("refusal")
        await stream.write(b"\xff\xff")
        await refused(stream.read())

    assert counted(tmp_path, provoke) == {
        ("sidecar_errors_total", "INVALID_ARGUMENT", "DecideStream"): 2.0,
        ("sidecar_rejected_total", "INVALID_ARGUMENT"): 2.0,
    }


def test_a_full_ledger_is_counted(tmp_path: Path) -> None:
    async def provoke(run: Running) -> None:
        blob = b'{"blob": "' + os.urandom(450_000).hex().encode() + b'"}'  # nothing that could be compressed away
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            for _ in range(50):
                await run.decisions.Decide(request(arguments=blob))
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED

    moves = counted(tmp_path, provoke, options=Options(max_bytes=16 * MIB))
    assert moves.pop(("sidecar_decisions_total", "policy", "ALLOW")) >= 1.0
    assert moves == one("Decide", "RESOURCE_EXHAUSTED", recorded=False)


class FailingStore(StoreAround):
    """Fails each commit with a decision, and every look at the index of repeats."""

    def commit(self, batch: Batch) -> None:
        if batch.index:
            raise LedgerError("a test breaks the disk")
        self.inner.commit(batch)

    def recall(self, period: int, key: bytes) -> Any:
        raise ZeroDivisionError("an error nobody foresaw")


def failing_store(directory: Path, max_bytes: int) -> Any:
    return FailingStore(LmdbStore.open(directory, max_bytes))


def test_a_failed_ledger_is_counted_and_so_is_a_refusal_it_cannot_record(tmp_path: Path) -> None:
    async def provoke(run: Running) -> None:
        await refused(run.decisions.Decide(request()))
        await refused(run.decisions.Decide(request()))
        await refused(run.decisions.Decide(request(agent="")))

    assert counted(tmp_path, provoke, open_store=failing_store) == {
        ("sidecar_errors_total", "UNAVAILABLE", "Decide"): 3.0,
        ("sidecar_rejected_total", "INVALID_ARGUMENT"): 1.0,
    }


def test_an_unforeseen_error_is_counted_everywhere(tmp_path: Path) -> None:
    asked = request(idempotency_key="k")

    async def provoke(run: Running) -> None:
        await refused(run.decisions.Decide(asked))
        await run.decisions.DecideBatch(pb.DecideBatchRequest(requests=[asked]))
        stream = run.decisions.DecideStream()
        await stream.write(streamed(asked))
        [answer] = (await stream.read()).answers
        assert answer.answer.refusal.message == "the sidecar failed; there is no permission"
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF

    assert counted(tmp_path, provoke, open_store=failing_store) == {
        ("sidecar_errors_total", "INTERNAL", method): 1.0 for method in ("Decide", "DecideBatch", "DecideStream")
    }


class Awaited(Metrics):
    """Lets a test wait until an error was counted."""

    def __init__(self) -> None:
        super().__init__("test")
        self.told = asyncio.Event()

    def unanswered(self, method: str, code: str, fault: str = "") -> None:
        super().unanswered(method, code, fault)
        self.told.set()


def test_a_caller_that_went_away_is_counted(tmp_path: Path) -> None:
    async def main() -> None:
        metrics, engine = Awaited(), HangingEngine()
        async with running(tmp_path, engine, metrics=metrics) as run:
            before = metrics.page()
            call = run.decisions.Decide(request())
            waiting = asyncio.ensure_future(call)
            await engine.asked.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            async with asyncio.timeout(60):
                await metrics.told.wait()
            assert moved(before, metrics.page()) == one("Decide", "CANCELLED", recorded=False)

    asyncio.run(main())


def test_an_answer_given_again_is_no_second_decision(tmp_path: Path) -> None:
    async def provoke(run: Running) -> None:
        for _ in range(3):
            await run.decisions.Decide(request(idempotency_key="k"))

    assert counted(tmp_path, provoke) == {
        ("sidecar_decisions_total", "policy", "ALLOW"): 1.0,
        ("sidecar_repeated_answers_total",): 2.0,
    }


def test_a_flood_of_odd_names_makes_no_series(tmp_path: Path) -> None:
    metrics = Metrics("test")

    async def flood(run: Running, size: int) -> None:
        for number in range(size):
            odd = f'"}}\\ {number} \u2603{{'
            named = {"agent": odd, "action": odd, "purpose": odd, "idempotency_key": odd}
            await run.decisions.Decide(request(**named, resource=pb.Resource(type=odd, id=odd)))
            await refused(run.decisions.Decide(request(agent=f"\n{odd}")))
            await refused(run.decisions.ReportOutcome(pb.ReportOutcomeRequest(agent=odd, decision_id=odd)))
            await refused(run.channel.unary_unary(f"/sidecar.v1.DecisionService/Odd{number}")(b""))

    async def main() -> None:
        async with running(tmp_path, metrics=metrics) as run:
            await flood(run, 1)
            before = set(series(metrics.page()))
            await flood(run, 100)
            assert set(series(metrics.page())) == before

    asyncio.run(main())


def test_words_that_are_not_in_the_table_share_a_series() -> None:
    metrics = Metrics("test")
    for number in range(100):
        metrics.refused(f"CODE_{number}", f"field {number}", f"why {number}")
        metrics.registry_event(f"event {number}")
        metrics.unanswered(f"Method{number}", f"CODE_{number}", f"Fault{number}")
    now = series(metrics.page())
    assert now["sidecar_unproved_total", "other"] == now["sidecar_registry_events_total", "other"] == 100.0
    assert now["sidecar_rejected_total", "other"] == now["sidecar_errors_total", "other", "other"] == 100.0


class Still:
    """Shipping of which nothing was sent yet."""

    def __getattr__(self, name: str) -> int:
        return 0


def test_the_page_of_metrics_says_what_each_means(tmp_path: Path) -> None:
    metrics = Metrics("test")
    page = (Path(__file__).parent.parent.parent / "docs" / "METRICS.md").read_text()
    said = re.findall(r"^\| `(sidecar_\w+)", page, re.MULTILINE)

    async def main() -> None:
        metrics.watch_policy(lambda: 0.0, lambda: False)
        metrics.watch_tls(lambda: 0.0)
        metrics.watch_registry(lambda: False)
        metrics.watch_link(lambda: 0.0)
        metrics.watch_spans({"made": 0})
        metrics.watch_approvals(lambda: 0)
        metrics.watch_shipping(Still())
        async with running(tmp_path, metrics=metrics):
            assert sorted(said) == sorted(families(metrics.page()))

    asyncio.run(main())
