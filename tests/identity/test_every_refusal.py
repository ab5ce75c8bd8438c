"""Every refusal of who asks, acts, approves or gives leave: status, REJECTED entry and metric, in one table.

A case is a call over the wire by somebody who must not have what it asks. What its entry says: the call, who was proved
(or nobody), the decision it is about. What counts it, besides `sidecar_rejected_total` by code.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import grpc.aio
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.api.messages import outcome_of, request_of
from sidecar.chain import lines, note, signing
from sidecar.chain.digests import arguments_digest, read_digest
from sidecar.chain.head import Head
from sidecar.chain.permit import Permit
from sidecar.chain.statement import Statement
from sidecar.v1 import decision_pb2 as pb
from tests.api.desks import PEOPLE, Clock, Desk, Policy, desk
from tests.api.pages import moved
from tests.api.running import answered, judged, streamed
from tests.people import delegated, key, person

SECOND = 1_000_000_000
EXECUTOR = person("payments-api", "executor")
GONE = person("gone-agent", "agent", status="revoked")
AWAY = person("away-agent", "agent", status="suspended")
LATE = person("late-approver", "approver", "lead", status="suspended")
EVERYBODY = (*PEOPLE, EXECUTOR, GONE, AWAY, LATE)
UNKNOWN = "0190a5b2-5c3d-7a10-8000-0123456789ab"
TEXT = b'{"amount": 9000}'
UNPROVED, MAY_NOT, WRONG, NONE, BAD = (
    "UNAUTHENTICATED", "PERMISSION_DENIED", "FAILED_PRECONDITION", "NOT_FOUND", "INVALID_ARGUMENT",
)  # fmt: skip


class Case(NamedTuple):
    """``make`` gives the call. ``about``: whether the entry names a decision. ``metric``: what else counts it."""

    call: str
    status: str
    metric: tuple[str, str] | None
    make: Callable[[Desk], Awaitable[Any]]
    principal: str = ""
    about: bool = False


def why(word: str) -> tuple[str, str]:
    return "sidecar_unproved_total", word


def outcome(word: str) -> tuple[str, str]:
    return "sidecar_outcomes_refused_total", word


def approval(word: str) -> tuple[str, str]:
    return "sidecar_approvals_total", word


# --- questions, asked in each of the three ways


def question(**changes: Any) -> pb.DecideRequest:
    fields: dict[str, Any] = {
        "agent": "billing-agent", "action": "payments.transfer", "arguments": TEXT,
        "resource": pb.Resource(type="account", id="acct-17"),
    }  # fmt: skip
    return pb.DecideRequest(**(fields | changes))


def signed(d: Desk, by: str = "", signer: str = "", lines: dict[str, Any] | None = None, **changes: Any) -> Any:
    """A question and its statement, with some of its ``lines`` changed."""
    asked = question(**changes)
    by, secret = by or asked.agent, key(signer or by or asked.agent)
    said = {
        "kind": "request", "audience": d.signing.chain_id, "epoch": d.signing.epoch, "by": by,
        "key": signing.key_id(signing.public_spki(secret)), "digest": request_of(asked).digest(),
        "time": time.time_ns(), "nonce": os.urandom(16), **(lines or {}),
    }  # fmt: skip
    text = Statement(**said).encode()
    asked.signature.CopyFrom(pb.Signature(statement=text, signature=signing.sign(secret, text)))
    return asked


async def replayed(d: Desk) -> pb.DecideRequest:
    sent = signed(d)
    await d.up.decisions.Decide(sent)
    return sent


async def unheld(d: Desk) -> pb.DecideRequest:
    """With a receipt of this chain that the ledger does not hold."""
    at = d.up.ledger.position()
    head = Head.parse(note.parse(at.head).text)
    forged = dataclasses.replace(head, leaf=bytes(32)).text()
    name = lines.segment_name(at.chain_id, head.segment)
    return signed(d, last_receipt=note.sign(forged, name, key("mallory")))


def sent(*chain: Any) -> list[pb.Delegation]:
    return [pb.Delegation(text=g.text, key=g.key, signature=g.signature) for g in chain]


def altered(d: Desk) -> pb.DecideRequest:
    asked = signed(d)
    asked.purpose = "for me"
    return asked


def cut(d: Desk) -> pb.DecideRequest:
    asked = signed(d)
    asked.signature.signature = asked.signature.signature[:-1]
    return asked


LEAVE = delegated("ursula", "billing-agent")
QUESTIONS: dict[str, tuple[str, tuple[str, str] | None, str, Callable[[Desk], Any]]] = {
    "not signed": (UNPROVED, why("no signature"), "", lambda d: question()),
    "a statement that is none": (
        UNPROVED, why("statement"), "", lambda d: question(signature=pb.Signature(statement=b"x", signature=b"y")),
    ),
    "altered on the way": (UNPROVED, why("statement"), "", altered),
    "a signature cut short": (UNPROVED, why("signature"), "", cut),
    "for another chain": (UNPROVED, why("statement"), "", lambda d: signed(d, lines={"audience": bytes(32)})),
    "for another epoch": (UNPROVED, why("epoch"), "", lambda d: signed(d, lines={"epoch": 99})),
    "signed long ago": (UNPROVED, why("window"), "", lambda d: signed(d, lines={"time": time.time_ns() - 99 * SECOND})),
    "signed in the future": (
        UNPROVED, why("window"), "", lambda d: signed(d, lines={"time": time.time_ns() + 99 * SECOND}),
    ),
    "replayed": (UNPROVED, why("replayed"), "", replayed),
    "by nobody known": (UNPROVED, why("unknown"), "", lambda d: signed(d, agent="nobody")),
    "with a key that is not its own": (UNPROVED, why("key"), "", lambda d: signed(d, signer="mallory")),
    "in another's name": (MAY_NOT, why("name"), "other-agent", lambda d: signed(d, by="other-agent")),
    "by a revoked agent": (MAY_NOT, why("revoked"), "gone-agent", lambda d: signed(d, agent="gone-agent")),
    "by a suspended agent": (MAY_NOT, why("suspended"), "away-agent", lambda d: signed(d, agent="away-agent")),
    "by an approver": (MAY_NOT, why("kind"), "ann", lambda d: signed(d, agent="ann")),
    "by an executor": (MAY_NOT, why("kind"), "payments-api", lambda d: signed(d, agent="payments-api")),
    "for an executor that is none": (BAD, None, "billing-agent", lambda d: signed(d, executor="other-agent")),
    "a delegation to another": (
        MAY_NOT, why("delegation"), "billing-agent",
        lambda d: signed(d, delegations=sent(delegated("ursula", "other-agent"))),
    ),
    "a delegation that is forged": (
        MAY_NOT, why("delegation"), "billing-agent",
        lambda d: signed(d, delegations=sent(dataclasses.replace(LEAVE, signature=bytes(64)))),
    ),
    "a delegation that does not cover it": (
        MAY_NOT, why("delegation"), "billing-agent",
        lambda d: signed(d, delegations=sent(delegated("ursula", "billing-agent", actions=["crm.*"]))),
    ),
    "a delegation that has ended": (
        MAY_NOT, why("delegation"), "billing-agent",
        lambda d: signed(
            d, delegations=sent(delegated("ursula", "billing-agent", not_after="2026-01-01T00:00:00.000000000Z"))
        ),
    ),
    "a delegation by somebody revoked": (
        MAY_NOT, why("delegation"), "billing-agent",
        lambda d: signed(d, delegations=sent(delegated("gone-agent", "billing-agent"))),
    ),
    "a chain of delegations that widens": (
        MAY_NOT, why("delegation"), "billing-agent",
        lambda d: signed(d, delegations=_widening()),
    ),
    "a delegation that is none": (
        BAD, None, "billing-agent", lambda d: signed(d, delegations=sent(dataclasses.replace(LEAVE, text=b"\xff"))),
    ),
    "a receipt that the ledger does not hold": (WRONG, None, "billing-agent", unheld),
    "under an approval of nothing": (NONE, None, "billing-agent", lambda d: signed(d, approval_of=UNKNOWN)),
}  # fmt: skip


def _widening() -> list[pb.Delegation]:
    first = delegated("ursula", "other-agent", actions=["payments.read"])
    return sent(first, delegated("other-agent", "billing-agent", first, actions=["payments.*"]))


async def _decide(d: Desk, asked: pb.DecideRequest) -> Any:
    return await d.up.decisions.Decide(asked)


async def _batch(d: Desk, asked: pb.DecideRequest) -> Any:
    answers = await d.up.decisions.DecideBatch(pb.DecideBatchRequest(requests=[asked]))
    raise _Refused(answers.answers[0].refusal)


async def _stream(d: Desk, asked: pb.DecideRequest) -> Any:
    async def questions() -> AsyncIterator[pb.DecideStreamRequest]:
        yield streamed(asked)

    answers = await answered(d.up.decisions.DecideStream(questions()))
    raise _Refused(answers[0].answer.refusal)


class _Refused(Exception):
    """One of several questions was."""

    def __init__(self, refusal: pb.Refusal) -> None:
        super().__init__(refusal.message)
        self.code = next((c.name for c in grpc.StatusCode if c.value[0] == refusal.code), "")


def _asked(how: Callable[[Desk, Any], Awaitable[Any]], make: Callable[[Desk], Any]) -> Callable[[Desk], Awaitable[Any]]:
    async def call(d: Desk) -> Any:
        asked = make(d)
        return await how(d, await asked if asyncio.iscoroutine(asked) else asked)

    return call


WAYS = {"Decide": _decide, "DecideBatch": _batch, "DecideStream": _stream}

# --- outcomes


async def _told(
    d: Desk, by: str = "payments-api", signer: str = "", unsigned: bool = False, times: int = 1, **changes: Any
) -> Any:
    """An outcome of an ALLOW with a permit, changed; told so many times, each time another one."""
    d.policy.enough = 0
    answer = await d.up.decisions.Decide(signed(d, executor="payments-api"))
    for n in range(times):
        members = {
            "agent": by, "decision_id": answer.decision_id, "status": pb.OUTCOME_STATUS_EXECUTED,
            "permit": answer.permit, "arguments_digest": arguments_digest(TEXT), "started_ns": time.time_ns(),
            "duration_ns": n, **changes,
        }  # fmt: skip
        report = pb.ReportOutcomeRequest(**members)
        if not unsigned:
            report.signature.CopyFrom(d.sign("outcome", by, outcome_of(report).digest(), signer=signer))
        told = await d.up.decisions.ReportOutcome(report)
    return told


async def _forged(d: Desk) -> Any:
    d.policy.enough = 0
    answer = await d.up.decisions.Decide(signed(d, executor="payments-api"))
    at = d.up.ledger.position().chain_id
    read = Permit.open(answer.permit, at, bytes.fromhex(d.payload(0)["identity"]))
    report = pb.ReportOutcomeRequest(
        agent="payments-api", decision_id=answer.decision_id, status=pb.OUTCOME_STATUS_EXECUTED,
        permit=read.sign(Ed25519PrivateKey.generate()), arguments_digest=arguments_digest(TEXT),
        started_ns=time.time_ns(),
    )  # fmt: skip
    report.signature.CopyFrom(d.sign("outcome", "payments-api", outcome_of(report).digest()))
    return await d.up.decisions.ReportOutcome(report)


async def _of_a_denial(d: Desk) -> Any:
    d.policy.enough, d.policy.after = 0, "DENY"
    answer = await d.up.decisions.Decide(signed(d))
    report = pb.ReportOutcomeRequest(
        agent="billing-agent", decision_id=answer.decision_id, status=pb.OUTCOME_STATUS_EXECUTED
    )
    report.signature.CopyFrom(d.sign("outcome", "billing-agent", outcome_of(report).digest()))
    return await d.up.decisions.ReportOutcome(report)


async def _unreadable(d: Desk) -> Any:
    call = d.up.channel.unary_unary("/sidecar.v1.DecisionService/ReportOutcome")
    return await call(b"\xff\xff")


def told(**changes: Any) -> Callable[[Desk], Awaitable[Any]]:
    return lambda d: _told(d, **changes)


API = "payments-api"
REPORT = "ReportOutcome"
OUTCOMES = {
    "not signed": Case(REPORT, UNPROVED, outcome("unproved"), told(unsigned=True)),
    "with another's key": Case(REPORT, UNPROVED, outcome("unproved"), told(signer="mallory")),
    "by the agent in its executor's place": Case(
        REPORT, MAY_NOT, outcome("reporter"), told(by="billing-agent"), "billing-agent", True
    ),
    "other arguments": Case(REPORT, WRONG, outcome("arguments"), told(arguments_digest=bytes(32)), API, True),
    "no permit": Case(REPORT, WRONG, outcome("permit"), told(permit=b""), API, True),
    "a forged permit": Case(REPORT, WRONG, outcome("permit"), _forged, API, True),
    "a late permit": Case(REPORT, WRONG, outcome("time"), told(started_ns=time.time_ns() + 3_600 * SECOND), API, True),
    "a second one": Case(REPORT, WRONG, outcome("second"), told(times=2), API, True),
    "for a DENY": Case(REPORT, WRONG, outcome("no allow"), _of_a_denial, "billing-agent", True),
    "of no decision": Case(REPORT, NONE, outcome("unknown"), told(decision_id=UNKNOWN), API, True),
    "malformed": Case(REPORT, BAD, outcome("malformed"), told(downstream_status="x" * 300)),
    "no message": Case(REPORT, BAD, outcome("malformed"), _unreadable),
    "too large": Case(REPORT, BAD, outcome("malformed"), told(response=b'"%s"' % (b"x" * (1 << 20)))),
}

# --- approvals


def _word(by: str = "ann", **more: Any) -> Callable[[Desk], Awaitable[Any]]:
    async def say(d: Desk) -> Any:
        return await d.approvals.Approve(d.word(by, await d.ask(**more.pop("asked", {})), **more))

    return say


async def _unsigned(d: Desk) -> Any:
    word = d.word("ann", await d.ask())
    word.ClearField("signature")
    return await d.approvals.Approve(word)


async def _strange(d: Desk) -> Any:
    word = d.word("ann", await d.ask())
    word.signature.signature = bytes(64)
    return await d.approvals.Approve(word)


async def _again(d: Desk) -> Any:
    """Another word by who has approved already."""
    d.policy.terms = {"count": 2}
    asked = await d.ask()
    await d.approve("ann", asked)
    return await d.approvals.Approve(d.signed_for("ann", asked, asked.decision_id, comment="again"))


async def _after_a_rejection(d: Desk) -> Any:
    asked = await d.ask()
    await d.approve("bob", asked, "reject")
    return await d.approve("ann", asked)


async def _expired(d: Desk) -> Any:
    asked = await d.ask()
    d.clock.ahead = 3_601 * SECOND
    return await d.approve("ann", asked)


async def _of_nothing(d: Desk) -> Any:
    return await d.approvals.Approve(d.signed_for("ann", await d.ask(), UNKNOWN))


async def _used_again(d: Desk) -> Any:
    asked = await d.ask()
    await d.approve("ann", asked)
    assert (await d.ask(approval_of=asked.decision_id)).effect == pb.EFFECT_ALLOW
    return await d.ask(approval_of=asked.decision_id)


async def _too_early(d: Desk) -> Any:
    return await d.ask(approval_of=(await d.ask()).decision_id)


async def _for_another(d: Desk) -> Any:
    asked = await d.ask()
    await d.approve("ann", asked)
    return await d.ask(approval_of=asked.decision_id, arguments=b'{"amount": 9001}')


async def _list(d: Desk, by: str) -> Any:
    return await d.listed(by)


async def _watched(d: Desk, by: str) -> Any:
    return await d.state(by, (await d.ask()).decision_id)


APPROVE = "Approve"
WORDS = {
    "not signed": Case(APPROVE, UNPROVED, why("no signature"), _unsigned, "", True),
    "with a wrong signature": Case(APPROVE, UNPROVED, why("signature"), _strange, "", True),
    "altered after it was signed": Case(
        APPROVE, UNPROVED, why("statement"), _word(altered={"comment": "other"}), "", True
    ),
    "by the agent": Case(APPROVE, MAY_NOT, approval("own"), _word("billing-agent"), "billing-agent", True),
    "by who gave a delegation": Case(
        APPROVE, MAY_NOT, approval("own"), _word("ann", asked={"delegations": sent(delegated("ann", "billing-agent"))}),
        "ann", True,
    ),
    "by one without the role": Case(
        APPROVE, MAY_NOT, approval("unauthorised"), _word("cleo"), "cleo", True
    ),
    "by a suspended approver": Case(APPROVE, MAY_NOT, why("suspended"), _word("late-approver"), "late-approver", True),
    "a second time": Case(APPROVE, WRONG, approval("repeated"), _again, "ann", True),
    "after a rejection": Case(APPROVE, WRONG, approval("rejected"), _after_a_rejection, "ann", True),
    "too late": Case(APPROVE, WRONG, approval("expired"), _expired, "ann", True),
    "of nothing": Case(APPROVE, NONE, None, _of_nothing, "ann"),
    "used a second time": Case("Decide", WRONG, approval("used"), _used_again, "billing-agent", True),
    "asked under too early": Case("Decide", WRONG, approval("pending"), _too_early, "billing-agent", True),
    "asked under for another thing": Case("Decide", BAD, approval("altered"), _for_another, "billing-agent", True),
}  # fmt: skip

# --- reads


async def _read(d: Desk, method: str, message: Any, by: str = "", parameter: str = "2") -> Any:
    if by:
        message.by = by
        message.signature.CopyFrom(d.sign("read", by, read_digest(by, "entry", parameter)))
    return await getattr(d.up.reading, method)(message)


async def _entry_of(d: Desk, method: str, message: Any, by: str) -> Any:
    seq = (await d.ask()).seq
    message.seq = seq
    return await _read(d, method, message, by, str(seq))


READS = {
    "an entry, not signed": Case(
        "GetEntry", UNPROVED, why("no signature"), lambda d: _read(d, "GetEntry", pb.GetEntryRequest(seq=2))
    ),
    "an entry, signed for another": Case(
        "GetEntry", UNPROVED, why("statement"), lambda d: _read(d, "GetEntry", pb.GetEntryRequest(seq=2), "ann", "1")
    ),
    "an entry that names others": Case(
        "GetEntry", MAY_NOT, why("name"), lambda d: _entry_of(d, "GetEntry", pb.GetEntryRequest(), "other-agent"),
        "other-agent",
    ),
    "a proof, not signed": Case(
        "Prove", UNPROVED, why("no signature"), lambda d: _read(d, "Prove", pb.ProveRequest(seq=2))
    ),
    "a proof of what names others": Case(
        "Prove", MAY_NOT, why("name"), lambda d: _entry_of(d, "Prove", pb.ProveRequest(), "other-agent"), "other-agent"
    ),
    "the list, by an agent": Case(
        "ListApprovals", MAY_NOT, why("kind"), lambda d: _list(d, "billing-agent"), "billing-agent"
    ),
    "the list, by somebody suspended": Case(
        "ListApprovals", MAY_NOT, why("suspended"), lambda d: _list(d, "late-approver"), "late-approver"
    ),
    "another's decision, watched": Case(
        "WatchApproval", MAY_NOT, why("name"), lambda d: _watched(d, "other-agent"), "other-agent"
    ),
}  # fmt: skip

CASES = {
    **{f"ReportOutcome: {what}": case for what, case in OUTCOMES.items()},
    **{f"Approve: {what}": case for what, case in WORDS.items()},
    **{f"Read: {what}": case for what, case in READS.items()},
}


def played(place: Path, *cases: Case) -> None:
    """The cases, one after the other; what was written verifies."""

    async def story() -> None:
        policy = Policy(enough=1, terms={"roles": ["lead"]} if cases[0].call == APPROVE else {})
        async with desk(place, policy, Clock()) as d:
            await d.know(*EVERYBODY)
            for case in cases:
                await refused(d, case)

    asyncio.run(story())
    report = judged(place / "ledger")
    assert report.verdict.name == "UNANCHORED", report.findings


async def refused(d: Desk, case: Case) -> None:
    before, told = d.metrics.page(), len(d.entries("REJECTED"))
    code, said = await _refusal(case.make(d))
    assert code == case.status, said
    (entry,) = d.entries("REJECTED")[told:]
    found = (entry["call"], entry["code"], entry["principal"], bool(entry["decision_id"]), entry["count"])
    assert found == (case.call, case.status, case.principal, case.about, 1)
    assert said.endswith(entry["cause"])
    counted = moved(before, d.metrics.page())
    assert counted["sidecar_rejected_total", case.status] == 1
    assert case.metric is None or counted[case.metric] == 1
    assert counted["sidecar_errors_total", case.status, case.call] == 1


async def _refusal(call: Awaitable[Any]) -> tuple[str, str]:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code().name, error.details() or ""
    except _Refused as told:
        return told.code, str(told)
    raise AssertionError("it was taken")


@pytest.mark.parametrize("what", QUESTIONS)
def test_a_question_is_refused_alone_in_a_batch_and_in_a_stream(what: str, tmp_path: Path) -> None:
    status, metric, principal, make = QUESTIONS[what]
    played(tmp_path, *(Case(call, status, metric, _asked(how, make), principal) for call, how in WAYS.items()))


@pytest.mark.parametrize("what", CASES)
def test_an_outcome_an_approval_and_a_read_are_refused(what: str, tmp_path: Path) -> None:
    played(tmp_path, CASES[what])
