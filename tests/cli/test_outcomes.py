"""`sidecar show --outcomes`: what an auditor is told of allows and outcomes that do not go together."""

from __future__ import annotations

import dataclasses
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from sidecar.chain import strictjson
from sidecar.chain.entry import EntryType
from sidecar.chain.recorded import entry
from sidecar.cli.outcomes import Outcomes
from sidecar.errors import Malformed
from tests.program import sidecar
from tests.scribe import Scribe

OTHER = "11" * 32


def begun() -> Scribe:
    s = Scribe("signed")
    s.open()
    s.registry()
    return s


def told(s: Scribe, now: int = 0, since: int = 0) -> list[tuple[Any, ...]]:
    found = Outcomes(now).findings(entry(r.body) for r in s.records if r.kind == 5 and (r.seq or 0) >= since)
    return [(f["finding"], f["decision_id"][-3:], f["seq"]) for f in found]


def outcome(s: Scribe, decision: int, **changed: Any) -> int:
    value = s.outcome_value(decision) | changed
    return s.write(EntryType.OUTCOME, strictjson.dumps(value), ref_seq=decision)


def test_what_goes_together_is_not_told() -> None:
    s = begun()
    s.signed_outcome(s.signed_decision())
    outcome(s, s.decision())
    s.decision("DENY")
    s.decision("REQUIRE_APPROVAL")
    outcome(s, s.decision("DENY", enforced=False))  # in shadow an action may go on all the same
    s.decision("DENY", enforced=False)
    s.rejected()
    assert told(s) == []


def test_allows_without_outcome_are_told_at_the_end_with_their_age() -> None:
    s = begun()
    first, done, second = s.signed_decision(), s.decision(), s.decision()
    outcome(s, done)
    now = s.headers[first].wall_ns + 7_200_000_000_000
    assert told(s) == [("allow without outcome", "003", first), ("allow without outcome", "005", second)]
    found = list(Outcomes(now).findings(entry(r.body) for r in s.records if r.kind == 5))
    assert [f["age_seconds"] for f in found] == [7_200, 7_199]
    assert (found[0]["agent"], found[0]["executor"], found[0]["action"]) == (
        "billing-agent", "payments-gateway", "refund"
    )  # fmt: skip


def test_outcomes_recorded_against_the_rules() -> None:
    s = begun()
    deny, allow, shadow, policy = s.decision("DENY"), s.decision(), s.decision("DENY", enforced=False), s.policy()
    bad = [outcome(s, deny), outcome(s, allow, arguments_digest=OTHER), outcome(s, allow)]
    outcome(s, shadow)
    bad += [outcome(s, shadow), outcome(s, deny)]
    about = s.outcome_value(deny) | {"decision_seq": policy}
    bad.append(s.write(EntryType.OUTCOME, strictjson.dumps(about), ref_seq=policy))
    assert told(s) == [
        ("outcome without allow", "003", bad[0]),
        ("changed arguments", "004", bad[1]),
        ("second outcome", "004", bad[2]),
        ("second outcome", "005", bad[3]),
        ("outcome without allow", "003", bad[4]),
        ("outcome without allow", "003", bad[5]),
    ]


def refused(s: Scribe, decision: int, **changed: Any) -> None:
    about = {"call": "ReportOutcome", "principal": "payments-gateway"} | changed
    s.rejected(decision_id=s.payloads[decision]["decision_id"], **about)


def test_outcomes_refused() -> None:
    s = begun()
    deny, allow = s.decision("DENY"), s.signed_decision()
    s.signed_outcome(allow)
    refused(s, deny, field="", cause="decision_id: the decision was DENY; only an ALLOW has an outcome")
    refused(s, allow, field="", cause="arguments_digest: is not that of the arguments decided on", count=3)
    refused(s, allow, field="", cause="outcome: the decision has another one already")
    refused(s, allow, field="", cause="permit: is not the one that this decision gave")
    refused(s, allow, field="started_ns", cause="is negative")
    s.rejected(call="Approve", decision_id=s.payloads[allow]["decision_id"], field="arguments_digest")
    assert [kind for kind, _, _ in told(s)] == [
        "outcome without allow",
        "changed arguments",
        "second outcome",
        "refused outcome",
        "refused outcome",
    ]


def test_a_segment_file_says_nothing_of_decisions_before_it() -> None:
    s = begun()
    allow = s.signed_decision()
    s.seal("count")
    s.signed_outcome(allow)
    later = s.decision()
    assert told(s, since=allow + 1) == [("allow without outcome", "005", later)]


def test_entries_out_of_order_are_not_counted_on() -> None:
    s = begun()
    s.decision()
    gone = [entry(r.body) for r in s.records if r.kind == 5]
    del gone[2]
    with pytest.raises(Malformed, match="out of its order"):
        list(Outcomes(0).findings(gone))


def test_for_people_and_for_programs(tmp_path: Path) -> None:
    s = begun()
    deny, allow = s.decision("DENY"), s.signed_decision()
    refused(s, allow, field="", cause="arguments_digest: is not that of the arguments decided on", count=3)
    refused(s, deny, field="", cause="decision_id: the decision was DENY\x1b[31m", principal="")
    s.head()
    file = tmp_path / "ledger"
    file.write_bytes(s.stream())
    text = sidecar("show", file, "--outcomes")
    assert text.returncode == 0, text.stderr
    lines = text.stdout.splitlines()
    assert "changed arguments" in lines[0] and "payments-gateway: arguments_digest: is not" in lines[0]
    assert lines[0].endswith("(×3)") and "unproved: decision_id: the decision was DENY" in lines[1]
    assert "\x1b" not in text.stdout
    assert "allow without outcome" in lines[2] and "billing-agent refund, by payments-gateway, open for " in lines[2]
    assert lines[3].startswith("allow without outcome: 1, outcome without allow: 1, changed arguments: 3, second")
    found = [json.loads(each) for each in sidecar("show", file, "--outcomes", "--json").stdout.splitlines()]
    assert [(f["finding"], f["seq"]) for f in found] == [
        ("changed arguments", 5), ("outcome without allow", 6), ("allow without outcome", 4)
    ]  # fmt: skip
    for other in (("--seq", "3"), ("--decision", "x"), ("--agent", "x")):
        assert sidecar("show", file, "--outcomes", *other).returncode == 2


def test_memory_is_flat_where_outcomes_come() -> None:
    s = begun()
    s.signed_outcome(s.signed_decision())
    rounds = [entry(r.body) for r in s.records if r.kind == 5]
    head, pair = rounds[:3], rounds[3:5]

    def many(count: int) -> Any:
        yield from head
        for n in range(count):
            for place, (header, payload) in enumerate(pair):
                seq = 3 + 2 * n + place
                yield dataclasses.replace(header, seq=seq, ref_seq=seq - 1), payload

    tracemalloc.start()
    assert list(Outcomes(0).findings(many(100))) == []
    _, few = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    assert list(Outcomes(0).findings(many(5_000))) == []
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most - few < 100_000
