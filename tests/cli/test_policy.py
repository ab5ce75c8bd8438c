"""`sidecar policy check` and `test` as a policy repository's CI runs them."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from sidecar.policy import find_opa
from tests.needs import needs_program
from tests.program import sidecar

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def opa() -> str:
    """PATH with the OPA that the tests found."""
    program = needs_program("opa")
    return os.pathsep.join([str(Path(program).parent), os.environ.get("PATH", os.defpath)])


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A copy of the starter policy."""
    return Path(shutil.copytree(REPOSITORY / "rego", tmp_path / "policies"))


def test_the_starter_policy_passes(opa: str) -> None:
    done = sidecar("policy", "check", REPOSITORY / "rego", "--engine", "wasm", "--min-coverage", "95", PATH=opa)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line.split("  ")[0] for line in lines[:-1]] == [
        f"✓ {name}" for name in ("files", "check", "tests", "build", "wasm", "entry point", "expectations")
    ]
    assert lines[-1] == "passed"
    assert done.stderr == ""
    page = (REPOSITORY / "docs" / "POLICIES.md").read_text().partition("$ sidecar policy check rego\n")[2]
    assert told(page.partition("```")[0]) == told(done.stdout)


def told(output: str) -> list[tuple[str, str]]:
    """What each step says, but for times, and for what OPA's version has a part in."""
    steps = re.findall(r"^✓ (.+?)  +[0-9.]+ s  (.+)$", output, re.MULTILINE)
    return [each for each in steps if each[0] not in ("build", "wasm")]


def test_a_refusal_has_file_and_line_and_exit_1(opa: str, place: Path) -> None:
    (place / "extra.rego").write_text("package extra\n\nx := nobody(1)\n\ny := time.now_ns()\n")
    done = sidecar("policy", "check", place, PATH=opa)
    assert done.returncode == 1
    assert f"    {place}/extra.rego:3: " in done.stdout and f"    {place}/extra.rego:5: " in done.stdout
    assert "✗ check" in done.stdout and "– tests" in done.stdout
    assert done.stdout.splitlines()[-1] == "refused"


def test_json_says_the_same(opa: str, place: Path) -> None:
    (place / "decision_test.rego").write_text("package agents_test\n\ntest_no if false\n")
    done = sidecar("policy", "check", place, "--json", PATH=opa)
    report = json.loads(done.stdout)
    assert (done.returncode, report["passed"], report["pure"], report["engine"]) == (1, False, True, "opa")
    tests = next(step for step in report["steps"] if step["name"] == "tests")
    assert tests["outcome"] == "failed"
    assert tests["findings"] == [{"file": "decision_test.rego", "line": 3, "message": "agents_test.test_no failed"}]
    assert re.fullmatch("[0-9a-f]{64}", report["bundles"]["opa"])
    assert report["opa_version"] == find_opa(shutil.which("opa", path=opa) or "").version


def test_coverage_and_leave_are_the_callers_to_give(opa: str, place: Path) -> None:
    (place / "extra.rego").write_text("package extra\n\nx if time.now_ns() > 0\n")
    low = sidecar("policy", "check", place, "--allow-builtin", "time.now_ns", "--min-coverage", "100", PATH=opa)
    assert low.returncode == 1 and f"{place}/extra.rego:3: " in low.stdout
    passed = sidecar("policy", "check", place, "--allow-builtin", "time.now_ns", PATH=opa)
    assert passed.returncode == 0, passed.stdout
    assert passed.stdout.splitlines()[-1].startswith("passed, but its decisions cannot be re-run exactly")


def test_the_quick_command(opa: str, place: Path) -> None:
    done = sidecar("policy", "test", place, PATH=opa)
    assert done.returncode == 0 and "decisions as expected" in done.stdout, done.stdout
    text = (place / "expectations.yaml").read_text()
    (place / "expectations.yaml").write_text(text.replace("effect: ALLOW", "effect: DENY", 1))
    done = sidecar("policy", "test", place, PATH=opa)
    assert done.returncode == 1
    assert f"{place}/expectations.yaml:3: " in done.stdout and "expected DENY" in done.stdout


def test_mistakes_of_usage(opa: str, tmp_path: Path, place: Path) -> None:
    for arguments, named in (
        (["check", tmp_path / "absent"], "does not exist"),
        (["check", place, "--entrypoint", "a b"], "entry point"),
        (["check", place, "--allow-builtin", "count"], "count"),
        (["check", place, "--min-coverage", "101"], "101"),
    ):
        done = sidecar("policy", *arguments, PATH=opa)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert named in done.stderr


def test_without_opa(tmp_path: Path, place: Path) -> None:
    done = sidecar("policy", "check", place, PATH=str(tmp_path))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "the program opa, which is not on PATH" in done.stderr


def test_the_policy_in_the_readme_passes(opa: str, tmp_path: Path) -> None:
    """The repository that README shows, file by file."""
    text = (REPOSITORY / "rego" / "README.md").read_text()
    files = re.findall(r"^`([\w./]+)`:\n\n```\w+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert {name for name, _ in files} >= {"decision.rego", "decision_test.rego", "expectations.yaml"}
    for name, content in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    for engine in ("opa", "wasm"):
        done = sidecar("policy", "check", tmp_path, "--engine", engine, "--min-coverage", "100", PATH=opa)
        assert done.returncode == 0, done.stdout + done.stderr
    workflow = dict(files)[".github/workflows/policy.yml"]
    assert "sidecar policy check ." in workflow
