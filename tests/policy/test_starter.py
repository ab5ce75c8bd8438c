"""The starter policy: its own tests, its purity, and the shipped bundle's freshness."""

from __future__ import annotations

import asyncio
import importlib.util
import io
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from sidecar.policy import (
    STARTER_BUNDLE,
    STARTER_ENTRYPOINT,
    STARTER_SOURCE,
    WasmEngine,
    find_opa,
    interpret,
    open_bundle,
)

REGO = Path(__file__).parents[2] / "rego"


def load_build_script() -> Any:
    spec = importlib.util.spec_from_file_location("starter_build", REGO / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BUILD = load_build_script()


def members(packed: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        return {member.name: BUILD._content(archive, member) for member in archive}


def test_rego_tests_pass_and_cover(opa: str) -> None:
    subprocess.run([opa, "test", "."], cwd=REGO, check=True, timeout=120)
    run = subprocess.run([opa, "test", "--coverage", "."], cwd=REGO, check=True, timeout=120, capture_output=True)
    assert json.loads(run.stdout)["coverage"] >= 98


def test_rego_is_strict_and_formatted(opa: str) -> None:
    subprocess.run([opa, "check", "--strict", "."], cwd=REGO, check=True, timeout=120)
    assert subprocess.check_output([opa, "fmt", "--list", "."], cwd=REGO, timeout=120) == b""


def check_purity(opa: str, place: Path, where: Path) -> int:
    capabilities = json.loads(subprocess.check_output([opa, "capabilities", "--current"], timeout=60))
    capabilities["builtins"] = [b for b in capabilities["builtins"] if not b.get("nondeterministic")]
    allowed = place / "pure.json"
    allowed.write_text(json.dumps(capabilities))
    command = [opa, "check", "--strict", "--capabilities", str(allowed), "."]
    return subprocess.run(command, cwd=where, check=False, timeout=120, capture_output=True).returncode


def test_rego_is_pure(opa: str, tmp_path: Path) -> None:
    assert check_purity(opa, tmp_path, REGO) == 0
    impure = tmp_path / "impure"
    impure.mkdir()
    (impure / "p.rego").write_text("package p\n\nnow := time.now_ns()\n")
    assert check_purity(opa, tmp_path, impure) != 0


def test_shipped_bundle_was_built_from_these_sources() -> None:
    shipped = STARTER_BUNDLE.read_bytes()
    assert open_bundle(shipped).revision == BUILD.revision(), "run: python rego/build.py"
    assert json.loads(members(shipped)["data.json"]) == json.loads((REGO / "data.json").read_text())
    assert STARTER_SOURCE.read_bytes() == BUILD.packed_sources(), "run: python rego/build.py"


def test_shipped_bundle_is_what_opa_builds(opa: str) -> None:
    shipped = members(STARTER_BUNDLE.read_bytes())
    built_with = json.loads(shipped[".manifest"])["metadata"]["opa"]
    if find_opa(opa).version != built_with:
        pytest.skip(f"the shipped bundle was built with OPA {built_with}, this is {find_opa(opa).version}")
    built = BUILD.build(opa)
    assert built == BUILD.build(opa)
    assert members(built) == shipped, "run: python rego/build.py"


def test_demo_agents_get_each_effect(request_document: dict[str, Any]) -> None:
    asked = {
        "ALLOW": {},
        "REQUIRE_APPROVAL": {"arguments": {"amount": 1200, "currency": "EUR"}},
        "DENY": {"agent": {"id": "stranger"}},
    }

    async def run() -> dict[str, str]:
        engine = WasmEngine(STARTER_BUNDLE.read_bytes(), STARTER_ENTRYPOINT, workers=1)
        try:
            await engine.ready()
            answers = {name: await engine.evaluate(request_document | change, 30) for name, change in asked.items()}
        finally:
            await engine.close()
        return {name: interpret(answer.result).effect for name, answer in answers.items()}

    assert asyncio.run(run()) == {name: name for name in asked}
