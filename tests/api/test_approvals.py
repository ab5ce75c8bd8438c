"""Approvals: what waits, who is heard, one ALLOW for it; and every refusal with its status, entry and metric."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from sidecar.api.messages import request_of
from sidecar.chain import payload as payloads
from sidecar.chain.digests import arguments_digest
from sidecar.decide import policy_inputs
from sidecar.ledger.batch import Batch, Wait, about_key
from sidecar.ledger.store import LmdbStore
from sidecar.policy import Evaluation, PolicyVersion
from sidecar.v1 import decision_pb2 as pb
from tests.api.desks import PEOPLE, Desk, Policy, desk
from tests.api.running import judged
from tests.decide.engines import VERSION

ALLOW, DENY, WAIT = pb.EFFECT_ALLOW, pb.EFFECT_DENY, pb.EFFECT_REQUIRE_APPROVAL
State = pb.ApprovalState
HOUR = 3600 * 1_000_000_000


def run(place: Path, story: Callable[[Desk], Awaitable[None]], **given: Any) -> None:
    async def main() -> None:
        async with desk(place, **given) as made:
            await story(made)

    asyncio.run(main())
    report = judged(place / "ledger")
    assert report.verdict.name == "UNANCHORED", report.findings


def test_four_eyes_then_one_allow(tmp_path: Path) -> None:
    async def story(d: Desk) -> None:
        asked = await d.ask(idempotency_key="first")
        assert (asked.effect, asked.approval.count, list(asked.approval.roles)) == (WAIT, 2, ["lead"])
        recorded = d.payload(asked.seq)
        assert payloads.wall_ns_of(recorded["terms"]["expires"]) == asked.approval.expires_ns
        assert 0 < asked.approval.expires_ns - d.clock() <= 60 * 1_000_000_000

        (pending,) = (await d.listed("ann")).pending
        assert (pending.decision_id, pending.seq) == (asked.decision_id, asked.seq)
        assert request_of(pending.request).digest().hex() == recorded["request_digest"]
        assert (pending.policy, pending.terms, pending.reasons[0].code) == (asked.policy, asked.approval, "large")
        assert not (await d.listed("cleo")).pending  # who has not the role

        watching = d.watch("billing-agent", asked.decision_id)
        assert (await watching.read()).what == State.WHAT_PENDING
        first = await d.approve("ann", asked)
        assert first.state.what == State.WHAT_PENDING
        assert list((await watching.read()).approved_by) == ["ann"]
        entry = d.payload(first.seq)
        assert (entry["by"]["id"], entry["by"]["proof"], entry["verdict"]) == ("ann", "signature", "approve")
        assert entry["agent"] == {"id": "billing-agent", "proof": "signature"}
        assert entry["action_digest"] == request_of(pending.request).action_digest().hex()
        assert entry["arguments_digest"] == arguments_digest(b'{"amount": 9000}').hex()
        assert entry["policy"] == {"revision": VERSION.revision, "bundle_digest": VERSION.bundle_digest}
        assert list((await d.listed("bob")).pending[0].approved_by) == ["ann"]
        assert (await d.approve("bob", asked)).state.what == State.WHAT_APPROVED
        assert (await watching.read()).what == State.WHAT_APPROVED
        assert not (await d.listed("ann")).pending

        final = await d.ask(approval_of=asked.decision_id, idempotency_key="second")
        assert final.effect == ALLOW
        assert (await watching.read()).what == State.WHAT_USED
        assert await watching.read() is grpc.aio.EOF
        decided = d.payload(final.seq)
        assert decided["approval"]["decision_id"] == asked.decision_id
        assert [a["by"]["id"] for a in decided["approval"]["approvals"]] == ["ann", "bob"]
        assert decided["approval"]["approvals"][0]["seq"] == first.seq
        assert d.up.ledger.about(asked.seq)[-1][0] == final.seq
        for response in (asked, final):  # what the policy saw can be rebuilt from the entries alone
            assert policy_inputs(d.payload(response.seq)) == [d.engine.seen[0 if response is asked else 1]]
        assert [a["id"] for a in d.engine.seen[1]["approvals"]] == ["ann", "bob"]

        again = await d.ask(approval_of=asked.decision_id, idempotency_key="second")
        assert (again.decision_id, again.seq, again.receipt) == (final.decision_id, final.seq, final.receipt)
        assert len(d.entries("DECISION")) == 2
        assert d.count('sidecar_approvals_total{what="approve"}') == 2
        assert d.count('sidecar_approvals_total{what="allowed"}') == 1

    terms = {"count": 2, "roles": ["lead"], "expires_seconds": 60}
    run(tmp_path, story, policy=Policy(terms, enough=2))


def test_without_terms_any_approver_has_an_hour_and_one_is_enough(tmp_path: Path) -> None:
    async def story(d: Desk) -> None:
        asked = await d.ask()
        assert (asked.approval.count, list(asked.approval.roles)) == (1, [])
        assert 59 * 60 < (asked.approval.expires_ns - d.clock()) / 1e9 <= 3600
        await d.approve("cleo", asked)
        assert (await d.ask(approval_of=asked.decision_id)).effect == ALLOW

    run(tmp_path, story)


def test_how_long_is_a_setting(tmp_path: Path) -> None:
    async def story(d: Desk) -> None:
        asked = await d.ask()
        assert (asked.approval.expires_ns - d.clock()) / 1e9 <= 5

    run(tmp_path, story, approval_seconds=5)


def test_the_policy_has_the_last_word(tmp_path: Path) -> None:
    async def story(d: Desk) -> None:
        asked = await d.ask()
        await d.approve("ann", asked)
        assert (await d.ask(approval_of=asked.decision_id)).effect == DENY
        d.policy.after = "ALLOW"  # a DENY does not use the approval up
        d.policy.enough = 2
        more = await d.ask(approval_of=asked.decision_id)
        assert more.effect == WAIT
        assert more.approval.count == 1
        assert d.payload(more.seq)["approval"]["decision_id"] == asked.decision_id
        d.policy.enough = 1
        assert (await d.ask(approval_of=asked.decision_id)).effect == ALLOW

    run(tmp_path, story, policy=Policy(after="DENY"))


def test_a_rejection_settles_it(tmp_path: Path) -> None:
    async def story(d: Desk) -> None:
        asked = await d.ask()
        await d.approve("ann", asked)
        assert (await d.approve("bob", asked, "reject")).state.what == State.WHAT_REJECTED
        for call in (d.approve("cleo", asked), d.ask(approval_of=asked.decision_id)):
            told = await d.refused(call, "FAILED_PRECONDITION", decision_id=asked.decision_id)
            assert "rejected" in told
        assert d.count('sidecar_approvals_total{what="rejected"}') == 2
        assert await d.state("billing-agent", asked.decision_id) == State.WHAT_REJECTED
        assert not (await d.listed("cleo")).pending

    run(tmp_path, story)


@pytest.mark.parametrize(
    ("by", "status", "what"),
    [
        ("cleo", "PERMISSION_DENIED", "unauthorised"),
        ("ursula", "PERMISSION_DENIED", "unauthorised"),
        ("other-agent", "PERMISSION_DENIED", "unauthorised"),
        ("billing-agent", "PERMISSION_DENIED", "own"),
    ],
)
def test_who_may_not_approve_is_refused(tmp_path: Path, by: str, status: str, what: str) -> None:
    async def story(d: Desk) -> None:
        asked = await d.ask()
        for verdict in ("approve", "reject"):
            await d.refused(d.approve(by, asked, verdict), status, principal=by, decision_id=asked.decision_id)
        assert d.count(f'sidecar_approvals_total{{what="{what}"}}') == 2
        assert not d.entries("APPROVAL")
        assert await d.state("ann", asked.decision_id) == State.WHAT_PENDING

    run(tmp_path, story, policy=Policy({"roles": ["lead"]}))


def test_a_suspended_or_unknown_approver_and_a_strangers_key_are_refused(tmp_path: Path) -> None:
    async def story(d: Desk) -> None:
        asked = await d.ask()
        about = {"decision_id": asked.decision_id}
        await d.know(*(p | {"status": "suspended"} if p["id"] == "ann" else p for p in PEOPLE if p["id"] != "bob"))
        await d.refused(d.approve("ann", asked), "PERMISSION_DENIED", principal="ann", **about)
        await d.refused(d.approve("bob", asked), "UNAUTHENTICATED", principal="", **about)
        word = d.word("cleo", asked)
        word.signature.CopyFrom(d.sign("approval", "cleo", bytes(32), signer="ursula"))
        await d.refused(d.approvals.Approve(word), "UNAUTHENTICATED", **about)
        assert not d.entries("APPROVAL")
        assert d.count('sidecar_unproved_total{why="suspended"}') == 1
        assert d.count('sidecar_unproved_total{why="unknown"}') == 1

    run(tmp_path, story)


def test_an_approval_is_signed_also_where_names_may_be_asserted(tmp_path: Path) -> None:
    async def story(d: Desk) -> None:
        asked = await d.ask()
        word = d.word("ann", asked)
        word.ClearField("signature")
        told = await d.refused(d.approvals.Approve(word), "UNAUTHENTICATED", decision_id=asked.decision_id)
        assert "always signed" in told
        assert d.count('sidecar_unproved_total{why="no signature"}') == 1
        assert not d.entries("APPROVAL")

    run(tmp_path, story, development=True)


@pytest.mark.parametrize(
    "altered",
    [
        {"action_digest": bytes(32)},
        {"arguments_digest": bytes(32)},
        {"policy_revision": "another"},
        {"bundle_digest": "cd" * 32},
        {"comment": "another"},
        {"verdict": pb.APPROVAL_VERDICT_REJECT},
        {"by": "bob"},
    ],
)
def test_what_was_changed_after_it_was_signed_is_refused(tmp_path: Path, altered: dict[str, Any]) -> None:
    async def story(d: Desk) -> None:
        asked = await d.ask()
        word = d.word("ann", asked, altered=altered)
        await d.refused(d.approvals.Approve(word), "UNAUTHENTICATED", decision_id=asked.decision_id)
        assert not d.entries("APPROVAL")

    run(tmp_path, story)


def test_what_is_signed_of_another_request_is_refused(tmp_path: Path) -> None:
    async def story(d: Desk) -> None:
        small, large = await d.ask(arguments=b'{"amount": 1}'), await d.ask()
        word = d.word("ann", small)
        moved = pb.ApproveRequest()
        moved.CopyFrom(word)
        moved.decision_id = large.decision_id
        await d.refused(d.approvals.Approve(moved), "UNAUTHENTICATED", decision_id=large.decision_id)
        honest = d.signed_for("ann", small, large.decision_id)
        told = await d.refused(
            d.approvals.Approve(honest), "INVALID_ARGUMENT", principal="ann", decision_id=large.decision_id,
            field="action_digest",
        )  # fmt: skip
        assert "not that of the decision" in told
        assert d.count('sidecar_approvals_total{what="altered"}') == 1

    run(tmp_path, story)


def test_an_approval_is_taken_once(tmp_path: Path) -> None:
    async def story(d: Desk) -> None:
        asked = await d.ask()
        word = d.word("ann", asked)
        await d.approvals.Approve(word)
        await d.refused(d.approvals.Approve(word), "UNAUTHENTICATED")  # its nonce
        about = {"principal": "ann", "decision_id": asked.decision_id}
        other = d.signed_for("ann", asked, asked.decision_id, comment="seen again")
        await d.refused(d.approvals.Approve(other), "FAILED_PRECONDITION", **about)
        assert d.count('sidecar_approvals_total{what="repeated"}') == 1
        assert len(d.entries("APPROVAL")) == 1
        assert await d.state("ann", asked.decision_id) == State.WHAT_PENDING

    run(tmp_path, story, policy=Policy({"count": 2}, enough=2))


def test_two_at_once_by_one_approver_are_one(tmp_path: Path) -> None:
    async def story(d: Desk) -> None:
        asked = await d.ask()
        words = [d.signed_for("ann", asked, asked.decision_id, comment=each) for each in ("one", "other")]
        both = await asyncio.gather(*map(d.approvals.Approve, words), return_exceptions=True)
        assert sorted(isinstance(each, grpc.aio.AioRpcError) for each in both) == [False, True]
        assert len(d.entries("APPROVAL")) == 1

    run(tmp_path, story, policy=Policy({"count": 2}, enough=2))


@pytest.mark.parametrize("verdict", ["approve", "reject"])
def test_the_same_words_again_get_the_answer_that_was_lost(tmp_path: Path, verdict: str) -> None:
    """Signed anew each time, also at once, after a restart, and once it is over; by nobody else."""

    async def main() -> None:
        async with desk(tmp_path) as d:
            asked = await d.ask()
            first, at_once = await asyncio.gather(*(d.approve("ann", asked, verdict) for _ in range(2)))
            assert first == at_once and first.receipt
            assert await d.approve("ann", asked, verdict) == first
            await d.know(*(p | {"status": "suspended"} if p["id"] == "ann" else p for p in PEOPLE))
            await d.refused(d.approve("ann", asked, verdict), "PERMISSION_DENIED", principal="ann")
        async with desk(tmp_path) as d:
            again = await d.approve("ann", asked, verdict)
            assert (again.seq, again.receipt) == (first.seq, first.receipt)
            if verdict == "approve":
                assert (await d.ask(approval_of=asked.decision_id)).effect == ALLOW
                used = await d.approve("ann", asked)
                assert (used.seq, used.state.what) == (first.seq, State.WHAT_USED)
            await d.refused(d.approve("bob", asked, verdict), "FAILED_PRECONDITION", principal="bob")
            assert len(d.entries("APPROVAL")) == 1

    asyncio.run(main())
    assert judged(tmp_path / "ledger").verdict.name == "UNANCHORED"


def test_what_has_expired_or_lost_its_policy_is_asked_anew(tmp_path: Path) -> None:
    async def story(d: Desk) -> None:
        asked = await d.ask()
        await d.approve("ann", asked)
        assert await d.state("ann", asked.decision_id) == State.WHAT_APPROVED
        about = {"decision_id": asked.decision_id}
        d.up.in_force.deciding = PolicyVersion("wasm", "test 1", "agents/decision", "revision-2", "cd" * 32)  # type: ignore[attr-defined]
        told = await d.refused(d.ask(approval_of=asked.decision_id), "FAILED_PRECONDITION", **about)
        assert "not in force any more" in told
        await d.refused(d.approve("bob", asked), "FAILED_PRECONDITION", principal="bob", **about)
        assert d.count('sidecar_approvals_total{what="stale"}') == 2
        assert await d.state("ann", asked.decision_id) == State.WHAT_EXPIRED
        d.up.in_force.deciding = VERSION  # type: ignore[attr-defined]
        d.clock.ahead = HOUR
        told = await d.refused(d.ask(approval_of=asked.decision_id), "FAILED_PRECONDITION", **about)
        assert "expired" in told
        await d.refused(d.approve("bob", asked), "FAILED_PRECONDITION", principal="bob", **about)
        assert await d.state("ann", asked.decision_id) == State.WHAT_EXPIRED
        assert not (await d.listed("ann")).pending

    run(tmp_path, story)


def test_too_early_or_by_an_approver_revoked_meanwhile_is_refused(tmp_path: Path) -> None:
    async def story(d: Desk) -> None:
        asked = await d.ask()
        about = {"principal": "billing-agent", "decision_id": asked.decision_id}
        await d.refused(d.ask(approval_of=asked.decision_id), "FAILED_PRECONDITION", **about)
        await d.approve("ann", asked)
        await d.know(*(p | {"status": "revoked"} if p["id"] == "ann" else p for p in PEOPLE))
        told = await d.refused(d.ask(approval_of=asked.decision_id), "FAILED_PRECONDITION", **about)
        assert "0 of 1 approvals count" in told
        assert d.count('sidecar_approvals_total{what="pending"}') == 2
        await d.approve("bob", asked)
        final = await d.ask(approval_of=asked.decision_id)
        assert [a["by"]["id"] for a in d.payload(final.seq)["approval"]["approvals"]] == ["bob"]

    run(tmp_path, story)


@pytest.mark.parametrize(
    ("changed", "status", "what"),
    [
        ({"arguments": b'{"amount": 9001}'}, "INVALID_ARGUMENT", "altered"),
        ({"arguments": b'{"amount":9000}'}, "INVALID_ARGUMENT", "altered"),
        ({"action": "payments.refund"}, "INVALID_ARGUMENT", "altered"),
        ({"resource": pb.Resource(type="account", id="acct-18")}, "INVALID_ARGUMENT", "altered"),
        ({"purpose": "another"}, "INVALID_ARGUMENT", "altered"),
        ({"context": b"{}"}, "INVALID_ARGUMENT", "altered"),
        ({"alternatives": [pb.Alternative(action="a", resource=pb.Resource(type="t", id="i"))]}, "INVALID_ARGUMENT",
         "altered"),
        ({"agent": "other-agent"}, "PERMISSION_DENIED", "unauthorised"),
    ],
)  # fmt: skip
def test_another_question_is_not_answered_by_it(
    tmp_path: Path, changed: dict[str, Any], status: str, what: str
) -> None:
    async def story(d: Desk) -> None:
        asked = await d.ask()
        await d.approve("ann", asked)
        about = {"principal": changed.get("agent", "billing-agent"), "decision_id": asked.decision_id}
        await d.refused(d.ask(approval_of=asked.decision_id, **changed), status, **about)
        assert d.count(f'sidecar_approvals_total{{what="{what}"}}') == 1
        assert len(d.entries("DECISION")) == 1

    run(tmp_path, story)


def test_a_second_allow_is_refused_also_at_once(tmp_path: Path) -> None:
    async def story(d: Desk) -> None:
        asked = await d.ask()
        await d.approve("ann", asked)
        both = await asyncio.gather(
            *(d.ask(approval_of=asked.decision_id) for _ in range(4)), return_exceptions=True
        )  # fmt: skip
        allowed = [each for each in both if isinstance(each, pb.DecideResponse)]
        assert [each.effect for each in allowed] == [ALLOW]
        assert {each.code().name for each in both if isinstance(each, grpc.aio.AioRpcError)} == {"FAILED_PRECONDITION"}
        told = await d.refused(
            d.ask(approval_of=asked.decision_id), "FAILED_PRECONDITION", decision_id=asked.decision_id
        )  # fmt: skip
        assert "used" in told
        assert d.count('sidecar_approvals_total{what="used"}') == 4

    run(tmp_path, story)


def test_a_caller_that_goes_away_does_not_leave_a_second_allow(tmp_path: Path) -> None:
    """Cancelled while the policy thinks: the decision is made all the same, and uses the approval up."""

    async def story(d: Desk) -> None:
        asked = await d.ask()
        await d.approve("ann", asked)
        thinking, go = asyncio.Event(), asyncio.Event()
        evaluate = d.engine.evaluate

        async def slowly(document: Any, timeout: float) -> Any:
            thinking.set()
            await go.wait()
            return await evaluate(document, timeout)

        d.engine.evaluate = slowly  # type: ignore[method-assign]
        call = asyncio.ensure_future(d.ask(approval_of=asked.decision_id))
        await thinking.wait()
        call.cancel()
        go.set()
        await d.refused(d.ask(approval_of=asked.decision_id), "FAILED_PRECONDITION", decision_id=asked.decision_id)
        assert [e["effect"] for e in d.entries("DECISION")] == ["REQUIRE_APPROVAL", "ALLOW"]

    run(tmp_path, story)


def test_a_policy_that_changes_meanwhile_allows_nothing(tmp_path: Path) -> None:
    async def story(d: Desk) -> None:
        asked = await d.ask()
        await d.approve("ann", asked)
        other = PolicyVersion("wasm", "test 1", "agents/decision", "revision-2", "cd" * 32)

        async def changed(document: Any, timeout: float) -> Evaluation:
            d.up.in_force.deciding = other  # type: ignore[attr-defined]
            return Evaluation(d.policy(document), other)

        d.engine.evaluate = changed  # type: ignore[method-assign]
        about = {"decision_id": asked.decision_id}
        told = await d.refused(d.ask(approval_of=asked.decision_id), "FAILED_PRECONDITION", **about)
        assert "not in force any more" in told
        assert len(d.entries("DECISION")) == 1

    run(tmp_path, story)


@pytest.mark.parametrize("ended", ["in order", "killed"])
def test_after_a_restart_what_waits_waits_and_what_is_used_is_used(tmp_path: Path, ended: str) -> None:
    async def main() -> None:
        async with desk(tmp_path, Policy({"count": 2}, enough=2)) as d:
            waits, used, rejected = await d.ask(), await d.ask(), await d.ask()
            for each in (waits, used):
                await d.approve("ann", each)
            await d.approve("bob", used)
            final = await d.ask(approval_of=used.decision_id, idempotency_key="final")
            assert final.effect == ALLOW
            await d.approve("ann", rejected, "reject")
            old = d.word("bob", waits)
            shutil.copytree(tmp_path / "ledger", tmp_path / "killed")
        if ended == "killed":  # as it was then: no segment sealed, no decision in the index
            shutil.rmtree(tmp_path / "ledger")
            (tmp_path / "killed").rename(tmp_path / "ledger")
        async with desk(tmp_path, Policy({"count": 2}, enough=2)) as d:
            assert [p.decision_id for p in (await d.listed("bob")).pending] == [waits.decision_id]
            assert list((await d.listed("bob")).pending[0].approved_by) == ["ann"]
            await d.refused(d.approvals.Approve(old), "UNAUTHENTICATED")  # of the epoch before
            more = d.signed_for("ann", waits, waits.decision_id, comment="once more")
            await d.refused(d.approvals.Approve(more), "FAILED_PRECONDITION", decision_id=waits.decision_id)
            for each, state in ((used, State.WHAT_USED), (rejected, State.WHAT_REJECTED)):
                assert await d.state("ann", each.decision_id) == state
                about = {"decision_id": each.decision_id}
                await d.refused(d.ask(approval_of=each.decision_id), "FAILED_PRECONDITION", **about)
                await d.refused(d.approve("cleo", each), "FAILED_PRECONDITION", **about)
            again = await d.ask(approval_of=used.decision_id, idempotency_key="final")
            assert (again.decision_id, again.receipt) == (final.decision_id, final.receipt)
            await d.approve("bob", waits)
            assert (await d.ask(approval_of=waits.decision_id)).effect == ALLOW

    asyncio.run(main())
    assert judged(tmp_path / "ledger").verdict.name == "UNANCHORED"


@pytest.mark.parametrize("lost", ["waiting", "about", "restored"])
def test_an_index_that_lost_or_regained_rows_gives_no_second_allow(tmp_path: Path, lost: str) -> None:
    """The row of what waits is put back, or the rows about the ALLOW are gone: either alone is found out."""

    async def main() -> None:
        async with desk(tmp_path) as d:
            used, waits = await d.ask(), await d.ask()
            for each in (used, waits):
                await d.approve("ann", each)
            assert (await d.ask(approval_of=used.decision_id)).effect == ALLOW
        store = LmdbStore.open(tmp_path / "ledger", 1 << 30)
        batch = Batch()
        if lost == "waiting":
            batch.settle(Wait(waits.approval.expires_ns, waits.seq))
        elif lost == "restored":
            batch.wait(Wait(used.approval.expires_ns, used.seq), 0)
        store.commit(batch)
        if lost == "about":
            with store._env.begin(write=True) as txn:
                for ref, seq in ((used.seq, n) for n in range(100)):
                    txn.delete(about_key(ref, seq), db=store._about)
        store.close()
        async with desk(tmp_path) as d:
            about = {"decision_id": used.decision_id}
            await d.refused(d.ask(approval_of=used.decision_id), "FAILED_PRECONDITION", **about)
            if lost == "waiting":  # no permission either: it is asked anew
                about = {"decision_id": waits.decision_id}
                await d.refused(d.ask(approval_of=waits.decision_id), "FAILED_PRECONDITION", **about)

    asyncio.run(main())


def test_what_never_waited_is_not_approved(tmp_path: Path) -> None:
    async def story(d: Desk) -> None:
        d.policy.enough = 0
        allowed = await d.ask()
        assert (allowed.effect, allowed.HasField("approval")) == (ALLOW, False)
        await d.refused(d.approve("ann", allowed), "FAILED_PRECONDITION", decision_id=allowed.decision_id)
        d.policy.enough = 1
        nothing = "0190a5b2-5c3d-7a10-8000-0123456789ab"
        for unknown in (nothing, "x" * 100, "\u00e9"):
            await d.refused(d.ask(approval_of=unknown), "NOT_FOUND", decision_id="")

    run(tmp_path, story)


def test_an_agent_cannot_fill_the_list(tmp_path: Path) -> None:
    async def story(d: Desk) -> None:
        await asyncio.gather(*(d.ask() for _ in range(100)))
        told = await d.refused(d.ask(), "RESOURCE_EXHAUSTED")
        assert "100 decisions of this agent wait" in told
        other = await d.ask(agent="other-agent")
        listed = await d.listed("ann")
        assert (len(listed.pending), listed.more) == (100, True)
        assert listed.pending[1].decision_id == other.decision_id  # each agent's oldest comes first
        await d.approve("ann", other, "reject")
        assert len((await d.listed("ann")).pending) == 100

    run(tmp_path, story)


def test_a_list_is_bounded_in_bytes(tmp_path: Path) -> None:
    async def story(d: Desk) -> None:
        for _ in range(3):
            await d.ask(context=b'{"text": "%s"}' % (b"x" * 900_000))
        listed = await d.listed("ann")
        assert (len(listed.pending), listed.more) == (2, True)

    run(tmp_path, story)


def test_only_approvers_list_and_only_who_it_concerns_watches(tmp_path: Path) -> None:
    async def story(d: Desk) -> None:
        asked = await d.ask()
        for by in ("billing-agent", "ursula"):
            await d.refused(d.listed(by), "PERMISSION_DENIED", principal=by)
        for by in ("other-agent", "ursula", "cleo"):
            await d.refused(d.watch(by, asked.decision_id).read(), "PERMISSION_DENIED", principal=by)
        unsigned = pb.WatchApprovalRequest(by="ann", decision_id=asked.decision_id)
        await d.refused(d.approvals.WatchApproval(unsigned).read(), "UNAUTHENTICATED")
        await d.refused(d.approvals.ListApprovals(pb.ListApprovalsRequest(by="ann")), "UNAUTHENTICATED")

    run(tmp_path, story, policy=Policy({"roles": ["lead"]}))


def test_so_many_of_one_principal_watch_and_no_more(tmp_path: Path) -> None:
    async def story(d: Desk) -> None:
        asked, other = await d.ask(), await d.ask(agent="other-agent")
        calls = [d.watch("billing-agent", asked.decision_id) for _ in range(100)]
        for call in calls:
            assert (await call.read()).what == State.WHAT_PENDING
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await d.watch("billing-agent", asked.decision_id).read()
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await d.state("other-agent", other.decision_id) == await d.state("ann", asked.decision_id)
        await d.approve("ann", asked, "reject")
        for call in calls:
            assert (await call.read()).what == State.WHAT_REJECTED
        assert await d.state("billing-agent", asked.decision_id) == State.WHAT_REJECTED

    run(tmp_path, story)


def test_who_watches_learns_of_time_and_policy(tmp_path: Path) -> None:
    async def story(d: Desk) -> None:
        asked = await d.ask()
        watching = d.watch("billing-agent", asked.decision_id)
        assert (await watching.read()).what == State.WHAT_PENDING
        d.clock.ahead = HOUR
        assert (await watching.read()).what == State.WHAT_EXPIRED
        assert await watching.read() is grpc.aio.EOF

    run(tmp_path, story)


def test_whoever_watches_when_the_sidecar_stops_is_let_go(tmp_path: Path) -> None:
    async def story(d: Desk) -> None:
        asked = await d.ask()
        watching = d.watch("billing-agent", asked.decision_id)
        await watching.read()
        d.up.path.approvals.end_watches()
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await watching.read()
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE

    run(tmp_path, story)


def test_odd_words_are_refused_by_field(tmp_path: Path) -> None:
    async def story(d: Desk) -> None:
        asked = await d.ask()
        for field, changes in (
            ("verdict", {"verdict": 9}),
            ("action_digest", {"action_digest": b"x"}),
            ("arguments_digest", {"arguments_digest": b"x" * 33}),
            ("comment", {"comment": "x" * 1025}),
            ("by", {"by": "a\n"}),
        ):
            word = d.word("ann", asked, altered=changes)
            await d.refused(d.approvals.Approve(word), "INVALID_ARGUMENT", field=field)
        assert not d.entries("APPROVAL")

    run(tmp_path, story)
