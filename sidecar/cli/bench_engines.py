"""`sidecar bench`, the engines: bare OPA, the sidecar with OPA and with Wasm, unary and stream, in rounds.

In each round everybody is asked at 1, 16 and 64 in flight, one after the other, so that a slow minute of the machine
is a slow minute for all. Every answer of a sidecar is held against its ledger, which must have grown by as many.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sidecar.cli.bench_figures import Findings
from sidecar.cli.bench_load import Door, Run, ask, calls_for, decide_door, opa_door
from sidecar.cli.bench_programs import Serving, opa_server, serving
from sidecar.cli.bench_work import AGENT, ENTRYPOINT, LONG_STREAM, Work, ask_once
from sidecar.errors import UsageError

IN_FLIGHT: Final = (1, 16, 64)
_STREAMED: Final = {1: 1, 16: 16, 64: LONG_STREAM}  # questions in one stream, by how many are to be in flight
_WARM: Final = 20  # questions for each in flight
_LONG: Final = 0.1  # seconds; runs shorter than that are for trying the bench itself
Span = tuple[int, int]


@dataclass(slots=True)
class Contestant:
    """Somebody who is asked. ``bodies`` and ``asked``: what one call carries at each level, and how many questions.

    ``spans`` gathers the entries (first and after the last) that its runs with one question in flight left.
    """

    door: Door
    bodies: Mapping[int, Path]
    asked: Mapping[int, int]
    sidecar: Serving | None = None
    spans: list[Span] = field(default_factory=list)

    def run(self, in_flight: int, calls: int) -> Run:
        """One run at a level, every answer of a sidecar held against its ledger."""
        each = self.asked[in_flight]
        at_once = max(1, in_flight // each)
        if self.sidecar is None:
            return ask(self.door, self.bodies[in_flight], at_once, calls)
        with self.sidecar.guard(AGENT) as guard:
            before = ask_once(guard)
            run = ask(self.door, self.bodies[in_flight], at_once, calls)
            after = ask_once(guard)
        if after - before - 1 < calls * each:
            raise UsageError(
                f"{self.door.path}: {calls * each} questions left {after - before - 1} entries; see its log"
            )
        if in_flight == each == 1:
            self.spans.append((before + 1, after))
        return Run(run.calls * each, run.seconds, run.p50)

    def calls(self, in_flight: int, seconds: float) -> int:
        """How many calls of a level take about so long, as a short run shows that warms everybody up besides."""
        each = self.asked[in_flight]
        at_once = max(1, in_flight // each)
        warm = max(at_once, (_WARM if seconds >= _LONG else 1) * in_flight // each)
        return calls_for(self.door, self.bodies[in_flight], at_once, seconds, warm)


def unary(sidecar: Serving, work: Work) -> Contestant:
    """A sidecar asked one question a call."""
    return _same(decide_door(sidecar.socket), work.unary_body, sidecar)


def _same(door: Door, body: Path, sidecar: Serving | None = None) -> Contestant:
    return Contestant(door, dict.fromkeys(IN_FLIGHT, body), dict.fromkeys(IN_FLIGHT, 1), sidecar)


def _streamed(sidecar: Serving, work: Work) -> Contestant:
    bodies = {level: work.streams[count] for level, count in _STREAMED.items()}
    return Contestant(decide_door(sidecar.socket, "DecideStream"), bodies, _STREAMED, sidecar)


@contextlib.contextmanager
def contestants(work: Work, place: Path, opa: str) -> Iterator[dict[str, Contestant]]:
    """Everybody, running, by name."""
    logged = ("--set", "decision_logs.console=true")
    with contextlib.ExitStack() as stack:
        bare = stack.enter_context(opa_server(opa, work.opa_bundle, place / "bare"))
        logging = stack.enter_context(opa_server(opa, work.opa_bundle, place / "logging", *logged))
        with_opa = stack.enter_context(serving(place / "opa", "--engine", "opa", "--policy", work.policy))
        with_wasm = stack.enter_context(serving(place / "wasm", "--policy", work.wasm_bundle))
        yield {
            "bare OPA": _same(opa_door(bare, ENTRYPOINT), work.opa_body),
            "OPA with decision log": _same(opa_door(logging, ENTRYPOINT), work.opa_body),
            "sidecar, opa": unary(with_opa, work),
            "sidecar, wasm": unary(with_wasm, work),
            "sidecar, opa, stream": _streamed(with_opa, work),
            "sidecar, wasm, stream": _streamed(with_wasm, work),
        }


def in_rounds(
    asked: Mapping[str, Contestant], levels: Sequence[int], rounds: int, seconds: float
) -> dict[tuple[str, int], list[Run]]:
    """Everybody's runs, by name and level; ``seconds`` is how long everything of one name and level takes together."""
    pairs = [(name, level) for level in levels for name in asked]
    calls = {(name, level): asked[name].calls(level, seconds / rounds) for name, level in pairs}
    runs: dict[tuple[str, int], list[Run]] = defaultdict(list)
    for _ in range(rounds):
        for name, level in pairs:
            runs[name, level].append(asked[name].run(level, calls[name, level]))
    return runs


def measure(findings: Findings, asked: Mapping[str, Contestant], rounds: int, seconds: float) -> None:
    """Run the rounds; keep rates and latencies, and hold the targets on them."""
    runs = in_rounds(asked, IN_FLIGHT, rounds, seconds)
    for (name, level), found in runs.items():
        findings.add(f"decisions a second at {level}: {name}", "/s", [run.rate for run in found])
        if asked[name].asked[level] == 1:
            findings.add(f"p50 at {level}: {name}", "s", [run.p50 for run in found])
    _hold(findings)


def _hold(findings: Findings) -> None:
    def ratio(what: str, name: str, other: str) -> float:
        figures = findings.figures
        return figures[f"{what}: {name}"].median / figures[f"{what}: {other}"].median

    bare, logged, most = "bare OPA", "OPA with decision log", "decisions a second at 64"
    for engine, slower, share in (("opa", 2.5, 0.5), ("wasm", 2.0, 1.0)):
        name = f"sidecar, {engine}"
        findings.hold(f"p50 at 1 in flight: {engine} of bare OPA", ratio("p50 at 1", name, bare), slower, at_most=True)
        found = ratio(most, name, logged)
        findings.hold(f"throughput at 64 in flight: {engine} of OPA with its log", found, share, at_most=False)
        found = ratio(most, f"{name}, stream", name)
        findings.hold(f"throughput at 64 in flight: {engine}, stream of unary", found, 1.5, at_most=False)
