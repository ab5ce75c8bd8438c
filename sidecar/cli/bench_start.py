"""`sidecar bench`, start and memory: seconds from `sidecar serve` to the first answer, RssAnon after many decisions."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from sidecar.cli.bench_engines import unary
from sidecar.cli.bench_figures import Findings
from sidecar.cli.bench_programs import serving
from sidecar.cli.bench_work import AGENT, Work, ask_once

_MANY: Final = 100_000
_PART: Final = 10_000
_IN_FLIGHT: Final = 64


def measure_start(findings: Findings, work: Work, place: Path, rounds: int) -> None:
    """From starting the program to an answer in the caller's hands: on a new ledger first, then on the one it left."""
    place.mkdir()
    for engine, policy in (("opa", work.policy), ("wasm", work.wasm_bundle)):
        took = []
        for _ in range(rounds):
            began = time.perf_counter()
            with serving(place / engine, "--engine", engine, "--policy", policy) as sidecar:
                with sidecar.guard(AGENT) as guard:
                    ask_once(guard)
                took.append(time.perf_counter() - began)
        found = findings.add(f"first answer after start: {engine}", "s", took)
        findings.hold(f"first answer after start: {engine}", found.median, 1.5, at_most=True, unit="s")


def measure_memory(findings: Findings, work: Work, place: Path, decisions: int) -> None:
    """RssAnon of the sidecar (not of the OPA it starts) once it has answered so many."""
    place.mkdir()
    small = "" if decisions >= _MANY else f"after {decisions:,} decisions, not {_MANY:,}"
    for engine, policy in (("opa", work.policy), ("wasm", work.wasm_bundle)):
        with serving(place / engine, "--engine", engine, "--policy", policy) as sidecar:
            contestant, left = unary(sidecar, work), decisions
            while left > 0:
                left -= contestant.run(_IN_FLIGHT, max(_IN_FLIGHT, min(left, _PART))).calls
            found = findings.add(f"RssAnon after {decisions:,} decisions: {engine}", "B", [sidecar.rss_anon()])
        name = f"RssAnon after {decisions:,} decisions: {engine}"
        findings.hold(name, found.median, 100e6, at_most=True, unit="B", judged=small)
