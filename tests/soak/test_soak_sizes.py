"""`sidecar bench` on ledgers of ten thousand, a million and ten million entries: a decision takes no longer.

SIDECAR_SOAK_LARGEST (10,000,000): entries of the largest ledger; ten million take 15 GB and half an hour to write.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.needs import needs_program
from tests.program import BIN, environment
from tests.soak.figures import tell, wanted

pytestmark = pytest.mark.soak


def test_a_decision_on_a_large_ledger(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    for program in ("opa", "h2load"):
        needs_program(program)
    largest = wanted("LARGEST", 10_000_000)
    sizes = f"10000,{min(1_000_000, largest)},{largest}"
    command = [BIN / "sidecar", "bench", "--only", "sizes", "--entries", sizes, "--json", "--data-dir", tmp_path]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for figure in found["figures"]:
        tell(pytestconfig, f"{figure['name']}: {1000 * figure['median']:.2f} ms")
    for target in found["targets"]:
        tell(pytestconfig, f"{target['name']}: {target['found']:.2f}x, at most {target['limit']:.2f}x")
    assert found["targets"] and all(target["met"] in (True, None) for target in found["targets"])
