"""What an auditor reads: each kind of entry in a line, and a decision's whole story in sentences."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from sidecar.api.messages import outcome_of
from sidecar.chain import signing
from sidecar.chain.digests import arguments_digest
from sidecar.cli.story import moment
from sidecar.v1 import decision_pb2 as pb
from tests.api.desks import PEOPLE, Desk, Policy, desk
from tests.api.test_delegated import sent
from tests.people import delegated, key, person
from tests.program import sidecar

EXECUTOR = "payments-api"


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One in which a transfer is approved and carried out, others refused."""
    place = tmp_path_factory.mktemp("story")

    async def story() -> None:
        async with desk(place, Policy(terms={"roles": ["lead"]})) as d:
            await d.know(*PEOPLE, person(EXECUTOR, "executor"))
            leave = {"delegations": sent(delegated("ursula", "billing-agent")), "executor": EXECUTOR}
            asked = await d.ask(**leave)
            await d.refused(d.approve("cleo", asked), "PERMISSION_DENIED")
            await d.approve("ann", asked)
            allowed = await d.ask(approval_of=asked.decision_id, **leave)
            await d.refused(d.up.decisions.Decide(pb.DecideRequest(agent="billing-agent")), "INVALID_ARGUMENT")
            await _reported(d, allowed)

    asyncio.run(story())
    return place / "ledger"


async def _reported(d: Desk, allowed: pb.DecideResponse) -> None:
    report = pb.ReportOutcomeRequest(
        agent=EXECUTOR, decision_id=allowed.decision_id, status=pb.OUTCOME_STATUS_FAILED, permit=allowed.permit,
        response=b'{"error":"closed"}', downstream_status="409", arguments_digest=arguments_digest(b'{"amount": 9000}'),
        started_ns=time.time_ns(), duration_ns=12_345_678,
    )  # fmt: skip
    report.signature.CopyFrom(d.sign("outcome", EXECUTOR, outcome_of(report).digest()))
    await d.up.decisions.ReportOutcome(report)


def shown(ledger: Path, *which: str) -> str:
    done = sidecar("show", ledger, *which)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_each_entry_is_a_line(ledger: Path) -> None:
    lines = [line[36:] for line in shown(ledger).splitlines()]
    keys = {name: signing.key_id(signing.public_spki(key(name)))[:16] for name in ("billing-agent", "ann", EXECUTOR)}
    agent = f"billing-agent (signature, key {keys['billing-agent']}…) for ursula"
    told = f"{agent} payments.transfer account:acct-17 through {EXECUTOR}: a large amount"
    assert lines[6] == f"DECISION  NEEDS APPROVAL {told}"
    refused = (
        "REJECTED  Approve PERMISSION_DENIED: approval: cleo has none of the roles that this one takes (cleo, unix:, "
    )
    assert lines[7].startswith(refused + "decision ")
    assert lines[8] == f"APPROVAL  approve by ann (signature, key {keys['ann']}…) (decision at seq 6)"
    assert lines[9] == f"DECISION  ALLOW {told}, approved by ann (decision at seq 6)"
    assert lines[10] == "REJECTED  Decide INVALID_ARGUMENT: action: is empty (nobody proved, unix:)"
    by = f"reported by {EXECUTOR} (signature, key {keys[EXECUTOR]}…)"
    assert lines[11] == f"OUTCOME   failed, the downstream said 409 (decision at seq 9, {by})"


def test_a_decision_is_told_whole_also_by_its_seq(ledger: Path) -> None:
    allowed = shown(ledger, "--decision", "9")
    sentences = [line.strip() for line in allowed.splitlines() if line.startswith(" " * 10) and line[10] != " "]
    parts = [sentence.partition(", who signed it at 20")[0] for sentence in sentences]
    assert parts[0] == "asked by billing-agent with the role finance"
    assert parts[1].startswith("on behalf of ursula (user), who gave billing-agent leave for * on * until 2099-")
    assert parts[2].startswith(f"to be carried out by {EXECUTOR} under a permit for what begins before 20")
    assert parts[3:6] == [
        "asked again under the decision at seq 6", "approved by ann with the role lead", f"reported by {EXECUTOR}",
    ]  # fmt: skip
    assert parts[6].startswith("begun at 20") and parts[6].endswith(", and took 12.346 ms")
    assert parts[7:] == ["under the permit of the decision at seq 9", 'it answered {"error":"closed"}']
    assert "duration_ns: 12345678 (12.346 ms)" in allowed
    assert "enforced: true" in allowed and "None" not in allowed
    asked = shown(ledger, "--decision", "6")
    assert "Approve of cleo, from unix:, was refused; nothing came of it" in asked
    assert "saying: seen" in asked
    assert sidecar("show", ledger, "--decision", "8").returncode == 1  # no decision


def test_what_an_agent_was_refused_is_shown_with_it(ledger: Path) -> None:
    assert [line.split()[2] for line in shown(ledger, "--agent", "cleo").splitlines()] == ["REJECTED"]


def test_pruned_entries_leave_the_report_of_outcomes_readable() -> None:
    pruned = Path(__file__).parents[1] / "vectors" / "ledger" / "pruned.bin"
    assert shown(pruned, "--outcomes").startswith("allow without outcome: 0, ")


def test_a_number_that_is_no_time_is_shown_as_it_is() -> None:
    assert moment("started_ns", "9" * 40) == f"{'9' * 40} ns, which is no time"
    assert moment("result.not_after", "9" * 40) == ""
    assert moment("started_ns", "") == ""
