"""Permits and outcomes over the wire: what an executor is given, and every outcome that is not taken.

Each refusal by status, by REJECTED entry and by metric; what was written verifies.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.api import Metrics
from sidecar.chain.digests import arguments_digest
from sidecar.chain.entry import Header
from sidecar.chain.permit import Permit
from sidecar.client.permits import PermitCheck, PermitRefused
from sidecar.ledger import Options
from sidecar.v1 import decision_pb2 as pb
from tests.api.pages import series
from tests.api.running import Running, answered, judged, request, running, streamed
from tests.api.test_decisions import DENY, refused
from tests.decide.engines import ALLOW, ScriptedEngine
from tests.identity.agents import BILLING, GATEWAY, PAYROLL, Agent, registered

INVALID, DENIED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED
WRONG, UNKNOWN = grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND
SECOND = 1_000_000_000
NOBODY = "019ab4a0-7c3e-7f11-8a55-0242ac120002"
CRM = Agent("crm-api", Ed25519PrivateKey.generate())
OLD = Agent("old-api", Ed25519PrivateKey.generate())
EVERYBODY = (
    BILLING.entry(), PAYROLL.entry(), GATEWAY.entry("executor", roles=["bank"], attributes={"zone": 1}),
    CRM.entry("executor"), OLD.entry("executor", status="suspended"),
)  # fmt: skip
Story = Callable[["Talk"], Awaitable[None]]


@dataclasses.dataclass
class Talk:
    """A sidecar, and what is said to it."""

    run: Running
    head: pb.HeadResponse
    engine: ScriptedEngine

    async def ask(self, **changes: Any) -> pb.DecideResponse:
        """A signed question that names the executor."""
        asked = request(**{"action": "payments.transfer", "executor": GATEWAY.id, **changes})
        answer: pb.DecideResponse = await self.run.decisions.Decide(BILLING.request(asked, self.head))
        return answer

    def report(self, answer: pb.DecideResponse, by: Agent = GATEWAY, **changes: Any) -> pb.ReportOutcomeRequest:
        """A good report of that decision, but changed, signed."""
        members = {
            "agent": by.id, "decision_id": answer.decision_id, "status": pb.OUTCOME_STATUS_EXECUTED,
            "response": b'{"ok":true}', "permit": answer.permit, "downstream_status": "200",
            "arguments_digest": arguments_digest(request().arguments), "started_ns": time.time_ns(),
            "duration_ns": 1_000, **changes,
        }  # fmt: skip
        return by.outcome(pb.ReportOutcomeRequest(**members), self.head)

    async def tell(self, report: pb.ReportOutcomeRequest) -> pb.ReportOutcomeResponse:
        told: pb.ReportOutcomeResponse = await self.run.decisions.ReportOutcome(report)
        return told

    def last(self) -> dict[str, Any]:
        return self.run.ledger.payload(self.run.ledger.position().next_seq - 1)

    def permits(self, **changed: Any) -> PermitCheck:
        """The executor's check, with the chain's key as a trust file would have it."""
        identity = self.run.ledger.payload(0)["identity"]
        return PermitCheck(
            **{"chain": self.head.chain_id.hex(), "identity": identity, "executor": GATEWAY.id, **changed}
        )

    def decided_at(self, answer: pb.DecideResponse) -> int:
        return Header.decode(self.run.ledger.entry(answer.seq).header).wall_ns


def played(tmp_path: Path, *stories: Story, effect: Any = ALLOW, **more: Any) -> Metrics:
    """One sidecar after the other over the same ledger, signatures required; the ledger verifies at the end."""
    metrics = Metrics("test")

    async def one(story: Story, counted: Metrics) -> None:
        engine = ScriptedEngine(lambda _: effect)
        async with running(tmp_path, engine, development=False, metrics=counted, **more) as run:
            await run.in_force.put_registry(registered(*EVERYBODY))
            await story(Talk(run, await run.reading.Head(pb.HeadRequest()), engine))

    for story in stories:
        metrics = Metrics("test")
        asyncio.run(one(story, metrics))
    report = judged(tmp_path / "ledger")
    assert report.verdict.name == "UNANCHORED", report.findings
    return metrics


def counted(metrics: Metrics, why: str) -> float:
    return series(metrics.page())["sidecar_outcomes_refused_total", why]


# --- the permit


def test_an_allow_gives_the_executor_a_permit_that_it_checks_offline(tmp_path: Path) -> None:
    async def story(talk: Talk) -> None:
        answer = await talk.ask()
        taken = talk.permits().check(
            answer.permit, "payments.transfer", ("customer", "acme-42"), b'{"fields": ["name"]}'
        )
        assert (taken.decision_id, taken.seq, taken.agent) == (answer.decision_id, answer.seq, BILLING.id)
        assert 59 * SECOND < taken.not_after - talk.decided_at(answer) <= 60 * SECOND
        with pytest.raises(PermitRefused):
            talk.permits(executor=CRM.id).check(
                answer.permit, "payments.transfer", ("customer", "acme-42"), b'{"fields": ["name"]}'
            )
        entry = talk.run.ledger.payload(answer.seq)
        assert entry["executor"] == {"id": GATEWAY.id, "roles": ["bank"], "attributes": {"zone": 1}}
        assert entry["permit"] == {"not_after": str(taken.not_after)}
        assert talk.engine.seen[0]["executor"] == entry["executor"]
        told = await talk.tell(talk.report(answer))
        outcome = talk.run.ledger.payload(told.seq)
        assert (outcome["by"]["id"], outcome["by"]["proof"], outcome["agent"]["id"]) == (
            GATEWAY.id, "signature", BILLING.id
        )  # fmt: skip
        assert (outcome["permit"].encode(), outcome["downstream_status"]) == (answer.permit, "200")

    played(tmp_path, story)


@pytest.mark.parametrize("effect", [DENY, ALLOW])
def test_no_permit_for_a_deny_or_without_an_executor(effect: Any, tmp_path: Path) -> None:
    async def story(talk: Talk) -> None:
        answer = await talk.ask(executor=GATEWAY.id if effect is DENY else "")
        assert answer.permit == b"" and talk.run.ledger.payload(answer.seq)["permit"] is None

    played(tmp_path, story, effect=effect)


@pytest.mark.parametrize("name", [BILLING.id, OLD.id, "nobody", "x" * 300, "caf\u00e9"])
def test_an_executor_that_is_none_is_refused(name: str, tmp_path: Path) -> None:
    async def story(talk: Talk) -> None:
        error = await refused(talk.ask(executor=name))
        assert error.code() == INVALID and "executor" in (error.details() or "")
        said = talk.last()
        assert (said["type"], said["call"], said["field"]) == ("REJECTED", "Decide", "executor")
        assert talk.engine.seen == []

    metrics = played(tmp_path, story)
    assert series(metrics.page())["sidecar_rejected_total", "INVALID_ARGUMENT"] == 1.0


def test_without_a_registry_there_is_no_executor(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as run:
            error = await refused(run.decisions.Decide(request(executor=GATEWAY.id)))
            assert error.code() == INVALID and "executor" in (error.details() or "")
            await run.in_force.put_registry(registered(*EVERYBODY))
            unnameable = await refused(run.decisions.Decide(request(agent="caf\u00e9", executor=GATEWAY.id)))
            assert unnameable.code() == INVALID and "agent" in (unnameable.details() or "")
            assert (await run.decisions.Decide(request(agent="caf\u00e9"))).effect == pb.EFFECT_ALLOW

    asyncio.run(main())


@pytest.mark.parametrize("seconds", [1, 3_600])
def test_a_permit_is_good_as_long_as_is_configured(seconds: int, tmp_path: Path) -> None:
    async def story(talk: Talk) -> None:
        answer = await talk.ask()
        until = int(talk.run.ledger.payload(answer.seq)["permit"]["not_after"])
        assert (seconds - 1) * SECOND < until - talk.decided_at(answer) <= seconds * SECOND

    played(tmp_path, story, permit_seconds=seconds)


def test_the_same_question_again_gets_the_same_permit_also_after_a_restart(tmp_path: Path) -> None:
    given: list[bytes] = []

    async def story(talk: Talk) -> None:
        answers = [await talk.ask(idempotency_key="k-1") for _ in range(2)]
        given.extend(answer.permit for answer in answers)
        assert (await talk.ask(idempotency_key="k-2")).permit not in given

    played(tmp_path, story, story)
    assert len(given) == 4 and len(set(given)) == 1 and given[0]


def test_a_batch_and_a_stream_give_permits_too(tmp_path: Path) -> None:
    async def story(talk: Talk) -> None:
        def asked() -> pb.DecideRequest:
            return BILLING.request(request(executor=GATEWAY.id), talk.head)

        batch = await talk.run.decisions.DecideBatch(pb.DecideBatchRequest(requests=[asked(), asked()]))
        stream = talk.run.decisions.DecideStream(iter([streamed(asked())]))
        answers = [a.decision for a in batch.answers] + [r.answer.decision for r in await answered(stream)]
        assert len(answers) == 3
        for answer in answers:
            talk.permits().check(answer.permit, "crm.read", ("customer", "acme-42"), b'{"fields": ["name"]}')
            assert (await talk.tell(talk.report(answer))).seq

    played(tmp_path, story)


# --- outcomes that are not taken

Change = Callable[[Talk, pb.DecideResponse], pb.ReportOutcomeRequest]


def changed(by: Agent = GATEWAY, **members: Any) -> Change:
    return lambda talk, answer: talk.report(answer, by, **members)


def begun(offset: Callable[[Talk, pb.DecideResponse], int]) -> Change:
    return lambda talk, answer: talk.report(answer, started_ns=offset(talk, answer))


def until(talk: Talk, answer: pb.DecideResponse) -> int:
    return int(talk.run.ledger.payload(answer.seq)["permit"]["not_after"])


def forged(talk: Talk, answer: pb.DecideResponse) -> pb.ReportOutcomeRequest:
    read = Permit.open(answer.permit, talk.head.chain_id, bytes.fromhex(talk.run.ledger.payload(0)["identity"]))
    return talk.report(answer, permit=read.sign(Ed25519PrivateKey.generate()))


REFUSED: dict[str, tuple[Change, grpc.StatusCode, str, str]] = {
    "other arguments": (changed(arguments_digest=bytes(32)), WRONG, "arguments", "arguments_digest:"),
    "no arguments": (changed(arguments_digest=b""), WRONG, "arguments", "arguments_digest:"),
    "no permit": (changed(permit=b""), WRONG, "permit", "permit:"),
    "a permit that is none": (changed(permit=b"\xff\xfe"), WRONG, "permit", "permit:"),
    "a forged permit": (forged, WRONG, "permit", "permit:"),
    "begun at the permit's end": (begun(until), WRONG, "time", "started_ns:"),
    "begun long before the decision": (
        begun(lambda t, a: t.decided_at(a) - 61 * SECOND), WRONG, "time", "started_ns:"
    ),
    "not begun": (changed(started_ns=0), WRONG, "time", "started_ns:"),
    "blocked, and begun": (changed(status=pb.OUTCOME_STATUS_BLOCKED), WRONG, "time", "started_ns:"),
    "by the agent": (changed(BILLING), DENIED, "reporter", "agent:"),
    "by another executor": (changed(CRM), DENIED, "reporter", "agent:"),
    "by a suspended executor": (changed(OLD), DENIED, "reporter", "agent:"),
    "of no decision": (changed(decision_id=NOBODY), UNKNOWN, "unknown", "decision_id:"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_an_outcome_is_refused(what: str, tmp_path: Path) -> None:
    make, code, why, cause = REFUSED[what]

    async def story(talk: Talk) -> None:
        answer = await talk.ask()
        report = make(talk, answer)
        error = await refused(talk.tell(report))
        assert error.code() == code and (error.details() or "").startswith(cause)
        said = talk.last()
        assert (said["type"], said["call"], said["code"]) == ("REJECTED", "ReportOutcome", code.name)
        assert said["cause"].startswith(cause)
        assert said["principal"] == report.agent
        suspended = report.agent == OLD.id  # refused for who it is, before the decision is looked at
        assert said["decision_id"] == ("" if suspended else report.decision_id)
        assert talk.run.ledger.about(answer.seq) == []
        assert (await talk.tell(talk.report(answer))).seq  # the true one is taken all the same

    metrics = played(tmp_path, story)
    assert counted(metrics, why) == 1.0
    assert series(metrics.page())["sidecar_rejected_total", code.name] == 1.0


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"status": 0}, "status"),
        ({"started_ns": -1}, "started_ns"),
        ({"duration_ns": -1}, "duration_ns"),
        ({"arguments_digest": b"short"}, "arguments_digest"),
        ({"downstream_status": "x" * 257}, "downstream_status"),
        ({"response": b"{"}, "response"),
    ],
)
def test_a_malformed_outcome_is_refused(members: dict[str, Any], field: str, tmp_path: Path) -> None:
    async def story(talk: Talk) -> None:
        answer = await talk.ask()
        assert (await refused(talk.tell(talk.report(answer, **members)))).code() == INVALID
        assert (talk.last()["call"], talk.last()["field"]) == ("ReportOutcome", field)

    assert counted(played(tmp_path, story), "malformed") == 1.0


def test_an_unsigned_outcome_is_refused(tmp_path: Path) -> None:
    async def story(talk: Talk) -> None:
        report = talk.report(await talk.ask())
        report.ClearField("signature")
        assert (await refused(talk.tell(report))).code() == grpc.StatusCode.UNAUTHENTICATED
        assert talk.last()["call"] == "ReportOutcome"

    assert counted(played(tmp_path, story), "unproved") == 1.0


def test_an_outcome_of_the_next_minute_is_refused(tmp_path: Path) -> None:
    async def story(talk: Talk) -> None:
        answer = await talk.ask()
        error = await refused(talk.tell(talk.report(answer, started_ns=time.time_ns() + 70 * SECOND)))
        assert error.code() == WRONG and "started_ns" in (error.details() or "")
        within = talk.report(answer, started_ns=talk.decided_at(answer) - 50 * SECOND)  # the executor's clock is late
        assert (await talk.tell(within)).seq

    assert counted(played(tmp_path, story, permit_seconds=3_600), "time") == 1.0


def test_an_outcome_for_a_deny_is_refused(tmp_path: Path) -> None:
    async def story(talk: Talk) -> None:
        answer = await talk.ask()
        error = await refused(talk.tell(talk.report(answer, BILLING)))
        assert error.code() == WRONG and "DENY" in (error.details() or "")
        assert (talk.last()["principal"], talk.last()["decision_id"]) == (BILLING.id, answer.decision_id)

    assert counted(played(tmp_path, story, effect=DENY), "no allow") == 1.0


def test_a_permit_of_another_decision_and_one_where_there_is_none(tmp_path: Path) -> None:
    async def story(talk: Talk) -> None:
        first, second, plain = await talk.ask(), await talk.ask(), await talk.ask(executor="")
        for report in (
            talk.report(first, permit=second.permit),
            talk.report(plain, BILLING, permit=first.permit),
        ):
            assert (await refused(talk.tell(report))).code() == WRONG
        wrong = talk.report(plain, BILLING, arguments_digest=bytes(32), permit=b"")
        assert "arguments_digest" in ((await refused(talk.tell(wrong))).details() or "")
        assert (await talk.tell(talk.report(plain, BILLING))).seq  # it may say more than it must

    metrics = played(tmp_path, story)
    assert (counted(metrics, "permit"), counted(metrics, "arguments")) == (2.0, 1.0)


def test_what_was_blocked_may_be_told_after_the_permit_ended(tmp_path: Path) -> None:
    answers: list[pb.DecideResponse] = []

    async def ask(talk: Talk) -> None:
        answers.append(await talk.ask())

    async def later(talk: Talk) -> None:
        blocked = talk.report(answers[0], status=pb.OUTCOME_STATUS_BLOCKED, started_ns=0, duration_ns=0)
        assert talk.run.ledger.payload((await talk.tell(blocked)).seq)["status"] == "blocked"

    played(tmp_path, ask, later, permit_seconds=1)


def test_in_shadow_a_deny_gives_no_permit_and_its_agent_reports(tmp_path: Path) -> None:
    async def story(talk: Talk) -> None:
        answer = await talk.ask()
        assert answer.permit == b"" and not answer.enforced
        assert (await refused(talk.tell(talk.report(answer)))).code() == DENIED
        assert (await talk.tell(talk.report(answer, BILLING))).seq

    played(tmp_path, story, effect=DENY, enforced=False)


# --- one outcome


def test_the_same_outcome_again_gets_the_same_answer_and_another_is_refused(tmp_path: Path) -> None:
    kept: list[Any] = []

    async def story(talk: Talk) -> None:
        if not kept:
            kept.append(await talk.ask())
            kept.append(talk.report(kept[0]))
        told = await talk.tell(GATEWAY.outcome(kept[1], talk.head))  # signed anew, and otherwise the same
        kept.append((told.seq, told.receipt))
        assert talk.run.ledger.about(kept[0].seq) == [(told.seq, 4)]
        error = await refused(talk.tell(talk.report(kept[0], response=b'{"ok":false}')))
        assert error.code() == WRONG and (error.details() or "").startswith("outcome:")
        said = talk.last()
        assert (said["code"], said["principal"], said["decision_id"]) == (WRONG.name, GATEWAY.id, kept[0].decision_id)

    metrics = played(tmp_path, story, story)
    assert counted(metrics, "second") == 1.0
    assert kept[2] == kept[3] and kept[2][1]


def test_a_receipt_that_is_forgotten_is_not_made_up(tmp_path: Path) -> None:
    async def story(talk: Talk) -> None:
        report = talk.report(await talk.ask())
        first = await talk.tell(report)
        again = await talk.tell(GATEWAY.outcome(report, talk.head))
        assert (again.seq, again.receipt) == (first.seq, b"")

    played(tmp_path, story, options=Options(remember_ns=1))


def test_of_many_outcomes_at_once_one_is_taken(tmp_path: Path) -> None:
    async def story(talk: Talk) -> None:
        answer = await talk.ask()
        reports = [talk.report(answer, response=f"{n}".encode()) for n in range(8)]
        told = await asyncio.gather(*(talk.tell(r) for r in reports), return_exceptions=True)
        assert sum(isinstance(t, pb.ReportOutcomeResponse) for t in told) == 1
        assert len(talk.run.ledger.about(answer.seq)) == 1

    assert counted(played(tmp_path, story), "second") == 7.0


def test_the_same_outcome_twice_at_once_is_one_entry(tmp_path: Path) -> None:
    async def story(talk: Talk) -> None:
        answer = await talk.ask()
        report = talk.report(answer)
        again = pb.ReportOutcomeRequest()
        again.CopyFrom(report)
        told = await asyncio.gather(talk.tell(report), talk.tell(GATEWAY.outcome(again, talk.head)))
        assert told[0] == told[1] and len(talk.run.ledger.about(answer.seq)) == 1

    played(tmp_path, story)


def test_an_outcome_whose_reporter_went_away_counts(tmp_path: Path) -> None:
    """Cancelled at any point, it is there whole or not at all, and never makes room for a second."""

    async def story(talk: Talk) -> None:
        for turns in range(0, 40, 2):
            answer = await talk.ask()
            call = asyncio.ensure_future(talk.tell(talk.report(answer, response=b"1")))
            for _ in range(turns):
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            await asyncio.gather(talk.tell(talk.report(answer, response=b"2")), return_exceptions=True)
            assert len(talk.run.ledger.about(answer.seq)) == 1

    played(tmp_path, story)


# --- what must not fill the ledger, nor hide


def test_outcomes_of_unknown_decisions_do_not_fill_the_ledger_nor_hide_what_matters(tmp_path: Path) -> None:
    async def story(talk: Talk) -> None:
        answer = await talk.ask()
        before = talk.run.ledger.position().next_seq
        for _ in range(60):
            await refused(talk.tell(talk.report(answer, decision_id=NOBODY)))
        await refused(talk.tell(talk.report(answer, arguments_digest=bytes(32))))
        said = talk.last()
        assert (said["decision_id"], said["count"]) == (answer.decision_id, 1)
        assert said["cause"].startswith("arguments_digest:")
        assert talk.run.ledger.position().next_seq - before < 40  # 10 at once, then one a second

    assert counted(played(tmp_path, story), "unknown") == 60.0


def test_what_is_no_id_is_not_kept(tmp_path: Path) -> None:
    async def story(talk: Talk) -> None:
        answer = await talk.ask()
        assert (await refused(talk.tell(talk.report(answer, decision_id="my secret")))).code() == UNKNOWN
        assert talk.last()["decision_id"] == "" and "secret" not in str(talk.last())

    played(tmp_path, story)
