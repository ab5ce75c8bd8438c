"""Outcomes that do not go with the decision they refer to, under right tags and signatures of the chain.

Each is what no sidecar writes; without the decision, or far behind it, that it could not be judged is said.
"""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from sidecar.chain import strictjson
from sidecar.chain.digests import arguments_digest
from sidecar.chain.entry import EntryType
from sidecar.chain.limits import NO_SEQ
from sidecar.verify import Evidence
from sidecar.verify.coverage import Coverage
from sidecar.verify.outcomes import REMEMBERED, Outcomes
from sidecar.verify.report import Findings, Report
from sidecar.verify.unread import Unread
from tests.attacks.expect import T, found, judge, nothing_worse
from tests.scribe import Scribe, principal

AT = 2
UNKNOWN = "outcomes against their decisions, which are not in what was read, or too far before them: 1"


def told(report: Report) -> list[str]:
    return [line for line in (*report.checked, *report.not_checked) if "against their decisions" in line]


def begun(effect: str = "ALLOW", **changed: Any) -> Scribe:
    """GENESIS, OPEN, and at 2 a decision."""
    s = Scribe()
    s.open()
    assert s.decision(effect, **changed) == AT
    return s


def say(s: Scribe, **changed: Any) -> int:
    """An outcome of the decision at 2, changed."""
    about = changed.get("decision_seq", AT)
    value = s.outcome_value(AT) | changed
    return s.write(EntryType.OUTCOME, strictjson.dumps(value), ref_seq=about)


def test_an_outcome_that_goes_with_its_decision() -> None:
    done = arguments_digest(begun().payloads[AT]["request"]["arguments"].encode()).hex()
    for digest in (None, done):
        s = begun()
        say(s, arguments_digest=digest)
        s.head()
        assert told(nothing_worse(s.records)) == ["outcomes against their decisions: 1"]


def test_an_outcome_of_what_was_not_enforced() -> None:
    s = begun("DENY", enforced=False)
    say(s)
    s.head()
    nothing_worse(s.records)


OTHERS: dict[str, dict[str, Any]] = {
    "another decision's id": {"decision_id": "019aaf3c-0000-7000-8000-000000000009"},
    "another agent": {
        "agent": {"id": "payroll-agent", "proof": "asserted"},
        "by": principal("payroll-agent", "asserted"),
    },
    "other arguments": {"arguments_digest": hashlib.sha256(b"other").hexdigest()},
    "an entry that is no decision": {"decision_seq": 1},
    "the genesis": {"decision_seq": 0},
}


@pytest.mark.parametrize("what", OTHERS)
def test_an_outcome_that_does_not_go_with_it(what: str) -> None:
    s = begun()
    at = say(s, **OTHERS[what])
    s.head()
    report = found(s.records, T, 0, at)
    assert len([each for each in report.findings if each.verdict is T]) == 1


@pytest.mark.parametrize("effect", ["DENY", "REQUIRE_APPROVAL"])
def test_an_outcome_of_no_allow(effect: str) -> None:
    terms = {"count": 1, "roles": [], "expires": "2026-01-01T01:00:00.000000000Z"}
    s = begun(effect, terms=terms if effect == "REQUIRE_APPROVAL" else None)
    at = say(s)
    s.head()
    found(s.records, T, 0, at)


def test_a_second_outcome_also_the_same_one() -> None:
    s = begun()
    say(s)
    s.seal("count")
    at = say(s)
    s.head()
    found(s.records, T, 1, at)


def test_a_segment_file_without_the_decision_says_so() -> None:
    s = begun()
    s.seal("count")
    say(s)
    s.seal("count")
    report = nothing_worse(s.segment_file(1))
    assert told(report) == [
        "outcomes against their decisions, which are not in what was read, or too far before them: 1"
    ]


def test_after_a_gap_what_refers_into_it_is_not_judged() -> None:
    s = begun()
    say(s)
    s.head()
    gone = [r for r in s.records if r is not s.records[-3]]
    report = judge(gone, Evidence())
    assert report.verdict is T  # for the gap
    assert "no decision" not in " ".join(each.reason for each in report.findings)


def test_no_more_than_the_last_decisions_are_remembered() -> None:
    findings, coverage = Findings(), Coverage()
    outcomes = Outcomes(Unread(), findings, coverage)
    for seq in range(REMEMBERED + 1):
        outcomes.decision((str(seq), "a", "asserted", "a", "d", ""), seq)
    value = {"agent": {"id": "a", "proof": "asserted"}, "by": {"id": "a"}, "arguments_digest": None, "permit": ""}
    outcomes.outcome({**value, "decision_seq": 0, "decision_id": "0"}, 0, NO_SEQ - 1)
    assert (findings.total, coverage.outcomes, coverage.unchecked) == (0, 0, [])
    outcomes.outcome({**value, "decision_seq": 1, "decision_id": "1"}, 0, NO_SEQ - 1)
    assert (findings.total, coverage.outcomes) == (0, 1)
    outcomes.outcome({**value, "decision_seq": 2, "decision_id": "1"}, 0, NO_SEQ - 1)
    outcomes.finish()
    assert (findings.total, coverage.outcomes) == (1, 2)
    assert coverage.unchecked == [
        "outcomes against their decisions, which are not in what was read, or too far before them: 1"
    ]
