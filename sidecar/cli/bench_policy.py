"""`sidecar bench`, policies: one of 200 files comes into force under load, and recorded decisions are run again.

A sidecar for each engine follows a repository and is asked without a pause, while a commit is pushed to it. The whole
gate, the start of the engine and the POLICY entry fall into the time that is called "during".
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sidecar.chain.entry import EntryType
from sidecar.cli.bench_figures import Findings, percentile
from sidecar.cli.bench_ledger import prefilled
from sidecar.cli.bench_load import Call, ask_each, decide_door
from sidecar.cli.bench_programs import Serving, processor_time, serving
from sidecar.cli.bench_work import AGENT, ENTRYPOINT, Work, ask_once, starter_files, with_agents
from sidecar.cli.policy_diff import Inputs, run_again
from sidecar.cli.reading import entries_of
from sidecar.errors import UsageError
from sidecar.ledger import ledger_stream
from sidecar.policy import OpaProgram, deciding, read_policy

_FILES: Final = 200
_IN_FLIGHT: Final = 4
_CALLS: Final = 200  # in one run of h2load, some of which make up a stretch of time
_PATIENCE: Final = 120.0  # seconds for a policy to come into force
_IN_FORCE: Final = r"policy revision {} is in force, (\d+\.\d+) s after it was found"
_RULE: Final = """package agents.changes

deny contains {{"code": "team_{n:03}", "message": "what team {n} has closed stays closed"}} if {{
	input.action == "team.{n:03}.close"
	input.arguments.revision != "{revision}"
}}
"""
_TEST: Final = """package agents.changes_team_{n:03}_test

import data.agents.changes

test_closed if {{
	some refusal in changes.deny with input as {{"action": "team.{n:03}.close", "arguments": {{"revision": ""}}}}
	refusal.code == "team_{n:03}"
}}
"""


@dataclass(frozen=True, slots=True)
class _Team:
    """A repository with a policy of so many files, tests and expectations among them, commit after commit."""

    place: Path

    def found(self) -> None:
        self.place.mkdir()
        self._git("init", "-q", "-b", "main")
        for name, content in starter_files().items():
            (self.place / name).write_bytes(content)
        (self.place / "data.json").write_text(with_agents())
        there = len(list(self.place.iterdir())) - 1  # without .git
        for number in range((_FILES - there) // 2):
            (self.place / f"team_{number:03}_test.rego").write_text(_TEST.format(n=number))
            self._write(number, "0")

    def push(self, revision: str) -> str:
        """A new commit, in which one file changed."""
        self._write(0, revision)
        self._git("add", "--all")
        self._git("-c", "user.name=bench", "-c", "user.email=bench@localhost", "commit", "-q", "-m", revision)
        return self._git("rev-parse", "HEAD")

    def _write(self, number: int, revision: str) -> None:
        (self.place / f"team_{number:03}.rego").write_text(_RULE.format(n=number, revision=revision))

    def _git(self, *arguments: str) -> str:
        clean = {"PATH": os.environ["PATH"], "HOME": str(self.place), "GIT_CONFIG_NOSYSTEM": "1"}
        done = subprocess.run(["git", *arguments], cwd=self.place, env=clean, capture_output=True, text=True)
        if done.returncode:
            raise UsageError(f"git {arguments[0]}: {done.stderr.strip()[:200]}")
        return done.stdout.strip()


def measure_activation(findings: Findings, work: Work, place: Path, rounds: int, seconds: float) -> None:
    """Seconds from finding a commit to its being in force, and p99 of decisions during that of p99 before it."""
    place.mkdir()
    team = _Team(place / "policies")
    team.found()
    team.push("first")
    took: dict[str, list[float]] = {"opa": [], "wasm": []}
    before: dict[str, list[float]] = {"opa": [], "wasm": []}
    during: dict[str, list[float]] = {"opa": [], "wasm": []}
    for number in range(rounds):
        for engine in took:
            follows = {"SIDECAR_POLICY_SOURCE_GIT_URL": f"file://{team.place}", "SIDECAR_POLICY_SOURCE_PERIOD": "1"}
            with serving(place / engine, "--engine", engine, settings=follows) as sidecar:
                calm, busy, lasted = _one(sidecar, work, team, f"{number}-{engine}", seconds / rounds)
            took[engine].append(lasted)
            before[engine].append(percentile(calm, 0.99))
            during[engine].append(percentile(busy, 0.99))
    for engine, lasted_each in took.items():
        name = f"a policy of {_FILES} files comes into force: {engine}"
        found = findings.add(name, "s", lasted_each)
        findings.hold(name, found.median, 3.0, at_most=True, unit="s")
        calm_p99 = findings.add(f"p99 at {_IN_FLIGHT} before: {engine}", "s", before[engine])
        busy_p99 = findings.add(f"p99 at {_IN_FLIGHT} while it does: {engine}", "s", during[engine])
        ratio = busy_p99.median / calm_p99.median
        findings.hold(f"p99 while a policy comes into force of that before: {engine}", ratio, 2.0, at_most=True)


def _one(
    sidecar: Serving, work: Work, team: _Team, revision: str, seconds: float
) -> tuple[list[float], list[float], float]:
    """Latencies before and during one activation, and how long that took."""
    with sidecar.guard(AGENT) as guard:
        ask_once(guard)
    door = decide_door(sidecar.socket)
    calls: list[Call] = []
    end = time.monotonic() + seconds
    while not calls or time.monotonic() < end:
        calls += ask_each(door, work.unary_body, _IN_FLIGHT, _CALLS)
    commit = team.push(revision)
    line = re.compile(_IN_FORCE.format(commit))
    end = time.monotonic() + _PATIENCE
    while (said := line.search(sidecar.log.read_text())) is None:
        calls += ask_each(door, work.unary_body, _IN_FLIGHT, _CALLS)
        if time.monotonic() > end:
            raise UsageError(f"the commit did not come into force; see {sidecar.log}")
    lasted = float(said[1])
    recorded = _recorded(sidecar.ledger, commit)
    busy = [call.took for call in calls if recorded - lasted <= call.ended and call.began <= recorded]
    calm = [call.took for call in calls if call.ended < recorded - lasted]
    return calm, busy, lasted


def _recorded(ledger: Path, commit: str) -> float:
    """When the policy was put in force, seconds since 1970."""
    with ledger_stream(ledger) as read:
        for header, payload in entries_of(read, EntryType.POLICY):
            if payload["revision"] == commit and payload["event"] == "activated":
                return header.wall_ns / 1e9
    raise UsageError("the commit is not on record")


def measure_diff(findings: Findings, work: Work, place: Path, entries: int, rounds: int, program: OpaProgram) -> None:
    """Evaluations a second of `sidecar policy diff`, reading and comparing included: Wasm by a core's own time."""
    place.mkdir()
    logging.getLogger("sidecar.opa").setLevel(logging.ERROR)
    ledger = prefilled(place / "ledger", work, entries)
    asyncio.run(_rerun(findings, work, ledger, rounds, program))


async def _rerun(findings: Findings, work: Work, ledger: Path, rounds: int, program: OpaProgram) -> None:
    rates: dict[str, list[float]] = {"opa": [], "wasm": []}
    policy = read_policy(work.policy)
    async with (
        deciding(program, policy, ENTRYPOINT, "wasm") as wasm,
        deciding(program, policy, ENTRYPOINT, "opa") as opa,
    ):
        for _ in range(rounds):
            for engine, decides, clock in (("wasm", wasm, processor_time), ("opa", opa, time.perf_counter)):
                with ledger_stream(ledger) as read:
                    began, count = clock(), 0
                    async for _, was, now in run_again(decides, decides, Inputs().recorded(read)):
                        if not (was.decided and now.decided):
                            raise UsageError(f"a recorded decision was not decided again: {was.cause}, {now.cause}")
                        count += 2
                    rates[engine].append(count / (clock() - began))
    for engine, least in (("wasm", 2000.0), ("opa", 1000.0)):
        name = f"policy diff, evaluations a second{' of one core' if engine == 'wasm' else ''}: {engine}"
        found = findings.add(name, "/s", rates[engine])
        findings.hold(name, found.median, least, at_most=False, unit="/s")
