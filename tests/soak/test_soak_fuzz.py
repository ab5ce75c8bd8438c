"""Every fuzz test again and again with other examples. SIDECAR_SOAK_FUZZ_SECONDS: for how long (600)."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.program import environment
from tests.soak.figures import tell, wanted

pytestmark = pytest.mark.soak
HOME = Path(__file__).parents[2]
FACTOR = 3  # times as many examples as a test names


def test_fuzzing(pytestconfig: pytest.Config) -> None:
    seconds, started, rounds = wanted("FUZZ_SECONDS", 600), time.monotonic(), 0
    first = int(started * 1e6)
    while time.monotonic() - started < seconds:
        command = [
            sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/fuzz", "tests/verify/test_fuzz.py",
            f"--hypothesis-seed={first + rounds}",
        ]  # fmt: skip
        more = {"SIDECAR_FUZZ_FACTOR": str(FACTOR)}
        done = subprocess.run(command, cwd=HOME, env=environment(**more), capture_output=True, text=True)
        assert done.returncode == 0, f"seed {first + rounds}\n{done.stdout[-8_000:]}"
        rounds += 1
    took = time.monotonic() - started
    tell(pytestconfig, f"fuzz: {rounds} rounds of {FACTOR} times the examples in {took:.0f} s, no failure")
