"""The gate for files in memory and for bundle files, with the real OPA: the same verdict as for a directory."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from sidecar.chain.strictjson import dumps
from sidecar.errors import PolicyLoadError
from sidecar.policy import (
    BuiltPolicy,
    BundleKey,
    Finding,
    GateResult,
    GateSettings,
    GateStep,
    OpaProgram,
    SupervisedOpa,
    TreeLimits,
    WasmEngine,
    build_files,
    check_bundle,
    check_files,
    check_policy,
)
from sidecar.policy.bundle import pack

from .conftest import Build
from .test_gate import EXPECTATIONS, POLICY, TESTS, found, outcomes, said

SETTINGS = GateSettings("p/decision", evaluation_seconds=20)
WASM = GateSettings("p/decision", "wasm", evaluation_seconds=20)
FILES = {"p.rego": POLICY.encode(), "p_test.rego": TESTS.encode(), "expectations.yaml": EXPECTATIONS.encode()}
AGENT = {"agent": {"id": "a"}}


def of_files(program: OpaProgram, files: dict[str, bytes], settings: GateSettings = SETTINGS) -> GateResult:
    return asyncio.run(check_files(program, files, settings))


def of_bundle(program: OpaProgram, packed: bytes, settings: GateSettings = SETTINGS) -> GateResult:
    return asyncio.run(check_bundle(program, packed, settings))


def note(result: GateResult, name: str) -> str:
    return next(step.note for step in result.steps if step.name == name)


@pytest.mark.parametrize("settings", [SETTINGS, WASM])
def test_files_pass_as_their_directory_does(program: OpaProgram, tmp_path: Path, settings: GateSettings) -> None:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "README.md").write_text("not of the policy\n")
    told: list[GateStep] = []
    memory = asyncio.run(check_files(program, {**FILES, "README.md": b"", ".git/x.rego": b"("}, settings, told.append))
    directory = asyncio.run(check_policy(program, tmp_path, settings))
    assert memory.passed and tuple(told) == memory.steps
    assert (memory.opa_bundle, memory.wasm_bundle) == (directory.opa_bundle, directory.wasm_bundle)
    assert [(s.name, s.outcome, s.note) for s in memory.steps] == [(s.name, s.outcome, s.note) for s in directory.steps]
    assert memory.bundle == (memory.wasm_bundle if settings.engine == "wasm" else memory.opa_bundle) is not None


def test_files_fail_with_their_line(program: OpaProgram) -> None:
    result = of_files(program, {**FILES, "sub/bad.rego": b"package q\n\nx := nobody\n"})
    assert found(result) == [("check", "sub/bad.rego", 3)] and result.bundle is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../x.rego", "not a path within"),
        ("/x.rego", "not a path within"),
        ("a//x.rego", "not a path within"),
        ("a/./x.rego", "not a path within"),
        ("P.rego", "in case only"),
        ("P.REGO/x.rego", "in case only"),
        ("p.rego/x.rego", "lies in p.rego, which is a file"),
        ("a\\x.rego", "backslash"),
        ("a\n.rego", "cannot be printed"),
        ("\udcff.rego", "cannot be printed"),
        ("d/" * 33 + "x.rego", "more than 32 deep"),
        ("x" * 101 + ".rego", "too long"),
    ],
)
def test_names_that_no_directory_could_have_given(program: OpaProgram, name: str, words: str) -> None:
    result = of_files(program, {**FILES, name: b"package x\n"})
    assert outcomes(result)["files"] == "failed" and words in said(result)


def test_limits_and_emptiness(program: OpaProgram) -> None:
    many = {f"x{number}.rego": b"" for number in range(9)}
    for files, limits, words in [
        (many, TreeLimits(files=8), "more than 8 files"),
        (many, TreeLimits(entries=8), "more than 8 "),
        (FILES, TreeLimits(bytes=300), "larger than the gate takes"),
        ({"README.md": b""}, TreeLimits(), "no .rego file"),
    ]:
        result = of_files(program, files, GateSettings("p/decision", tree=limits))
        assert outcomes(result)["files"] == "failed" and words in said(result)
        assert set(outcomes(result).values()) == {"failed", "not run"}


def test_expectations_need_not_be_there_where_settings_say_so(program: OpaProgram) -> None:
    files = {name: content for name, content in FILES.items() if name != "expectations.yaml"}
    assert found(of_files(program, files)) == [("expectations", "expectations.yaml", 0)]
    settings = GateSettings("p/decision", require_expectations=False, evaluation_seconds=20)
    result = of_files(program, files, settings)
    assert result.passed and note(result, "expectations") == "there is no expectations.yaml"
    odd = EXPECTATIONS.replace("[no]", "[other]").encode()
    assert not of_files(program, {**files, "expectations.yaml": odd}, settings).passed


def test_a_bundle_of_opa_build_is_used_as_given(program: OpaProgram, build: Build) -> None:
    packed = build(POLICY, "p/decision", target="rego", revision="r7")
    result = of_bundle(program, packed)
    assert result.passed and result.pure, result.findings
    assert result.bundle == result.opa_bundle == BuiltPolicy(packed, hashlib.sha256(packed).hexdigest())
    assert list(outcomes(result)) == ["files", "signature", "check", "build", "entry point", "expectations"]
    assert (note(result, "signature"), note(result, "expectations")) == ("not signed", "there is no expectations.yaml")


@pytest.mark.parametrize("settings", [SETTINGS, WASM])
def test_a_bundle_brings_its_tests_and_expectations(program: OpaProgram, settings: GateSettings) -> None:
    result = of_bundle(program, pack(FILES), settings)
    assert result.passed and result.coverage is not None and result.coverage.percent == 100
    assert note(result, "expectations") == "2 decisions as expected"
    assert result.bundle is not None and (result.bundle.packed == pack(FILES)) == (settings.engine == "opa")
    odd = EXPECTATIONS.replace("[no]", "[other]").encode()
    wrong = TESTS.encode() + b"\ntest_wrong if false\n"
    result = of_bundle(program, pack({**FILES, "expectations.yaml": odd, "p_test.rego": wrong}), settings)
    assert found(result) == [("tests", "p_test.rego", 9), ("expectations", "expectations.yaml", 5)]


def test_a_compiled_bundle_is_used_as_given(program: OpaProgram, build: Build) -> None:
    packed = build(POLICY, "p/decision", revision="r8")
    result = of_bundle(program, packed, WASM)
    assert result.passed and result.pure, result.findings
    assert result.bundle == result.wasm_bundle == BuiltPolicy(packed, hashlib.sha256(packed).hexdigest())
    assert result.opa_bundle is None and result.to_json()["bundles"] == {"wasm": result.bundle.digest}
    assert "compiled to Wasm, which opa does not serve" in said(of_bundle(program, packed))


def test_a_compiled_bundle_with_another_entry_point(program: OpaProgram, build: Build) -> None:
    result = of_bundle(program, build(POLICY + "\nother := 1\n", "p/other"), WASM)
    assert {step for step, _, _ in found(result)} == {"wasm"} and result.bundle is None
    assert "p/decision" in said(result)


@pytest.mark.parametrize(
    ("files", "step", "file", "words"),
    [
        ({**FILES, "p.rego": POLICY.encode() + b"\nx := nobody\n"}, "check", "p.rego", "nobody"),
        ({**FILES, "p.rego": POLICY.encode() + b"\nx := time.now_ns()\n"}, "check", "p.rego", "time.now_ns"),
        ({**FILES, ".manifest": b"[]"}, "check", "", "manifest"),
        ({**FILES, "patch.json": b'{"data": []}'}, "files", "patch.json", "a delta"),
        ({**FILES, "a/patch.json": b'{"data": []}'}, "files", "a/patch.json", "a delta"),
        ({**FILES, ".manifest.pb": b""}, "files", ".manifest.pb", "not JSON"),
        ({"data.json": b"{}"}, "files", "", "no .rego file and no policy.wasm"),
        ({**FILES, "P.rego": b"package x\n"}, "files", "p.rego", "in case only"),
    ],
)
def test_bundles_that_do_not_pass(
    program: OpaProgram, files: dict[str, bytes], step: str, file: str, words: str
) -> None:
    result = of_bundle(program, pack(files))
    assert (step, file) in [(step, file) for step, file, _ in found(result)], result.findings
    assert words in said(result) and not result.passed


def test_what_is_no_bundle(program: OpaProgram) -> None:
    result = of_bundle(program, b"not a bundle")
    assert found(result) == [("files", "", 0)] and ".tar.gz" in said(result)
    assert outcomes(result)["entry point"] == "not run"


def test_a_module_that_is_none(program: OpaProgram) -> None:
    result = of_bundle(program, pack({"policy.wasm": b"\0asm nonsense"}), WASM)
    assert {step for step, _, _ in found(result)} == {"wasm"}
    assert note(result, "check") == "holds no Rego"


def sign(opa: str, tmp_path: Path, files: dict[str, bytes]) -> tuple[bytes, BundleKey]:
    """The bundle as tar packs a directory, names with ``./`` before them, and what it is signed with."""
    place, secret = tmp_path / "bundle", tmp_path / "secret"
    place.mkdir()
    secret.write_bytes(b"s" * 32)
    for name, content in files.items():
        (place / name).write_bytes(content)
    command = [opa, "sign", "--signing-alg", "HS256", "--signing-key", str(secret), "--bundle", "."]
    subprocess.run(command, cwd=place, check=True, timeout=60)
    with tarfile.open(tmp_path / "bundle.tar.gz", "w:gz") as archive:
        archive.add(place, ".")
    return (tmp_path / "bundle.tar.gz").read_bytes(), BundleKey("ours", "HS256", secret)


def test_a_signed_bundle_passes_and_serves_as_given(program: OpaProgram, opa: str, tmp_path: Path) -> None:
    packed, key = sign(opa, tmp_path, {**FILES, ".manifest": b'{"revision": "r9", "roots": ["p", "p_test"]}'})
    settings = GateSettings("p/decision", bundle_key=key, evaluation_seconds=20)
    result = of_bundle(program, packed, settings)
    assert result.passed and result.bundle == BuiltPolicy.of(packed), result.findings
    assert note(result, "signature") == "signed with the key 'ours' (HS256)"
    assert note(of_bundle(program, packed), "signature") == "not checked: no key was given"
    unsigned = of_bundle(program, pack(FILES), settings)
    assert found(unsigned) == [("signature", "", 0)] and "not signed" in said(unsigned)
    assert outcomes(unsigned)["check"] == "not run"

    async def serve() -> Any:
        engine = SupervisedOpa(program, BuiltPolicy.of(packed), "p/decision")
        try:
            await engine.ready()
            return await engine.evaluate(AGENT, 20), engine.version
        finally:
            await engine.close()

    evaluation, version = asyncio.run(serve())
    assert evaluation.result["effect"] == "ALLOW"
    assert (version.revision, version.bundle_digest) == ("r9", hashlib.sha256(packed).hexdigest())


def test_a_signed_compiled_bundle(program: OpaProgram, opa: str, tmp_path: Path) -> None:
    (tmp_path / "p.rego").write_text(POLICY)
    (tmp_path / "secret").write_bytes(b"s" * 32)
    command = [opa, "build", "--bundle", "-t", "wasm", "-e", "p/decision", "--signing-alg", "HS256"]
    command += ["--signing-key", "secret", "--verification-key-id", "ours", "."]
    (tmp_path / "source").mkdir()
    (tmp_path / "p.rego").rename(tmp_path / "source" / "p.rego")
    subprocess.run([*command[:-1], "source"], cwd=tmp_path, check=True, timeout=60)
    packed = (tmp_path / "bundle.tar.gz").read_bytes()
    key = BundleKey("ours", "HS256", tmp_path / "secret")
    result = of_bundle(program, packed, GateSettings("p/decision", "wasm", bundle_key=key, evaluation_seconds=20))
    assert result.passed and result.bundle == BuiltPolicy.of(packed), result.findings
    engine = WasmEngine(packed, "p/decision", workers=1)
    asyncio.run(engine.close())
    other = BundleKey("theirs", "HS256", tmp_path / "secret")
    result = of_bundle(program, packed, GateSettings("p/decision", "wasm", bundle_key=other))
    assert found(result) == [("signature", ".signatures.json", 0)] and "'theirs'" in said(result)


def test_building_alone(program: OpaProgram) -> None:
    untested = {"p.rego": FILES["p.rego"]}
    for settings in (SETTINGS, WASM):
        assert asyncio.run(build_files(program, untested, settings)) == of_files(program, FILES, settings).bundle
    with pytest.raises(PolicyLoadError, match=r"x\.rego:3: .*nobody"):
        asyncio.run(build_files(program, {**FILES, "x.rego": b"package x\n\nx := nobody(1)\n"}, SETTINGS))


def test_the_summary_of_a_good_policy(program: OpaProgram) -> None:
    summary = of_files(program, FILES).summary()
    assert [step["step"] for step in summary] == ["files", "check", "tests", "build", "entry point", "expectations"]
    assert all(set(step) == {"step", "outcome", "note", "findings"} for step in summary)
    assert {step["outcome"] for step in summary} == {"passed"}


@pytest.mark.parametrize("letter", ["x", "é", "\U0001f600", '"'])
@pytest.mark.parametrize("count", [1, 20, 21, 100])
def test_the_summary_is_bounded(letter: str, count: int) -> None:
    findings = tuple(Finding(letter * 1000, line, letter * 1000) for line in range(count))
    steps = tuple(GateStep(f"step {n}", "failed", findings, 0.1, letter * 1000) for n in range(9))
    result = GateResult(SETTINGS, "1.22.2", steps, (), None, None, None)
    summary = result.summary()
    assert len(dumps(summary)) <= 32 << 10 and json.loads(dumps(summary)) == summary
    for step in summary:
        assert len(step["note"]) <= 300 and 1 <= len(step["findings"]) <= 20
        assert all(len(finding["message"]) <= 500 for finding in step["findings"])
        if len(step["findings"]) < count:
            assert step["findings"][-1]["message"] == f"and {count - len(step['findings']) + 1} more"
