"""The gate: what a policy directory must pass before it may decide anything.

    files ─► check ─► tests
                 └──► build ─► wasm ─► entry point
                                  └──► expectations

A step runs when those it needs have passed, so that one run tells all that is wrong. Everything after `files` works
on a copy of what that step read. The policy's author is not trusted: `opa` runs bounded, and so does every evaluation.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Final

from sidecar.errors import PolicyLoadError

from .capabilities import Capabilities, pure_capabilities
from .engine import READY_PROBE, Engine
from .expectations import parse_expectations
from .findings import Finding, Refused, bounded, refused
from .gate_result import GateResult, GateSettings, Outcome, Step
from .opa_program import BuiltPolicy, OpaProgram
from .opa_steps import CAPABILITIES, POLICY, Coverage, OpaSteps
from .places import place_of, too_little, uncovered, unloadable
from .rerun import Rerun, rerun
from .tree import EXPECTATIONS, read_tree
from .trial import opa_on_trial, wasm_on_trial

# What the sidecar may send on its worst day: nobody's agent, nothing said, values of unexpected types.
_PROBES: Final[dict[str, dict[str, Any]]] = {
    "an unknown agent": READY_PROBE,
    "empty names": {**READY_PROBE, "action": "", "resource": {"type": "", "id": ""}, "purpose": ""},
    "odd arguments": {
        **READY_PROBE,
        "arguments": {"amount": "much", "to": {"x": [None, True, 1.5]}, "": "", "columns": 7},
        "context": {"trace": [[[]]], "\u00e9\U0001f600": "\u202e"},
    },
}


Told = Callable[[Step], object]


async def check_policy(
    program: OpaProgram, directory: Path, settings: GateSettings | None = None, told: Told | None = None
) -> GateResult:
    """Take the policy in ``directory`` through the whole gate; ``told`` hears of each step as it ends.

    A policy at fault fails its step and raises nothing. Raises `UsageError` for a directory that is none and for
    settings that do not fit this OPA.
    """
    return await _gate(program, directory, settings, told, thorough=True)


async def try_policy(
    program: OpaProgram, directory: Path, settings: GateSettings | None = None, told: Told | None = None
) -> GateResult:
    """The quick part, for whoever writes a policy: its tests, without coverage, and its expectations."""
    return await _gate(program, directory, settings, told, thorough=False)


async def _gate(
    program: OpaProgram, directory: Path, settings: GateSettings | None, told: Told | None, *, thorough: bool
) -> GateResult:
    with tempfile.TemporaryDirectory(prefix="sidecar-gate-") as scratch:
        async with contextlib.AsyncExitStack() as stack:
            return await _Gate(program, directory, settings or GateSettings(), Path(scratch), stack).run(thorough, told)


class _Gate:
    """One passage: what its steps have found out so far."""

    def __init__(
        self,
        program: OpaProgram,
        directory: Path,
        settings: GateSettings,
        place: Path,
        stack: contextlib.AsyncExitStack,
    ) -> None:
        self._program, self._directory, self._settings, self._place = program, directory, settings, place
        self._stack = stack
        self._opa = OpaSteps(program, place, settings.bounds)
        self._files: dict[str, bytes] = {}
        self._capabilities: Capabilities | None = None
        self._coverage: Coverage | None = None
        self._built: BuiltPolicy | None = None
        self._wasm: BuiltPolicy | None = None
        self._impure: tuple[str, ...] = ()
        self._engine: Engine | None = None

    async def run(self, thorough: bool, told: Told | None) -> GateResult:
        steps: dict[str, Step] = {}
        for name, needs, work in self._plan(thorough):
            ready = all(steps[need].passed for need in needs)
            steps[name] = await _timed(name, work) if ready else Step(name, "not run", (), 0.0, "")
            if told:
                told(steps[name])
        return GateResult(
            settings=self._settings,
            opa_version=self._program.version,
            steps=tuple(steps.values()),
            impure_builtins=self._impure,
            coverage=self._coverage,
            opa_bundle=self._built,
            wasm_bundle=self._wasm,
        )

    def _plan(self, thorough: bool) -> list[tuple[str, tuple[str, ...], Callable[[], Awaitable[str]]]]:
        wasm = self._settings.engine == "wasm"
        built = ("wasm",) if wasm else ("build",)
        compiled = [("wasm", ("build",), self._compile)] if wasm else []
        if not thorough:
            return [
                ("files", (), self._read),
                ("tests", ("files",), self._test),
                ("build", ("files",), self._build),
                *compiled,
                ("expectations", built, self._expect),
            ]
        return [
            ("files", (), self._read),
            ("check", ("files",), self._check),
            ("tests", ("check",), self._cover),
            ("build", ("check",), self._build),
            *compiled,
            ("entry point", built, self._probe),
            ("expectations", built, self._expect),
        ]

    async def _read(self) -> str:
        self._files = await asyncio.to_thread(read_tree, self._directory, self._settings.tree)
        await asyncio.to_thread(self._write_out)
        return f"{len(self._files)} files, {sum(map(len, self._files.values())):,} bytes"

    def _write_out(self) -> None:
        """The copy that `opa` sees, and the capabilities beside it."""
        for path, content in self._files.items():
            to = self._place / POLICY / path
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(content)
        settings = self._settings
        self._capabilities = pure_capabilities(self._program, settings.allow_builtins, self._place, settings.bounds)
        (self._place / CAPABILITIES).write_text(self._capabilities.text)

    async def _check(self) -> str:
        await asyncio.to_thread(self._opa.check)
        return "strict, without built-ins that are not pure" if not self._settings.allow_builtins else "strict"

    async def _test(self) -> str:
        return await asyncio.to_thread(self._opa.test)

    async def _cover(self) -> str:
        """One run where all is well; who failed is asked in a second one."""
        self._coverage = coverage = await asyncio.to_thread(self._opa.cover)
        if coverage is None:
            await self._test()
            raise refused("opa test failed once and passed when run again; a test must not depend on time or load")
        least = self._settings.min_coverage
        if coverage.percent < least:
            raise Refused(Finding("", 0, too_little(coverage, least)), *uncovered(coverage))
        return f"pass, {coverage.percent:.1f} % of lines covered"

    async def _build(self) -> str:
        built = await asyncio.to_thread(self._opa.build, self._settings.revision)
        used = await asyncio.to_thread(self._opa.used_builtins, built.packed)
        assert self._capabilities is not None
        self._built, self._impure = built, tuple(sorted(used & self._capabilities.impure))
        note = f"bundle {built.digest[:16]}…, {len(built.packed):,} bytes"
        return note + (f"; NOT exactly re-runnable: uses {', '.join(self._impure)}" if self._impure else "")

    async def _compile(self) -> str:
        """Compile to Wasm, and load it as the engine would."""
        built = await asyncio.to_thread(self._opa.build, self._settings.revision, wasm=self._settings.entrypoint)
        try:
            self._engine = await self._stack.enter_async_context(wasm_on_trial(built.packed, self._settings.entrypoint))
        except PolicyLoadError as error:
            raise Refused(*unloadable(str(error), self._files)) from None
        self._wasm = built
        return f"bundle {built.digest[:16]}…, {len(built.packed):,} bytes"

    async def _on_trial(self) -> Engine:
        if self._engine is None:
            assert self._built is not None
            settings = self._settings
            trial = opa_on_trial(self._program, self._built.packed, settings.entrypoint, settings.bounds)
            self._engine = await self._stack.enter_async_context(trial)
        return self._engine

    async def _probe(self) -> str:
        entrypoint = self._settings.entrypoint
        answers = await self._answers(_PROBES.values(), at_once=1)
        place = place_of(entrypoint, self._files)
        found = [
            Finding(*place, f"{entrypoint} gives no decision for {name}: {got.verdict.reasons[0].message}")
            for name, got in zip(_PROBES, answers, strict=True)
            if not got.decided
        ]
        if found:
            raise Refused(*found)
        return f"{answers[0].effect} for an unknown agent"

    async def _expect(self) -> str:
        raw = self._files.get(EXPECTATIONS)
        if raw is None:
            raise refused("is missing; write down a few decisions that must come out as they do now", EXPECTATIONS)
        expected, found = parse_expectations(raw)
        answers = await self._answers(one.document for one in expected)
        found += [m for one, got in zip(expected, answers, strict=True) if (m := one.mismatch(got))]
        if found:
            raise Refused(*sorted(found, key=lambda finding: finding.line))
        return f"{len(expected)} decisions as expected"

    async def _answers(self, documents: Iterable[dict[str, Any]], at_once: int = 8) -> list[Rerun]:
        engine = await self._on_trial()
        limit = self._settings.evaluation_seconds
        return [got async for got in rerun(engine, documents, timeout=limit, at_once=at_once)]


async def _timed(name: str, work: Callable[[], Awaitable[str]]) -> Step:
    began = time.monotonic()
    note, findings = "", []
    try:
        note = await work()
    except Refused as error:
        findings = list(error.findings)
    except PolicyLoadError as error:
        findings = [Finding("", 0, str(error))]
    except OSError as error:
        findings = [Finding("", 0, f"the gate could not work here: {error.strerror or type(error).__name__}")]
    outcome: Outcome = "failed" if findings else "passed"
    return Step(name, outcome, bounded(findings), time.monotonic() - began, note)
