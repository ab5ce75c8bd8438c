"""The gate with the real OPA: every kind of failure with its file and line, and what a hostile policy cannot do."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import threading
from pathlib import Path

import pytest

from sidecar.errors import UsageError
from sidecar.policy import (
    Bounds,
    GateResult,
    GateSettings,
    OpaProgram,
    TreeLimits,
    WasmEngine,
    check_policy,
    open_bundle,
    try_policy,
)

REGO = Path(__file__).parents[2] / "rego"

POLICY = """package p

default decision := {"effect": "DENY", "reasons": [{"code": "no", "message": "not allowed"}]}

decision := {"effect": "ALLOW", "reasons": []} if input.agent.id == "a"
"""
TESTS = """package p_test

import data.p

test_denied if p.decision.effect == "DENY"

test_allowed if p.decision.effect == "ALLOW" with input.agent.id as "a"
"""
EXPECTATIONS = """expectations:
  - name: a may
    input: {agent: {id: a}, action: act, resource: {type: t, id: i}, time: 2026-11-23T12:00:00Z}
    expect: {effect: ALLOW, reasons: []}
  - name: b may not
    input: {agent: {id: b}, action: act, resource: {type: t, id: i}, time: 2026-11-23T12:00:00Z}
    expect: {effect: DENY, reasons: [no], obligations: []}
"""
SETTINGS = GateSettings("p/decision", evaluation_seconds=20)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A policy directory that passes."""
    place = tmp_path / "policy"
    place.mkdir()
    (place / "p.rego").write_text(POLICY)
    (place / "p_test.rego").write_text(TESTS)
    (place / "expectations.yaml").write_text(EXPECTATIONS)
    return place


def gate(program: OpaProgram, place: Path, settings: GateSettings = SETTINGS) -> GateResult:
    return asyncio.run(check_policy(program, place, settings))


def outcomes(result: GateResult) -> dict[str, str]:
    return {step.name: step.outcome for step in result.steps}


def found(result: GateResult) -> list[tuple[str, str, int]]:
    """Step, file and line of every finding."""
    return [(step.name, finding.file, finding.line) for step in result.steps for finding in step.findings]


def said(result: GateResult) -> str:
    return "\n".join(finding.message for finding in result.findings)


def test_a_good_policy_passes_and_is_built_the_same_again(program: OpaProgram, place: Path) -> None:
    first, again = gate(program, place), gate(program, place)
    assert first.passed and first.pure and first.findings == ()
    assert list(outcomes(first)) == ["files", "check", "tests", "build", "entry point", "expectations"]
    assert first.coverage is not None and first.coverage.percent == 100
    assert first.opa_bundle is not None and first.opa_bundle == again.opa_bundle and first.wasm_bundle is None
    assert first.opa_bundle.digest == hashlib.sha256(first.opa_bundle.packed).hexdigest()


@pytest.mark.parametrize("engine", ["opa", "wasm"])
def test_the_starter_policy_passes_its_own_gate(program: OpaProgram, engine: str) -> None:
    result = gate(program, REGO, GateSettings(engine=engine, min_coverage=95, evaluation_seconds=20))
    assert result.passed and result.pure, result.findings
    assert (result.wasm_bundle is not None) == (engine == "wasm")
    assert next(s.note for s in result.steps if s.name == "entry point") == "DENY for an unknown agent"
    assert int(result.steps[-1].note.split()[0]) >= 12


def test_the_built_wasm_is_what_the_engine_loads(program: OpaProgram, place: Path) -> None:
    settings = GateSettings("p/decision", "wasm", revision="c0ffee", evaluation_seconds=20)
    first, again = gate(program, place, settings), gate(program, place, settings)
    assert first.passed, first.findings
    assert first.wasm_bundle is not None and first.wasm_bundle == again.wasm_bundle
    assert open_bundle(first.wasm_bundle.packed).revision == "c0ffee"
    engine = WasmEngine(first.wasm_bundle.packed, "p/decision", workers=1)
    asyncio.run(engine.close())
    assert engine.version.bundle_digest == first.wasm_bundle.digest


def test_what_does_not_parse_or_compile_has_its_line(program: OpaProgram, place: Path) -> None:
    (place / "sub").mkdir()
    (place / "sub" / "bad.rego").write_text("package q\n\nimport data.p\n\nx := nobody\n")
    result = gate(program, place)
    assert set(found(result)) == {("check", "sub/bad.rego", 3), ("check", "sub/bad.rego", 5)}
    assert "import data.p unused" in said(result) and "nobody" in said(result)
    assert set(outcomes(result).values()) == {"passed", "failed", "not run"}
    assert outcomes(result)["build"] == "not run" and not result.passed and result.opa_bundle is None
    (place / "sub" / "bad.rego").write_text("package q\n\nnot rego at all\n")
    assert ("check", "sub/bad.rego", 3) in found(gate(program, place))


def test_data_that_is_not_json_is_named(program: OpaProgram, place: Path) -> None:
    (place / "data.json").write_text('{"a": 1,}')
    result = gate(program, place)
    assert not result.passed
    assert ("check", "data.json") in [(step, file) for step, file, _ in found(result)]


def test_an_impure_built_in_needs_leave_and_marks_the_result(program: OpaProgram, place: Path) -> None:
    (place / "p.rego").write_text(POLICY + "\ndecision := {} if {\n\tinput.x\n\ttime.now_ns() < 0\n}\n")
    refused = gate(program, place)
    assert found(refused) == [("check", "p.rego", 9)]
    assert "time.now_ns" in said(refused) and not refused.pure
    allowed = GateSettings("p/decision", min_coverage=30, allow_builtins=("time.now_ns", "rand.intn"))
    passed = gate(program, place, allowed)
    assert passed.passed, passed.findings
    assert not passed.pure and passed.impure_builtins == ("time.now_ns",)
    assert passed.to_json()["pure"] is False


def test_leave_that_is_not_used_leaves_the_policy_pure(program: OpaProgram, place: Path) -> None:
    result = gate(program, place, GateSettings("p/decision", allow_builtins=("time.now_ns",)))
    assert result.passed and result.pure and result.impure_builtins == ()


@pytest.mark.parametrize("name", ["count", "no.such"])
def test_leave_for_what_needs_none_is_a_mistake(program: OpaProgram, place: Path, name: str) -> None:
    with pytest.raises(UsageError, match=rf"--allow-builtin '{name}'.*time\.now_ns"):
        gate(program, place, GateSettings("p/decision", allow_builtins=(name,)))


def test_a_failing_test_has_its_line(program: OpaProgram, place: Path) -> None:
    more = '\ntest_wrong if p.decision.effect == "ALLOW"\n\ntest_odd if f(1) == 1\n'
    more += "\nf(x) := 1 if x > -1\n\nf(x) := 2 if x > 0\n"
    (place / "p_test.rego").write_text(TESTS + more)
    result = gate(program, place)
    assert set(found(result)) == {("tests", "p_test.rego", 9), ("tests", "p_test.rego", 11)}
    assert "p_test.test_wrong failed" in said(result) and "conflicting values" in said(result)
    assert outcomes(result)["expectations"] == "passed"  # one run tells all


def test_too_little_coverage_names_the_lines(program: OpaProgram, place: Path) -> None:
    (place / "more.rego").write_text("package more\n\na := 1 if {\n\tinput.x\n\tinput.y\n}\n\nb := 2 if input.z\n")
    result = gate(program, place)
    assert ("tests", "more.rego", 3) in found(result)
    assert "3-5, 8" in said(result) and "80 % is the least" in said(result)
    assert result.coverage is not None and 0 < result.coverage.percent < 80
    assert result.coverage.files["more.rego"].uncovered == (3, 4, 5, 8) and "p_test.rego" not in result.coverage.files
    assert gate(program, place, GateSettings("p/decision", min_coverage=result.coverage.percent)).passed


def test_no_tests_at_all(program: OpaProgram, place: Path) -> None:
    (place / "p_test.rego").unlink()
    result = gate(program, place)
    assert outcomes(result)["tests"] == "failed"
    assert "no line of the policy is covered by a test" in said(result)


@pytest.mark.parametrize("engine", ["opa", "wasm"])
@pytest.mark.parametrize(
    ("rule", "named"),
    [
        ('decision := {"effect": "ALLOW", "reasons": []} if input.agent.id == "a"', "default rule"),
        ('decision := {"effect": "MAYBE", "reasons": []}', "effect is none of ALLOW"),
        ('decision := {"effect": "DENY", "reasons": []}', "DENY has no reason"),
        ("decision := true", "is a boolean, not an object"),
    ],
)
def test_an_entry_point_of_the_wrong_shape(
    program: OpaProgram, place: Path, engine: str, rule: str, named: str
) -> None:
    (place / "p.rego").write_text(f"package p\n\n# the decision\n{rule}\n")
    (place / "p_test.rego").unlink()
    result = gate(program, place, GateSettings("p/decision", engine, min_coverage=0, evaluation_seconds=20))
    assert {place for place in found(result) if place[0] == "entry point"} == {("entry point", "p.rego", 4)}
    assert named in said(result) and "an unknown agent" in said(result)


@pytest.mark.parametrize("engine", ["opa", "wasm"])
def test_an_entry_point_that_is_not_there(program: OpaProgram, place: Path, engine: str) -> None:
    result = gate(program, place, GateSettings("p/absent", engine, evaluation_seconds=20))
    assert not result.passed
    assert ("entry point" if engine == "opa" else "wasm") in {step for step, _, _ in found(result)}
    assert "p/absent" in said(result)


def test_a_built_in_that_wasm_lacks_is_named_with_its_place(program: OpaProgram, place: Path) -> None:
    rule = '\ndecision := {"effect": "DENY", "reasons": []} if {\n\tcrypto.md5(input.purpose) == "x"\n\tinput.q\n}\n'
    (place / "p.rego").write_text(POLICY + rule)
    result = gate(program, place, GateSettings("p/decision", "wasm", min_coverage=0, evaluation_seconds=20))
    assert found(result) == [("wasm", "p.rego", 8)]
    assert "crypto.md5" in said(result)
    assert outcomes(result)["expectations"] == "not run"
    assert gate(program, place, GateSettings("p/decision", "opa", min_coverage=0, evaluation_seconds=20)).passed


def test_a_decision_that_is_not_as_expected(program: OpaProgram, place: Path) -> None:
    odd = EXPECTATIONS.replace("reasons: [no]", "reasons: [unknown_agent]")
    (place / "expectations.yaml").write_text(odd)
    result = gate(program, place)
    assert found(result) == [("expectations", "expectations.yaml", 5)]
    assert said(result) == (
        "b may not: expected DENY for [unknown_agent] with duties [], got DENY for [no] with duties []; no: not allowed"
    )
    (place / "expectations.yaml").unlink()
    assert found(gate(program, place)) == [("expectations", "expectations.yaml", 0)]


def test_the_quick_part_leaves_coverage_out(program: OpaProgram, place: Path) -> None:
    (place / "more.rego").write_text("package more\n\na := 1 if input.x\n\nb := 2 if input.z\n\nc := 3 if input.z\n")
    assert not gate(program, place).passed
    result = asyncio.run(try_policy(program, place, SETTINGS))
    assert result.passed and result.coverage is None
    assert list(outcomes(result)) == ["files", "tests", "build", "expectations"]
    (place / "p_test.rego").write_text(TESTS + "\ntest_wrong if false\n")
    result = asyncio.run(try_policy(program, place, SETTINGS))
    assert found(result) == [("tests", "p_test.rego", 9)]


@pytest.mark.parametrize("bad", ["x := nobody(1)", "x := := 1"])
def test_the_quick_part_names_the_line_of_what_does_not_compile(program: OpaProgram, place: Path, bad: str) -> None:
    (place / "bad.rego").write_text(f"package q\n\n{bad}\n")
    result = asyncio.run(try_policy(program, place, SETTINGS))
    assert {("tests", "bad.rego", 3), ("build", "bad.rego", 3)} == set(found(result)), result.findings
    assert outcomes(result)["expectations"] == "not run"


def test_what_changes_during_the_passage_is_not_seen(program: OpaProgram, place: Path) -> None:
    def change(step: object) -> None:
        (place / "p.rego").write_text("not rego\n")

    result = asyncio.run(check_policy(program, place, SETTINGS, change))
    assert result.passed, result.findings
    assert not gate(program, place).passed


ENDLESS = """
decision := {"effect": "DENY", "reasons": []} if {
	some x in numbers.range(1, 1000000)
	some y in numbers.range(1, 1000000)
	x * y == -1
}
"""
HUGE = """
decision := {"effect": "DENY", "reasons": [{"code": "n", "message": sprintf("%d", [count(many)])}]}

many := [concat("", [s, sprintf("%d", [x])]) | some x in numbers.range(1, 100000000); s := "a text to fill memory with"]
"""


@pytest.mark.parametrize("engine", ["opa", "wasm"])
def test_an_evaluation_without_end_is_ended(program: OpaProgram, place: Path, engine: str) -> None:
    (place / "p.rego").write_text("package p\n" + ENDLESS)
    (place / "p_test.rego").unlink()
    result = gate(program, place, GateSettings("p/decision", engine, min_coverage=0, evaluation_seconds=0.3))
    assert outcomes(result)["entry point"] == "failed"
    assert "did not answer in time" in said(result) or (engine == "wasm" and "more memory" in said(result))


def test_tests_without_end_are_ended(program: OpaProgram, place: Path) -> None:
    (place / "p_test.rego").write_text(
        "package p_test\n\ntest_long if {" + ENDLESS.partition("{\n")[2].partition("{")[2]
    )
    (place / "p_test.rego").write_text("package p_test\n\ntest_long if {\n" + ENDLESS.split("if {\n")[1])
    result = gate(program, place, GateSettings("p/decision", bounds=Bounds(seconds=3), evaluation_seconds=20))
    assert "opa test did not finish in 3 s" in said(result)


@pytest.mark.parametrize("engine", ["opa", "wasm"])
def test_an_evaluation_that_eats_memory_is_ended(program: OpaProgram, place: Path, engine: str) -> None:
    (place / "p.rego").write_text("package p\n" + HUGE)
    (place / "p_test.rego").unlink()
    bounds = Bounds(memory_bytes=2 << 30)
    settings = GateSettings("p/decision", engine, min_coverage=0, bounds=bounds, evaluation_seconds=30)
    result = gate(program, place, settings)
    assert outcomes(result)["entry point"] == "failed"
    assert "cannot be reached" in said(result) or "memory" in said(result), said(result)


def test_tests_that_eat_memory_are_ended(program: OpaProgram, place: Path) -> None:
    (place / "p_test.rego").write_text("package p_test\n\ntest_big if count(many) == 1\n" + HUGE.split("\n\n")[1])
    result = gate(program, place, GateSettings("p/decision", bounds=Bounds(seconds=120, memory_bytes=2 << 30)))
    assert "opa test needs more than 2048 MiB of memory" in said(result), said(result)


def test_output_without_end_is_ended(program: OpaProgram, place: Path) -> None:
    (place / "data.json").write_text(json.dumps({"noise": os.urandom(2 << 20).hex()}))
    result = gate(program, place, GateSettings("p/decision", bounds=Bounds(output_bytes=1 << 20)))
    assert "opa build wrote more than 1 MiB" in said(result), said(result)


def test_a_schema_from_elsewhere_is_not_fetched(program: OpaProgram, place: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        port = server.getsockname()[1]
        schema = f'{{"type": "object", "properties": {{"x": {{"$ref": "http://127.0.0.1:{port}/a"}}}}}}'
        head = f"# METADATA\n# scope: package\n# schemas:\n#   - input: {schema}\n"
        (place / "p.rego").write_text(head + POLICY)
        result = gate(program, place)
        with pytest.raises(TimeoutError):
            server.accept()
    assert "remote reference loading disabled" in said(result)
    assert {(step, file) for step, file, _ in found(result)} == {("check", "p.rego")}


def test_limits_of_the_tree(program: OpaProgram, place: Path) -> None:
    for number in range(5):
        (place / f"x{number}.rego").write_text(f"package x{number}\n")
    few = gate(program, place, GateSettings("p/decision", tree=TreeLimits(files=4)))
    assert "more than 4 files" in said(few) and outcomes(few)["check"] == "not run"
    small = gate(program, place, GateSettings("p/decision", tree=TreeLimits(bytes=300)))
    assert "larger than the gate takes" in said(small)


def test_settings_and_directories_that_are_none(program: OpaProgram, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a directory"):
        gate(program, tmp_path / "absent")
    with pytest.raises(UsageError, match="opa or wasm"):
        GateSettings(engine="rego")
    with pytest.raises(UsageError, match="percentage"):
        GateSettings(min_coverage=101)
    with pytest.raises(UsageError, match="entry point"):
        GateSettings("p/../x")


def test_gates_leave_nothing_running(program: OpaProgram, place: Path) -> None:
    before = threading.active_count()
    assert gate(program, place, GateSettings("p/decision", "wasm", evaluation_seconds=20)).passed
    assert threading.active_count() == before
