"""Many sidecars that seal once in a while: each has its receipt. `make soak` has 10,000, each once a minute.

SIDECAR_SOAK_CHAINS: how many. They run in two processes over real gRPC, on 32 connections.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.collecting import Collecting, collecting
from tests.program import environment
from tests.scribe import SOAK
from tests.soak.figures import tell, wanted

PROCESSES = 2
CHAINS, SECONDS = (wanted("CHAINS", 10_000), 60.0) if SOAK else (60, 2.0)


def test_each_of_a_crowd_has_its_receipts(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    with collecting(tmp_path / "collector", COLLECTOR_ROLL_CALL_SECONDS="60" if SOAK else "0.2") as collector:
        began = time.monotonic()
        took = crowded(collector)
        assert len(took) == CHAINS
        said = collector.status()
        assert len(said["chains"]) == CHAINS and said["alarms"] == []
        assert said["log_size"] >= 2 * CHAINS  # an epoch note and a seal of each
        assert collector.stop() == 0
    took.sort()
    p99 = took[int(len(took) * 0.99)]
    tell(
        pytestconfig,
        f"{CHAINS:,} chains, {CHAINS / SECONDS:.0f} seals a second for {SECONDS:.0f} s by {PROCESSES} processes: "
        f"from a seal to its checked receipt p50 {statistics.median(took):.2f} s, p99 {p99:.2f} s, "
        f"longest {took[-1]:.2f} s; {time.monotonic() - began:.0f} s in all",
    )


def crowded(collector: Collecting) -> list[float]:
    """Seconds to each receipt."""
    each = CHAINS // PROCESSES
    took: list[float] = []
    with ExitStack() as stack:
        running = []
        for number in range(PROCESSES):
            numbers = (str(number * each), str(each), "1", str(SECONDS))
            command = [sys.executable, "-m", "tests.collector.crowd", collector.address, collector.key, *numbers]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            process = stack.enter_context(subprocess.Popen(command, text=True, env=environment(), **pipes))
            stack.callback(process.kill)
            running.append(process)
        for process in running:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
        for process in running:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in running:
            assert process.stdout is not None
            took += json.loads(process.stdout.readline())
            assert process.wait(60) == 0
    return took
