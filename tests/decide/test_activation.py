"""Policies change under load: no decision fails, none is mixed, and each is what its own policy gives."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sidecar.chain.entry import EntryType
from sidecar.chain.request import Option, Request
from sidecar.decide import policy_inputs
from sidecar.policy import BuiltPolicy, Engine, SupervisedOpa, Switch, WasmEngine, find_opa, rerun
from sidecar.policy.bundle import pack, unpack
from tests.api.running import judged
from tests.decide.test_in_force import ORIGIN, UNPROVED, Place, run
from tests.faults.load import recorded
from tests.needs import needs_program

RULE = """package agents

default decision := {{"effect": "DENY", "reasons": [{{"code": "none", "message": "{name}"}}]}}

decision := {{"effect": effect, "reasons": [{{"code": "{name}", "message": input.resource.id}}]}} if {{
	effect := {{true: "ALLOW", false: "DENY"}}[input.arguments.amount < data.limit]
}}
"""
ACTIVATIONS = 50
DECISIONS = 2_000
CALLERS = 32
PACE = 0.04  # seconds between a caller's questions: else as many are asked as the processor takes while engines start


def bundles(opa: str, scratch: Path, engine: str) -> list[BuiltPolicy]:
    """Four policies that answer differently, and say which they are."""
    return [built(opa, scratch / f"r{n}", f"r{n}", 10 * n, engine) for n in range(4)]


def built(opa: str, place: Path, revision: str, limit: int, engine: str) -> BuiltPolicy:
    place.mkdir()
    (place / "p.rego").write_text(RULE.format(name=revision))
    (place / "data.json").write_text(f'{{"limit": {limit}}}')
    out = place.with_suffix(".tar.gz")
    target = ("-t", "wasm", "-e", "agents/decision") if engine == "wasm" else ()
    subprocess.run([opa, "build", *target, "-r", revision, "-b", place, "-o", out], check=True)
    return BuiltPolicy.of(pack(unpack(out.read_bytes())))


def made(engine: str, bundle: BuiltPolicy) -> Engine:
    if engine == "wasm":
        return WasmEngine(bundle.packed, "agents/decision")
    return SupervisedOpa(find_opa(needs_program("opa")), bundle, "agents/decision")


def question(number: int) -> Request:
    """One action and an alternative with another amount."""
    amount = str(number % 40).encode()
    first = Option("pay", "account", f"a-{number}", b'{"amount":' + amount + b"}")
    second = Option("pay", "account", f"b-{number}", b'{"amount":7}')
    return Request("billing-agent", first, alternatives=(second,))


@pytest.mark.parametrize("engine", ["wasm", "opa"])
def test_changes_under_load(tmp_path: Path, engine: str) -> None:
    opa = needs_program("opa")
    policies = bundles(opa, tmp_path, engine)
    done = asyncio.Event()
    answered: list[tuple[str, str]] = []

    async def call(place: Place, start: int) -> None:
        number = start
        while not done.is_set():
            answer = await place.path.decide(question(number), UNPROVED)
            judgements = (answer.judged, *answer.alternatives)
            assert len({j.version for j in judgements}) == 1, "a mixed decision"
            answered.append((answer.judged.cause, answer.judged.version.revision))
            number += CALLERS
            await asyncio.sleep(PACE)

    async def story(place: Place) -> None:
        place.switch._none = Switch(engine, "agents/decision")._none
        await place.in_force.put_in_force(made(engine, policies[0]), policies[0].packed, ORIGIN)
        callers = [asyncio.create_task(call(place, n)) for n in range(CALLERS)]
        for n in range(1, ACTIVATIONS + 1):
            after = n * DECISIONS // ACTIVATIONS
            while len(answered) < after:  # noqa: ASYNC110  each policy decides for a while
                await asyncio.sleep(0.001)
            policy = policies[n % 4]
            await place.in_force.put_in_force(await asyncio.to_thread(made, engine, policy), policy.packed, ORIGIN)
        done.set()
        await asyncio.gather(*callers)
        await place.switch.close()

    place = run(tmp_path, story)
    assert {cause for cause, _ in answered} == {"policy"}, "a decision failed"
    assert {revision for _, revision in answered} == {"r0", "r1", "r2", "r3"}
    entries = list(recorded(place.directory))
    in_force = [v["bundle_digest"] for h, v in entries if h.type is EntryType.POLICY]
    assert len(in_force) == ACTIVATIONS + 1
    decisions = [v for h, v in entries if h.type is EntryType.DECISION]
    assert len(decisions) == len(answered) >= DECISIONS
    asyncio.run(compare(engine, {p.digest: p for p in policies}, decisions))
    assert judged(place.directory, []).verdict.name == "UNANCHORED"


async def compare(engine: str, policies: dict[str, BuiltPolicy], decisions: list[dict[str, Any]]) -> None:
    """Each recorded result, against the policy that its entry names."""
    for digest, bundle in policies.items():
        mine = [d for d in decisions if d["policy"]["bundle_digest"] == digest]
        decides = WasmEngine(bundle.packed, "agents/decision") if engine == "wasm" else made(engine, bundle)
        await ready(decides)
        again = rerun(decides, (document for d in mine for document in policy_inputs(d)), timeout=60.0, at_once=8)
        results = [result async for result in again]
        assert len(results) == 2 * len(mine)
        for d, first, second in zip(mine, results[::2], results[1::2], strict=True):
            assert (d["effect"], d["result"]) == (first.effect, first.result)
            assert d["alternatives"][0]["effect"] == second.effect
            assert d["alternatives"][0]["reasons"][0]["code"] == second.codes[0]
        assert {d["reasons"][0]["code"] for d in mine} <= {f"r{n}" for n in range(4)} | {"none"}
        await decides.close()


async def ready(engine: Engine) -> None:
    async with asyncio.timeout(120):
        while True:
            try:
                return await engine.ready()
            except Exception:
                await asyncio.sleep(0.01)
