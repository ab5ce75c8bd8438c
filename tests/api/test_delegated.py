"""A request on somebody's behalf: the policy sees the chain, the entry keeps it; what is not covered is refused."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from sidecar.chain.request import Given
from sidecar.decide import policy_inputs
from sidecar.v1 import decision_pb2 as pb
from tests.api.desks import PEOPLE, Desk, Policy, desk
from tests.api.running import judged
from tests.people import delegated, person

EVERYBODY = (*PEOPLE, person("planner", "agent", "plans"))
FIRST = delegated("ursula", "planner", actions=["payments.*"], resources=["account:*"])
SECOND = delegated("planner", "billing-agent", FIRST, actions=["payments.transfer"], resources=["account:acct-*"])
BY_ANN = delegated("ann", "billing-agent")


def sent(*chain: Given) -> list[pb.Delegation]:
    return [pb.Delegation(text=each.text, key=each.key, signature=each.signature) for each in chain]


def run(place: Path, story: Callable[[Desk], Awaitable[None]], **given: Any) -> None:
    async def main() -> None:
        async with desk(place, **given) as made:
            await made.know(*EVERYBODY)
            await story(made)

    asyncio.run(main())
    report = judged(place / "ledger")
    assert report.verdict.name == "UNANCHORED", report.findings


def test_the_policy_sees_the_chain_and_the_entry_keeps_it(tmp_path: Path) -> None:
    async def story(d: Desk) -> None:
        answer = await d.ask(delegations=sent(FIRST, SECOND))
        assert answer.effect == pb.EFFECT_ALLOW
        payload = d.payload(answer.seq)
        assert payload["delegators"] == [
            {"id": "ursula", "kind": "user", "roles": [], "attributes": {}},
            {"id": "planner", "kind": "agent", "roles": ["plans"], "attributes": {}},
        ]
        assert [each["text"].encode() for each in payload["request"]["delegations"]] == [FIRST.text, SECOND.text]
        (seen,) = d.engine.seen
        assert [(each["from"]["id"], each["to"], each["actions"]) for each in seen["delegation"]] == [
            ("ursula", "planner", ["payments.*"]), ("planner", "billing-agent", ["payments.transfer"]),
        ]  # fmt: skip
        assert policy_inputs(payload) == [seen]

    run(tmp_path, story, policy=Policy(enough=0))


@pytest.mark.parametrize(
    "chain",
    [
        (FIRST,),
        (SECOND,),
        (SECOND, FIRST),
        (FIRST, delegated("planner", "billing-agent", FIRST, actions=["*"], resources=["account:acct-*"])),
        (delegated("ursula", "billing-agent", signer="ann"),),
        (dataclasses.replace(BY_ANN, signature=bytes(64)),),
        (delegated("ursula", "billing-agent", resources=["account:other"]),),
        (delegated("ursula", "billing-agent", audience="ab" * 32),),
        (delegated("ursula", "billing-agent", not_after="2026-01-01T00:00:00.000000000Z"),),
        (delegated("nobody", "billing-agent"),),
    ],
)
def test_what_does_not_cover_it_is_refused(tmp_path: Path, chain: tuple[Given, ...]) -> None:
    async def story(d: Desk) -> None:
        await d.refused(d.ask(delegations=sent(*chain)), "PERMISSION_DENIED", principal="billing-agent")
        assert d.count('sidecar_unproved_total{why="delegation"}') == 1
        assert not d.entries("DECISION")

    run(tmp_path, story, policy=Policy(enough=0))


def test_what_is_no_delegation_is_refused_by_field(tmp_path: Path) -> None:
    async def story(d: Desk) -> None:
        odd = dataclasses.replace(BY_ANN, text=b"\xff")
        for chain, field in (((odd,), "delegations[0]"), ((BY_ANN,) * 9, "delegations")):
            await d.refused(d.ask(delegations=sent(*chain)), "INVALID_ARGUMENT", field=field)

    run(tmp_path, story)


def test_a_revoked_givers_delegation_gets_no_old_answer_either(tmp_path: Path) -> None:
    async def story(d: Desk) -> None:
        given = {"delegations": sent(FIRST, SECOND), "idempotency_key": "k"}
        assert (await d.ask(**given)).effect == pb.EFFECT_ALLOW
        await d.know(*(p | {"status": "revoked"} if p["id"] == "ursula" else p for p in EVERYBODY))
        await d.refused(d.ask(**given), "PERMISSION_DENIED", principal="billing-agent")
        assert len(d.entries("DECISION")) == 1

    run(tmp_path, story, policy=Policy(enough=0))


def test_who_gave_a_delegation_does_not_approve_what_is_asked_under_it(tmp_path: Path) -> None:
    async def story(d: Desk) -> None:
        given = {"delegations": sent(BY_ANN)}
        asked = await d.ask(**given)
        about = {"principal": "ann", "decision_id": asked.decision_id}
        await d.refused(d.approve("ann", asked), "PERMISSION_DENIED", **about)
        assert d.count('sidecar_approvals_total{what="own"}') == 1
        assert [p.decision_id for p in (await d.listed("bob")).pending] == [asked.decision_id]
        assert not (await d.listed("ann")).pending
        await d.approve("bob", asked)
        await d.refused(d.ask(approval_of=asked.decision_id), "INVALID_ARGUMENT")  # without the delegation
        final = await d.ask(approval_of=asked.decision_id, **given)
        assert final.effect == pb.EFFECT_ALLOW
        assert policy_inputs(d.payload(final.seq)) == [d.engine.seen[-1]]

    run(tmp_path, story)
