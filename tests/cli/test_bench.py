"""`sidecar bench` with tiny counts: the shape of what it prints and that every figure is one. Speeds are not judged."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from sidecar.cli.bench_figures import Figure, Findings, Target
from sidecar.cli.bench_work import AGENT, AGENTS, LONG_STREAM, TOGETHER, prepare
from sidecar.v1 import decision_pb2 as pb
from tests.needs import needs_program
from tests.program import sidecar

PROGRAMS = ("opa", "h2load", "openssl", "git")


def measured(tmp_path: Path, *flags: str, **more: str) -> dict[str, Any]:
    done = sidecar("bench", "--json", "--seconds", "0.02", "--data-dir", tmp_path, *flags, **more)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
    value = json.loads(done.stdout)
    assert isinstance(value, dict)
    return value


def figures_of(found: dict[str, Any]) -> dict[str, Any]:
    """By their names, after a look at what holds for each."""
    assert found["left_out"] == {}
    assert all(value and value != "missing" for value in found["machine"].values())
    figures = {figure["name"]: figure for figure in found["figures"]}
    for figure in figures.values():
        assert 0 < figure["p10"] <= figure["median"] <= figure["p90"], figure
        assert figure["rounds"]
    return figures


def test_engines_tls_and_signatures_are_measured(tmp_path: Path) -> None:
    """The quick parts; `make soak` measures every one."""
    for program in PROGRAMS:
        needs_program(program)
    found = measured(tmp_path, *(word for part in ("engines", "signed", "tls") for word in ("--only", part)))
    hold_engines(found, figures_of(found))


@pytest.mark.soak
def test_every_part_is_measured(tmp_path: Path) -> None:
    for program in PROGRAMS:
        needs_program(program)
    found = measured(tmp_path, "--entries", "20,40")
    figures = figures_of(found)
    hold_engines(found, figures)
    targets = {target["name"]: target for target in found["targets"]}
    assert len(targets) == 30
    exported = targets["export of 1,000,000 entries at that speed"]
    took = figures["export of 400 entries with all documents"]["median"]
    assert (exported["found"], exported["limit"]) == (pytest.approx(took * 2_500), 60.0)
    assert exported["met"] is None and "400" in exported["not_judged"]
    without, with_it = (
        figures[f"p50 of an MCP tool call {how}"]["median"] for how in ("without the gateway", "with it")
    )
    held = targets["the gateway adds to p50 of an MCP tool call"]
    assert (held["found"], held["limit"]) == (pytest.approx(with_it - without), 0.003)
    for engine in ("opa", "wasm"):
        assert figures[f"a policy of 200 files comes into force: {engine}"]["unit"] == "s"
        p99s = [figures[f"p99 at 4 {when}: {engine}"]["median"] for when in ("while it does", "before")]
        ratio = targets[f"p99 while a policy comes into force of that before: {engine}"]
        assert ratio["found"] == pytest.approx(p99s[0] / p99s[1])
    assert {name: t["limit"] for name, t in targets.items() if "policy diff" in name} == {
        "policy diff, evaluations a second of one core: wasm": 2000.0,
        "policy diff, evaluations a second: opa": 1000.0,
    }
    grown = targets["p50 at 40 entries of that at 20"]
    assert grown["met"] is None
    assert "1,000,000" in grown["not_judged"]


def hold_engines(found: dict[str, Any], figures: dict[str, Any]) -> None:
    """What the parts engines, tls and signed find."""
    for who in ("bare OPA", "OPA with decision log", "sidecar, opa", "sidecar, wasm"):
        for level in (1, 16, 64):
            assert figures[f"p50 at {level}: {who}"]["unit"] == "s"
            assert figures[f"decisions a second at {level}: {who}"]["unit"] == "/s"
    for who in ("sidecar, opa, stream", "sidecar, wasm, stream"):
        assert {1, 16, 64} == {n for n in (1, 16, 64) if f"decisions a second at {n}: {who}" in figures}
    targets = {target["name"]: target for target in found["targets"]}
    for without, more, most in (("plain TCP", "mutual TLS", 0.00015), ("name asserted", "request signed", 0.00035)):
        base, longer = (figures[f"p50 at 1 by the SDK: {how}"]["median"] for how in (without, more))
        held = targets[f"{more} adds to p50 at 1"]
        assert (held["found"], held["limit"]) == (pytest.approx(longer - base), most)
    ratio = targets["p50 at 1 in flight: wasm of bare OPA"]
    medians = [figures[f"p50 at 1: {who}"]["median"] for who in ("sidecar, wasm", "bare OPA")]
    assert ratio["found"] == pytest.approx(medians[0] / medians[1])
    assert ratio["met"] is (ratio["found"] <= ratio["limit"] == 2.0)


def test_a_missing_program_leaves_its_parts_out_and_that_is_said(tmp_path: Path) -> None:
    nothing = tmp_path / "bin"
    nothing.mkdir()
    place = tmp_path / "place"
    place.mkdir()
    done = sidecar("bench", "--seconds", "0.02", "--data-dir", place, PATH=str(nothing))
    assert done.returncode == 0, done.stderr
    assert "one durable commit of a 2 KB record (LMDB)" in done.stdout
    for line in (
        "engines: not on PATH: opa, h2load",
        "policy: not on PATH: opa, h2load, git",
        "start: not on PATH: opa",
    ):
        assert f"left out: {line}" in done.stdout
    assert "MET" not in done.stdout


def test_wrong_usage_is_named() -> None:
    for flags in (("--entries", "x"), ("--entries", "3"), ("--only", "nothing"), ("--seconds", "0")):
        done = sidecar("bench", *flags)
        assert done.returncode == 2
        assert done.stderr.startswith("sidecar: Invalid value for '" + flags[0])


def test_the_work_is_of_the_size_it_claims(tmp_path: Path) -> None:
    work = prepare(tmp_path, None)
    agents = json.loads((work.policy / "data.json").read_text())["registry"]["agents"]
    assert len(agents) == AGENTS
    assert AGENT in agents
    unary = work.unary_body.read_bytes()
    assert unary[0] == 0
    assert 800 < int.from_bytes(unary[1:5], "big") == len(unary) - 5 < 1300
    numbers, at, body = [], 0, work.streams[LONG_STREAM].read_bytes()
    while at < len(body):
        end = at + 5 + int.from_bytes(body[at + 1 : at + 5], "big")
        message = pb.DecideStreamRequest.FromString(body[at + 5 : end])
        assert len(message.questions) <= TOGETHER
        assert {each.request.SerializeToString() for each in message.questions} == {unary[5:]}
        numbers += [each.correlation_id for each in message.questions]
        at = end
    assert numbers == list(range(1, LONG_STREAM + 1))


def test_figures_and_targets_say_what_they_hold() -> None:
    figure = Figure("f", "s", (0.003, 0.001, 0.002, 0.010, 0.0015))
    assert figure.median == 0.002
    assert figure.spread == (0.001, 0.010)
    assert "2 ms" in figure.line()
    assert Target("t", 2.5, 2.5, at_most=True).met
    assert not Target("t", 2.51, 2.5, at_most=True).met
    assert Target("t", 1.5, 1.5, at_most=False).line().endswith("MET")
    assert Target("t", 1.4, 1.5, at_most=False).line().endswith("MISSED")
    assert "not judged: small" in Target("t", 1.4, 1.5, at_most=False, judged="small").line()
    with pytest.raises(ValueError, match="no value"):
        Figure("f", "s", ())
    findings = Findings()
    findings.add("f", "B", [100e6])
    with pytest.raises(ValueError, match="twice"):
        findings.add("f", "B", [1])
    assert os.linesep not in findings.lines({})[0]
