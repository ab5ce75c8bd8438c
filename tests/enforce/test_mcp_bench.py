"""`sidecar bench --only mcp` with tiny counts: that its figures are those of real calls. Speeds are not judged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.needs import needs_program
from tests.program import sidecar


def test_what_the_gateway_adds_is_measured(tmp_path: Path) -> None:
    needs_program("opa")
    done = sidecar("bench", "--only", "mcp", "--json", "--seconds", "0.02", "--data-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["left_out"] == {}
    medians = {figure["name"]: figure["median"] for figure in found["figures"]}
    without, with_it = (medians[f"p50 of an MCP tool call {how}"] for how in ("without the gateway", "with it"))
    assert 0 < without < with_it and medians["p50 of its question alone, by the SDK"] > 0
    (target,) = found["targets"]
    assert (target["found"], target["limit"]) == (pytest.approx(with_it - without), 0.003)
