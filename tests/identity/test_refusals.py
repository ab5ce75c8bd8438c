"""Who is refused: each by status, by REJECTED entry and by metric; over the wire, from a sidecar's own server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from sidecar.api import Metrics
from sidecar.v1 import decision_pb2 as pb
from tests.api.pages import series
from tests.api.running import Running, answered, judged, request, running, streamed
from tests.api.test_decisions import entry, last_entry, refused
from tests.decide.engines import ALLOW, ScriptedEngine
from tests.identity.agents import BILLING, EVERYBODY, GATEWAY, MALLORY, PAYROLL, registered

UNAUTHENTICATED, DENIED = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED
SECOND = 1_000_000_000
Story = Callable[[Running, pb.HeadResponse], Awaitable[None]]


def played(tmp_path: Path, story: Story, engine: ScriptedEngine | None = None, **more: Any) -> Metrics:
    """A sidecar that believes signatures alone, with everybody registered; what it wrote verifies."""
    metrics = Metrics("test")

    async def main() -> None:
        async with running(tmp_path, engine, development=False, metrics=metrics, **more) as run:
            await run.in_force.put_registry(registered(*EVERYBODY))
            await story(run, await run.reading.Head(pb.HeadRequest()))

    asyncio.run(main())
    report = judged(tmp_path / "ledger")
    assert report.verdict.name == "UNANCHORED", report.findings
    return metrics


def counted(metrics: Metrics, why: str) -> float:
    return series(metrics.page())["sidecar_unproved_total", why]


async def payload_at(run: Running, back: int = 1) -> dict[str, Any]:
    value = run.ledger.payload(run.ledger.position().next_seq - back)
    assert isinstance(value, dict)
    return value


def test_a_signed_request_is_recorded_with_its_proof(tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda _: ALLOW)

    async def story(run: Running, head: pb.HeadResponse) -> None:
        signed = BILLING.request(request(), head)
        answer = await run.decisions.Decide(signed)
        assert (answer.effect, answer.agent_proof) == (pb.EFFECT_ALLOW, "signature")
        recorded = run.ledger.payload(answer.seq)
        assert recorded["agent"]["statement"].encode() == signed.signature.statement
        assert recorded["registry"] == registered(*EVERYBODY).member()
        (seen,) = engine.seen
        known = {"roles": ["billing"], "attributes": {"limit": 100}}
        assert seen["agent"] == {"id": "billing-agent", "proof": "signature", **known}
        report = pb.ReportOutcomeRequest(
            agent="billing-agent", decision_id=answer.decision_id, status=pb.OUTCOME_STATUS_EXECUTED, response=b"{}"
        )
        told = await run.decisions.ReportOutcome(BILLING.outcome(report, head))
        assert run.ledger.payload(told.seq)["by"]["proof"] == "signature"

    played(tmp_path, story, engine)
    assert judged(tmp_path / "ledger").decisions["signed"] == 1


def _signed(agent: Any = BILLING, **lines: Any) -> Callable[[pb.HeadResponse], pb.DecideRequest]:
    return lambda head: agent.request(request(), head, **lines)


def _changed(**members: Any) -> Callable[[pb.HeadResponse], pb.DecideRequest]:
    """Signed, and then changed on the way."""

    def change(head: pb.HeadResponse) -> pb.DecideRequest:
        message = BILLING.request(request(), head)
        for name, value in members.items():
            setattr(message, name, value)
        return message

    return change


def _with(statement: bytes | None = None, signature: bytes | None = None) -> Callable[[pb.HeadResponse], Any]:
    def change(head: pb.HeadResponse) -> pb.DecideRequest:
        message = BILLING.request(request(), head)
        if statement is not None:
            message.signature.statement = statement
        if signature is not None:
            message.signature.signature = signature
        return message

    return change


UNPROVED: dict[str, tuple[Callable[[pb.HeadResponse], pb.DecideRequest], str]] = {
    "not signed": (lambda head: request(), "no signature"),
    "no statement": (_with(statement=b""), "statement"),
    "not a statement": (_with(statement=b"kind request\n"), "statement"),
    "a statement with a line more": (lambda h: _lined(h), "statement"),
    "no signature": (_with(signature=b""), "signature"),
    "a signature cut short": (_with(signature=bytes(63)), "signature"),
    "a signature of zeros": (_with(signature=bytes(64)), "signature"),
    "for another chain": (_signed(audience=bytes(32)), "statement"),
    "for an outcome": (_signed(kind="outcome"), "statement"),
    "for reading": (_signed(kind="read"), "statement"),
    "over another message": (_signed(digest=bytes(32)), "statement"),
    "arguments changed on the way": (_changed(arguments=b'{"amount":1000000}'), "statement"),
    "purpose changed on the way": (_changed(purpose="for me"), "statement"),
    "agent changed on the way": (_changed(agent="payroll-agent"), "statement"),
    "idempotency key changed on the way": (_changed(idempotency_key="k"), "statement"),
    "for the epoch before": (lambda h: BILLING.request(request(), h, epoch=h.epoch - 1), "epoch"),
    "for an epoch to come": (lambda h: BILLING.request(request(), h, epoch=h.epoch + 1), "epoch"),
    "a minute old": (lambda h: BILLING.request(request(), h, time=time.time_ns() - 61 * SECOND), "window"),
    "of the next minute": (lambda h: BILLING.request(request(), h, time=time.time_ns() + 70 * SECOND), "window"),
    "by nobody known": (_signed(by="stranger"), "unknown"),
    "by a key of another": (_signed(key=PAYROLL.key_id), "key"),
    "by a key of nobody": (_signed(MALLORY), "key"),
    "under another's key id": (lambda h: MALLORY.request(request(), h, key=BILLING.key_id), "signature"),
}


def _lined(head: pb.HeadResponse) -> pb.DecideRequest:
    message = BILLING.request(request(), head)
    message.signature.statement += b"role admin\n"
    return message


@pytest.mark.parametrize("what", UNPROVED)
def test_who_is_not_proved_is_refused(what: str, tmp_path: Path) -> None:
    make, why = UNPROVED[what]

    async def story(run: Running, head: pb.HeadResponse) -> None:
        error = await refused(run.decisions.Decide(make(head)))
        assert error.code() == UNAUTHENTICATED, error.details()
        recorded = await payload_at(run)
        assert (recorded["type"], recorded["code"], recorded["principal"]) == ("REJECTED", "UNAUTHENTICATED", "")
        assert recorded["cause"] == error.details()
        trailing = dict(error.trailing_metadata() or ())
        assert trailing.get("sidecar-epoch") == (str(head.epoch) if why == "epoch" else None)

    metrics = played(tmp_path, story, ScriptedEngine(_never))
    assert counted(metrics, why) == 1


def _never(_: dict[str, Any]) -> object:
    raise AssertionError("the policy was asked for somebody who is not proved")


FORBIDDEN: dict[str, tuple[dict[str, Any], Callable[[pb.HeadResponse], pb.DecideRequest], str, str]] = {
    "suspended": (BILLING.entry(status="suspended"), _signed(), "suspended", "billing-agent"),
    "revoked": (BILLING.entry(status="revoked"), _signed(), "revoked", "billing-agent"),
    "an executor who asks": (BILLING.entry("executor"), _signed(), "kind", "billing-agent"),
    "an approver who asks": (BILLING.entry("approver"), _signed(), "kind", "billing-agent"),
    "in another's name": (BILLING.entry(), lambda h: PAYROLL.request(request(), h), "name", "payroll-agent"),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_who_is_proved_and_may_not(what: str, tmp_path: Path) -> None:
    registry_entry, make, why, principal = FORBIDDEN[what]

    async def story(run: Running, head: pb.HeadResponse) -> None:
        await run.in_force.put_registry(registered(registry_entry, PAYROLL.entry()))
        error = await refused(run.decisions.Decide(make(head)))
        assert error.code() == DENIED, error.details()
        recorded = await payload_at(run)
        assert (recorded["type"], recorded["code"], recorded["principal"]) == ("REJECTED", DENIED.name, principal)

    assert counted(played(tmp_path, story, ScriptedEngine(_never)), why) == 1


KEYS: dict[str, dict[str, Any]] = {
    "revoked": {"status": "revoked"},
    "expired": {"not_after": "2026-01-01T00:00:00.000000000Z"},
    "not yet valid": {"not_before": "2999-01-01T00:00:00.000000000Z"},
}


@pytest.mark.parametrize("what", KEYS)
def test_a_key_that_is_not_valid_now(what: str, tmp_path: Path) -> None:
    keys = [{**BILLING.entry()["keys"][0], **KEYS[what]}]

    async def story(run: Running, head: pb.HeadResponse) -> None:
        await run.in_force.put_registry(registered(BILLING.entry(keys=keys)))
        error = await refused(run.decisions.Decide(BILLING.request(request(), head)))
        assert error.code() == UNAUTHENTICATED
        assert (await payload_at(run))["type"] == "REJECTED"

    assert counted(played(tmp_path, story, ScriptedEngine(_never)), "key") == 1


async def replayed(run: Running, signed: pb.DecideRequest) -> None:
    """It is refused, and that is on record."""
    error = await refused(run.decisions.Decide(signed))
    assert error.code() == UNAUTHENTICATED
    recorded = await payload_at(run)
    assert (recorded["type"], recorded["code"], recorded["cause"]) == ("REJECTED", "UNAUTHENTICATED", error.details())


def test_a_replay_is_refused_within_the_window_and_after_it(tmp_path: Path) -> None:
    now = [time.time_ns()]

    async def story(run: Running, head: pb.HeadResponse) -> None:
        signed = BILLING.request(request(idempotency_key="pay-1"), head, time=now[0])
        await run.decisions.Decide(signed)
        await replayed(run, signed)
        now[0] += 61 * SECOND
        await replayed(run, signed)
        now[0] += 600 * SECOND
        later = BILLING.request(request(), head, time=now[0])
        await run.decisions.Decide(later)
        now[0] -= 600 * SECOND  # the clock is put back to when the first was fresh
        await replayed(run, signed)

    metrics = played(tmp_path, story, wall_ns=lambda: now[0])
    assert (counted(metrics, "replayed"), counted(metrics, "window")) == (1, 2)


def test_a_replay_after_a_restart_or_to_another_chain(tmp_path: Path) -> None:
    kept: list[pb.DecideRequest] = []

    async def first(run: Running, head: pb.HeadResponse) -> None:
        kept.append(BILLING.request(request(idempotency_key="pay-1"), head))
        await run.decisions.Decide(kept[0])

    async def again(run: Running, head: pb.HeadResponse) -> None:
        await replayed(run, kept[0])

    played(tmp_path, first)
    assert counted(played(tmp_path, again), "epoch") == 1
    (tmp_path / "other").mkdir()
    assert counted(played(tmp_path / "other", again), "statement") == 1


def test_a_revoked_agents_retry_is_no_allow(tmp_path: Path) -> None:
    async def story(run: Running, head: pb.HeadResponse) -> None:
        def asked() -> pb.DecideRequest:
            return BILLING.request(request(idempotency_key="pay-1"), head)

        first = await run.decisions.Decide(asked())
        again = await run.decisions.Decide(asked())
        assert (again.decision_id, again.effect) == (first.decision_id, pb.EFFECT_ALLOW)
        await run.in_force.put_registry(registered(BILLING.entry(status="revoked")))
        assert (await refused(run.decisions.Decide(asked()))).code() == DENIED
        recorded = await payload_at(run)
        assert (recorded["type"], recorded["principal"]) == ("REJECTED", "billing-agent")

    assert counted(played(tmp_path, story), "revoked") == 1


def test_streams_and_batches_are_proved_question_by_question(tmp_path: Path) -> None:
    async def story(run: Running, head: pb.HeadResponse) -> None:
        good, bad = BILLING.request(request(), head), MALLORY.request(request(), head)
        batch = await run.decisions.DecideBatch(pb.DecideBatchRequest(requests=[bad, good, request()]))
        assert [a.WhichOneof("what") for a in batch.answers] == ["refusal", "decision", "refusal"]
        assert batch.answers[0].refusal.code == UNAUTHENTICATED.value[0]
        asked = [BILLING.request(request(), head), BILLING.request(request(), head, epoch=99)]
        stream = run.decisions.DecideStream(iter([streamed(*asked)]))
        answers = {a.correlation_id: a.answer for a in await answered(stream)}
        assert answers[1].decision.effect == pb.EFFECT_ALLOW
        assert answers[2].refusal.message.startswith("epoch: ")

    played(tmp_path, story)


def test_an_outcome_is_reported_by_the_agent_itself(tmp_path: Path) -> None:
    async def story(run: Running, head: pb.HeadResponse) -> None:
        answer = await run.decisions.Decide(BILLING.request(request(), head))

        def report(by: str) -> pb.ReportOutcomeRequest:
            status = pb.OUTCOME_STATUS_EXECUTED
            return pb.ReportOutcomeRequest(agent=by, decision_id=answer.decision_id, status=status)

        for bad, code in (
            (report("billing-agent"), UNAUTHENTICATED),
            (MALLORY.outcome(report("billing-agent"), head), UNAUTHENTICATED),
            (PAYROLL.outcome(report("billing-agent"), head), DENIED),
            (PAYROLL.outcome(report("payroll-agent"), head), DENIED),
            (GATEWAY.outcome(report("payments-gateway"), head), DENIED),
        ):
            assert (await refused(run.decisions.ReportOutcome(bad))).code() == code
            assert (await payload_at(run))["code"] == code.name
        await run.decisions.ReportOutcome(BILLING.outcome(report("billing-agent"), head))

    played(tmp_path, story)


def test_entries_are_shown_to_those_they_name(tmp_path: Path) -> None:
    async def story(run: Running, head: pb.HeadResponse) -> None:
        seq = (await run.decisions.Decide(BILLING.request(request(), head))).seq
        shown = await run.reading.GetEntry(BILLING.read(pb.GetEntryRequest(seq=seq), str(seq), head))
        assert shown.seq == seq
        get, prove, at = run.reading.GetEntry, run.reading.Prove, str(seq)
        for call, message, code in (
            (get, pb.GetEntryRequest(seq=seq), UNAUTHENTICATED),
            (get, PAYROLL.read(pb.GetEntryRequest(seq=seq), at, head), DENIED),
            (get, BILLING.read(pb.GetEntryRequest(seq=0), "0", head), DENIED),
            (get, BILLING.read(pb.GetEntryRequest(seq=seq), "1", head), UNAUTHENTICATED),
            (prove, pb.ProveRequest(seq=seq), UNAUTHENTICATED),
            (prove, PAYROLL.read(pb.ProveRequest(seq=seq), at, head), DENIED),
            (get, pb.GetEntryRequest(seq=10**6), UNAUTHENTICATED),
        ):
            assert (await refused(call(message))).code() == code
            assert (await payload_at(run))["code"] == code.name

    played(tmp_path, story)


def test_with_dev_a_signature_that_is_given_must_be_right(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as run:
            head = await run.reading.Head(pb.HeadRequest())
            error = await refused(run.decisions.Decide(BILLING.request(request(), head)))
            assert error.code() == UNAUTHENTICATED  # nobody is registered
            await run.in_force.put_registry(registered(BILLING.entry(), PAYROLL.entry(status="suspended")))
            assert (await run.decisions.Decide(BILLING.request(request(), head))).agent_proof == "signature"
            bad = BILLING.request(request(), head)
            bad.signature.signature = bytes(64)
            assert (await refused(run.decisions.Decide(bad))).code() == UNAUTHENTICATED
            assert (await last_entry(run))["type"] == "REJECTED"
            answer = await run.decisions.Decide(request())
            assert answer.agent_proof == "asserted"
            assert (await entry(run, answer.seq))["agent"]["roles"] == ["billing"]
            assert (await refused(run.decisions.Decide(request(agent="payroll-agent")))).code() == DENIED

    asyncio.run(main())
    assert judged(tmp_path / "ledger").decisions["asserted"] == 1
