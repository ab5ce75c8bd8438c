"""`sidecar replay`: recorded decisions come out the same, or it is said which do not, and what was not run again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from sidecar.chain.stream import Kind, records
from sidecar.decide import policy_inputs
from sidecar.evidence import Found, Range, Replay, Tally
from sidecar.evidence.compare import same
from sidecar.policy import GateSettings, OpaProgram, find_opa
from sidecar.policy.bundle import pack
from sidecar.policy.gate import build_files
from tests.evidence.bundled import bundle
from tests.evidence.commands import here
from tests.evidence.recorded import Payload, by, changed, decisions_of, digest, recorded_ledger, rewritten
from tests.needs import needs_program
from tests.program import sidecar
from tests.scribe import START, Scribe

STARTER_POLICY = Path(__file__).parents[2] / "rego"
RULES = """package agents

decision := {"effect": "DENY", "reasons": [{"code": "no", "message": "no"}]}
"""
IMPURE = """package agents

default decision := {"effect": "DENY", "reasons": [{"code": "no", "message": "no"}]}

decision := {"effect": "ALLOW", "reasons": []} if time.now_ns() > 0
"""


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recorded_ledger(tmp_path_factory.mktemp("recorded"))


@pytest.fixture(scope="module")
def decisions(ledger: Path) -> list[Payload]:
    found = decisions_of(ledger)
    assert [d["effect"] for d in found] == ["ALLOW", "DENY", "REQUIRE_APPROVAL"]
    return found


def run(s: Scribe, within: Range | None = None) -> tuple[list[Found], Tally]:
    """Re-run a ledger in this process; OPA, which none of these needs, is not there."""

    def no_program() -> Any:
        raise AssertionError("nothing here was decided by opa")

    async def whole() -> tuple[list[Found], Tally]:
        replay = Replay(policy_inputs, no_program, within)
        return [each async for each in replay.run(records(BytesIO(s.stream()).read))], replay.tally

    return asyncio.run(whole())


def test_what_was_recorded_comes_out_the_same(ledger: Path) -> None:
    done = here("replay", ledger)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3 decisions: 3 came out the same, 0 did not, 0 could not be re-run\n")
    assert "actions and alternatives compared: 4" in done.stdout and "by the same engine (wasmtime" in done.stdout
    found = json.loads(here("replay", ledger, "--agent", "billing-agent", "--json").stdout)
    assert (found["matched"], found["findings"], found["options_compared"]) == (3, [], 4)


def test_only_what_is_asked_for_and_nothing_is_not_everything(ledger: Path) -> None:
    nobody = here("replay", ledger, "--agent", "somebody-else")
    assert nobody.returncode == 3 and "no decision lies in this range" in nobody.stdout
    assert here("replay", ledger, "--from", "2026-01-01T00:00:00Z").returncode == 0
    wrong = sidecar("replay", ledger, "--from", "2026-01-02", "--to", "2026-01-01")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    bad = sidecar("replay", ledger, "--from", "yesterday")
    assert bad.returncode == 2 and "give a time such as" in bad.stderr


def test_a_range_is_of_times_from_inclusive_to_exclusive(decisions: list[Payload]) -> None:
    s = rewritten(decisions)
    first, second, third = (s.headers[seq].wall_ns for seq in (3, 4, 5))
    for start, end, count in ((first, third, 2), (second, None, 2), (None, second, 1), (START, first, 0)):
        assert run(s, Range(start, end))[1].decisions == count


WRONG = [
    (0, "effect", "DENY", "effect"),
    (0, "reasons/0/message", "because", "reasons"),
    (0, "obligations", [{"kind": "log", "parameters": {}}], "obligations"),
    (0, "result/extra", 1, "result"),
    (0, "policy/revision", "another", "revision"),
    (0, "request/action", "crm.delete", "effect, reasons, result"),
    (0, "agent/id", "somebody", "effect, reasons, result"),
    (2, "effect", "ALLOW", "effect"),
    (2, "terms/count", 2, "terms"),
    (2, "alternatives/0/effect", "REQUIRE_APPROVAL", "alternative 0: effect"),
    (2, "alternatives/0/reasons", [], "alternative 0: reasons"),
]


def test_whatever_differs_is_a_mismatch(decisions: list[Payload]) -> None:
    wrong = [changed(decisions[which], path, value) for which, path, value, _ in WRONG]
    found, tally = run(rewritten([*wrong, *decisions]))
    assert [(f.kind, f.seq, f.why) for f in found] == [
        ("mismatch", seq, why) for seq, (_, _, _, why) in enumerate(WRONG, 3)
    ]
    assert [f.decision_id for f in found] == [decisions[which]["decision_id"] for which, _, _, _ in WRONG]
    assert (tally.exit_code, tally.matched, tally.mismatched) == (1, len(decisions), len(WRONG))


def test_numbers_are_compared_as_they_are_written() -> None:
    assert same({"a": 1, "b": [2, {"c": None}]}, {"b": [2, {"c": None}], "a": 1})
    for one, other in ((1, 1.0), (0, False), ("1", 1), ({}, []), ([1, 2], [2, 1]), (2**70, 2**70)):
        assert not same({"n": one}, {"n": other})


def test_mismatches_are_told_to_people_and_programs(decisions: list[Payload], tmp_path: Path) -> None:
    file = tmp_path / "ledger"
    wrong = changed(decisions[1], "effect", "ALLOW")
    file.write_bytes(rewritten([decisions[0], wrong, changed(wrong, "reasons/0/message", "\x1b[31m")]).stream())
    text = here("replay", file)
    assert text.returncode == 1
    assert f"{wrong['decision_id']} (entry 4)  billing-agent  mismatch: effect\n" in text.stdout
    assert "    recorded ALLOW\n    re-run   DENY\n" in text.stdout and "\x1b" not in text.stdout
    found = json.loads(here("replay", file, "--json").stdout)
    assert [(f["kind"], f["seq"]) for f in found["findings"]] == [("mismatch", 4), ("mismatch", 5)]
    assert found["findings"][0]["differences"] == [
        {"alternative": None, "what": "effect", "recorded": "ALLOW", "rerun": "DENY"}
    ]


def undecided(decision: Payload, cause: str, **more: Any) -> Payload:
    reasons = [{"code": cause, "message": "it did not answer"}]
    denied = {"effect": "DENY", "cause": cause, "reasons": reasons, "obligations": [], "result": None, "terms": None}
    return {**decision, **denied, **more}


def test_a_deny_for_want_of_a_decision_is_counted_apart(decisions: list[Payload]) -> None:
    found, tally = run(rewritten([decisions[0], undecided(decisions[0], "engine_timeout")]))
    assert (found, tally.exit_code, tally.matched, tally.undecided) == ([], 0, 1, {"engine_timeout": 1})
    assert run(rewritten([undecided(decisions[0], "engine_timeout")]))[1].exit_code == 3  # it proves nothing
    found, tally = run(rewritten([undecided(decisions[0], "engine_error", effect="ALLOW")]))
    assert (tally.exit_code, found[0].kind) == (1, "mismatch")


def test_alternatives_for_want_of_a_decision(decisions: list[Payload]) -> None:
    late = {"effect": "DENY", "reasons": [{"code": "engine_timeout", "message": "it did not answer"}]}
    found, tally = run(rewritten([changed(decisions[2], "alternatives/0", late)]))
    assert (found, tally.matched, tally.undecided_alternatives) == ([], 1, 1)
    whole = undecided(decisions[2], "engine_timeout")  # its alternative was decided all the same
    found, tally = run(rewritten([whole, changed(whole, "alternatives/0/effect", "REQUIRE_APPROVAL")]))
    assert [(f.seq, f.why) for f in found] == [(4, "alternative 0: effect")]
    assert tally.options == 2


def test_what_is_not_pure_is_no_proof_and_is_not_run(decisions: list[Payload]) -> None:
    said = {**decisions[1], "effect": "ALLOW", "impure_builtins": ["http.send"]}
    found, tally = run(rewritten([said, decisions[0]]))
    assert [(f.kind, f.why) for f in found] == [
        ("impure", "uses http.send, whose result is no function of the input")
    ]  # fmt: skip
    assert (tally.impure, tally.matched, tally.exit_code) == (1, 1, 3)
    unsaid = changed(decisions[1], "effect", "ALLOW")  # the policy's own entry says it
    found, tally = run(rewritten([unsaid], impure_builtins=["time.now_ns"]))
    assert (tally.impure, tally.options, tally.exit_code) == (1, 0, 3)


@pytest.mark.parametrize(
    ("bundle", "policy", "why"),
    [
        (None, {}, "is not here; give the whole ledger"),
        (None, {"bundle_digest": ""}, "the record names no bundle"),
        (None, {"bundle_digest": "../../../../etc/passwd"}, "the record names no bundle"),
        (b"garbage", {"bundle_digest": digest(b"garbage")}, "not a .tar.gz"),
        (None, {"engine": "oracle"}, "none of ours"),
        (None, {"entrypoint": "../x"}, "not a rule's path"),
        (None, {"entrypoint": "agents/other"}, "no entry point agents/other"),
    ],
)
def test_what_cannot_be_run_again_is_named(
    decisions: list[Payload], bundle: bytes | None, policy: dict[str, str], why: str
) -> None:
    given = [by(decisions[0], **policy), by(decisions[1], **policy)]
    keep = bool({"engine", "entrypoint"} & {*policy})
    found, tally = run(rewritten(given) if keep else rewritten(given, bundle=bundle))
    assert {f.kind for f in found} == {"not re-run"} and all(why in f.why for f in found)
    assert (tally.not_rerun, tally.exit_code) == (2, 3)


def test_what_is_withheld_was_not_run_again(decisions: list[Payload]) -> None:
    s = rewritten(decisions)
    record = next(r for r in s.records if r.kind is Kind.ENTRY and r.seq == 4)
    record.kind, record.body = Kind.BARE, record.body[:216]
    found, tally = run(s)
    assert (found, tally.matched, tally.withheld, tally.exit_code) == ([], 2, 1, 3)
    assert run(s, Range(start=s.headers[5].wall_ns))[1].exit_code == 0


def test_bundles_are_re_run_of_several_chains_and_of_one_agent(decisions: list[Payload], tmp_path: Path) -> None:
    other = changed(decisions[1], "agent/id", "another-agent")
    one, two = rewritten([decisions[0], other]), rewritten([decisions[2]], name="beta")
    case = tmp_path / "case.zip"
    case.write_bytes(bundle(one, two, agents=("billing-agent",)))
    done = here("replay", case, "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["matched"], found["withheld"], found["findings"]) == (0, 2, 1, []), done.stderr
    case.write_bytes(bundle(one, two))
    found = json.loads(here("replay", case, "--json").stdout)
    assert (found["matched"], found["mismatched"], found["findings"][0]["seq"]) == (2, 1, 4)


def test_damage_is_not_silence(decisions: list[Payload]) -> None:
    s = rewritten(decisions)
    record = next(r for r in s.records if r.kind is Kind.ENTRY and r.seq == 4)
    record.body = record.body[:-1] + b"X"
    tally = run(s)[1]
    assert (tally.matched, tally.unreadable, tally.exit_code) == (2, 1, 3)
    whole = rewritten(decisions).stream()

    class Cut:
        def stream(self) -> bytes:
            return whole[:-40]

    assert run(Cut())[1].exit_code == 3  # type: ignore[arg-type]


def test_findings_come_while_the_ledger_is_read(decisions: list[Payload]) -> None:
    s = rewritten([changed(decisions[0], "effect", "DENY")])
    head, one = [(r.kind, r.body) for r in s.records[:-2]], [(r.kind, r.body) for r in s.records[-2:-1]]
    taken = 0

    def endless() -> Iterator[tuple[Kind, bytes]]:
        nonlocal taken
        yield from head
        while True:
            taken += 1
            yield from one

    async def first() -> Found:
        async for found in Replay(policy_inputs, find_opa).run(endless()):
            return found
        raise AssertionError

    assert asyncio.run(first()).kind == "mismatch" and taken <= 512


def test_opa_decided_and_opa_is_asked_again(tmp_path: Path) -> None:
    needs_program("opa")
    ledger = recorded_ledger(tmp_path, "--engine", "opa", "--policy", STARTER_POLICY)
    done = sidecar("replay", ledger, "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["matched"], found["options_compared"]) == (0, 3, 4), done.stdout
    decisions = decisions_of(ledger)
    assert decisions[0]["policy"]["engine"] == "opa"
    program = find_opa(needs_program("opa"))
    hidden = asyncio.run(build_files(program, {"p.rego": IMPURE.encode()}, impure_allowed())).packed
    file = tmp_path / "segment"
    file.write_bytes(rewritten([by(decisions[0], bundle_digest=digest(hidden))], bundle=hidden).stream())
    done = sidecar("replay", file)  # though no entry says so
    assert done.returncode == 3 and "not re-run: the policy uses time.now_ns" in done.stdout, done.stdout
    for manifest in (b"[1]", b'{"roots": 7}', b"no JSON"):
        odd = pack({"p.rego": RULES.encode(), ".manifest": manifest})
        found = asyncio.run(rerun_by(program, by(decisions[0], bundle_digest=digest(odd)), odd))
        assert [f.kind for f in found] == ["not re-run"], (manifest, found)


async def rerun_by(program: OpaProgram, decision: Payload, packed: bytes) -> list[Found]:
    replay = Replay(policy_inputs, lambda: program)
    return [f async for f in replay.run(records(BytesIO(rewritten([decision], bundle=packed).stream()).read))]


def impure_allowed() -> GateSettings:
    return GateSettings("agents/decision", "opa", allow_builtins=("time.now_ns",))
