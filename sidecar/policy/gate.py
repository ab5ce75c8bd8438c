"""The gate: what a policy must pass before it may decide anything, whether it is a directory, files or a bundle.

    files ─► check ─► tests
                 └──► build ─► wasm ─► entry point
                                  └──► expectations

A step runs when those it needs have passed, so that one run tells all that is wrong. Everything after `files` works
on a copy of what that step read. The policy's author is not trusted: `opa` runs bounded, and so does every evaluation.

Of a bundle file the signature is judged after `files`. It is used as it was given, byte for byte, unless the engine is
Wasm and the bundle holds Rego only: then it is compiled. In a compiled bundle the Rego is what the compiler left over,
so that nothing but its built-ins is checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from sidecar.chain.printable import number_of
from sidecar.chain.registry import Registry
from sidecar.chain.registry import parse as parse_registry
from sidecar.errors import Malformed, PolicyLoadError

from .bundle import pack
from .bundle_signature import BundleKey, verify_bundle
from .capabilities import Capabilities, pure_capabilities
from .engine import READY_PROBE, Engine
from .expectations import parse_expectations
from .findings import Finding, Refused, bounded, refused
from .gate_input import Input, check_fits, of_bundle, of_files
from .gate_result import GateResult, GateSettings, Outcome, Step
from .opa_program import _COMPILED, BuiltPolicy, OpaProgram
from .opa_steps import CAPABILITIES, POLICY, Coverage, OpaSteps
from .places import place_of, too_little, uncovered, unloadable
from .rerun import Rerun, rerun
from .tree import EXPECTATIONS, REGISTRY, read_tree
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
_T = TypeVar("_T")


async def check_policy(
    program: OpaProgram, directory: Path, settings: GateSettings | None = None, told: Told | None = None
) -> GateResult:
    """Take the policy in ``directory`` through the whole gate; ``told`` hears of each step as it ends.

    A policy at fault fails its step and raises nothing. Raises `UsageError` for a directory that is none and for
    settings that do not fit this OPA.
    """
    settings = settings or GateSettings()
    return await _gate(program, _Given(lambda: Input(read_tree(directory, settings.tree))), settings, told)


async def check_files(
    program: OpaProgram, files: Mapping[str, bytes], settings: GateSettings | None = None, told: Told | None = None
) -> GateResult:
    """`check_policy` for files that were read already, by path with "/" between its parts."""
    settings = settings or GateSettings()
    return await _gate(program, _Given(lambda: of_files(files, settings.tree)), settings, told)


async def check_bundle(
    program: OpaProgram, packed: bytes, settings: GateSettings | None = None, told: Told | None = None
) -> GateResult:
    """`check_policy` for a bundle file (.tar.gz), which may be signed, and may bring tests and expectations.

    Raises `UsageError` also for a key in ``settings`` that cannot be read or used.
    """
    settings = settings or GateSettings()
    return await _gate(program, _Given(lambda: of_bundle(packed, settings.tree), packed), settings, told)


async def try_policy(
    program: OpaProgram, directory: Path, settings: GateSettings | None = None, told: Told | None = None
) -> GateResult:
    """The quick part, for whoever writes a policy: its tests, without coverage, and its expectations."""
    settings = settings or GateSettings()
    given = _Given(lambda: Input(read_tree(directory, settings.tree)), part="quick")
    return await _gate(program, given, settings, told)


async def build_files(
    program: OpaProgram, files: Mapping[str, bytes], settings: GateSettings | None = None
) -> BuiltPolicy:
    """The bundle of ``files`` for the engine in ``settings``, as `check_files` builds it, without the rest of the gate.

    Raises `PolicyLoadError` when it does not build, `UsageError` for settings that do not fit this OPA.
    """
    settings = settings or GateSettings()
    result = await _gate(program, _Given(lambda: of_files(files, settings.tree), part="build"), settings, None)
    if result.bundle is None or not result.passed:
        first = result.findings[0]
        raise PolicyLoadError(f"the policy does not build: {first.file}:{first.line}: {first.message}")
    return result.bundle


@dataclass(frozen=True, slots=True)
class _Given:
    """How to read the policy; the bytes of a bundle file; how much of the gate is asked for."""

    read: Callable[[], Input]
    bundle: bytes | None = None
    part: Literal["all", "quick", "build"] = "all"


async def _gate(program: OpaProgram, given: _Given, settings: GateSettings, told: Told | None) -> GateResult:
    with tempfile.TemporaryDirectory(prefix="sidecar-gate-") as scratch:
        async with contextlib.AsyncExitStack() as stack:
            return await _Gate(program, given, settings, Path(scratch), stack).run(told)


_Plan = list[tuple[str, tuple[str, ...], Callable[[], Awaitable[str]]]]


class _Gate:
    """One passage: what its steps have found out so far."""

    def __init__(
        self,
        program: OpaProgram,
        given: _Given,
        settings: GateSettings,
        place: Path,
        stack: contextlib.AsyncExitStack,
    ) -> None:
        self._program, self._given, self._settings, self._place = program, given, settings, place
        self._stack = stack
        self._broken_off = threading.Event()
        self._opa = OpaSteps(program, place, settings.bounds, self._broken_off)
        self._input = Input({})
        self._capabilities: Capabilities | None = None
        self._coverage: Coverage | None = None
        self._built: BuiltPolicy | None = None
        self._wasm: BuiltPolicy | None = None
        self._impure: tuple[str, ...] = ()
        self._engine: Engine | None = None
        self._registry: Registry | None = None

    async def run(self, told: Told | None) -> GateResult:
        steps: dict[str, Step] = {}
        await self._take([("files", (), self._read)], steps, told)
        await self._take(self._plan(), steps, told)
        return GateResult(
            settings=self._settings,
            opa_version=self._program.version,
            steps=tuple(steps.values()),
            impure_builtins=self._impure,
            coverage=self._coverage,
            opa_bundle=self._built,
            wasm_bundle=self._wasm,
            registry=self._registry,
        )

    async def _take(self, plan: _Plan, steps: dict[str, Step], told: Told | None) -> None:
        for name, needs, work in plan:
            ready = all(steps[need].passed for need in needs)
            steps[name] = await _timed(name, work) if ready else Step(name, "not run", (), 0.0, "")
            if told:
                told(steps[name])

    def _plan(self) -> _Plan:
        """What is to be done once the files are read."""
        wasm = self._settings.engine == "wasm"
        built = ("wasm",) if wasm else ("build",)
        compiled: _Plan = [("wasm", ("build",), self._compile)] if wasm else []
        if self._given.part == "build":
            return [("build", ("files",), self._build), *compiled]
        if self._given.part == "quick":
            return [
                ("tests", ("files",), self._test),
                ("build", ("files",), self._build),
                *compiled,
                ("expectations", built, self._expect),
            ]
        bundle = self._given.bundle is not None
        registry: _Plan = [("registry", ("files",), self._read_registry)]
        signature: _Plan = [("signature", ("files",), self._check_signature)] if bundle else []
        tests: _Plan = [("tests", ("check",), self._cover)]
        return [
            *signature,
            *(registry if self._registered else []),
            ("check", ("signature",) if bundle else ("files",), self._check),
            *(tests if not bundle or (self._input.tested and not self._input.compiled) else []),
            ("build", ("check",), self._build),
            *compiled,
            ("entry point", built, self._probe),
            ("expectations", built, self._expect),
        ]

    @property
    def _files(self) -> dict[str, bytes]:
        return self._input.files

    async def _aside(self, work: Callable[..., _T], *arguments: Any, **named: Any) -> _T:
        """``work`` on another thread. Cancelled, it is broken off and has ended before anything else is done: the
        scratch directory is taken away next, and must not be written to while it is."""
        at_work = asyncio.ensure_future(asyncio.to_thread(work, *arguments, **named))
        try:
            return await asyncio.shield(at_work)
        except asyncio.CancelledError:
            self._broken_off.set()
            while not at_work.done():
                with contextlib.suppress(asyncio.CancelledError):  # a second time: it ends in a moment
                    await asyncio.wait({at_work})
            if not at_work.cancelled():
                at_work.exception()  # which nobody asks for any more
            raise

    async def _read(self) -> str:
        self._input = await self._aside(self._given.read)
        await self._aside(self._write_out)
        return f"{number_of(len(self._files), 'file')}, {sum(map(len, self._files.values())):,} bytes"

    def _write_out(self) -> None:
        """The copy that `opa` sees, and the capabilities beside it."""
        check_fits(self._files)
        place = self._place / POLICY
        place.mkdir()
        for path, content in self._input.readable.items():
            to = place / path
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(content)
        settings = self._settings
        self._capabilities = pure_capabilities(
            self._program, settings.allow_builtins, self._place, settings.bounds, self._broken_off
        )
        (self._place / CAPABILITIES).write_text(self._capabilities.text)

    @property
    def _registered(self) -> bool:
        return REGISTRY in self._files or self._settings.require_registry

    async def _read_registry(self) -> str:
        if REGISTRY not in self._files:
            raise refused("is missing; list who may ask in it, or set registry to a file elsewhere", REGISTRY)
        try:
            self._registry = await self._aside(parse_registry, self._files[REGISTRY])
        except Malformed as error:
            raise refused(str(error), REGISTRY) from None
        return f"{len(self._registry.principals)} principals"

    async def _check_signature(self) -> str:
        key, packed = self._settings.bundle_key, self._given.bundle
        assert packed is not None
        if key is None:
            return "not checked: no key was given" if self._input.signed else "not signed"
        await self._aside(verify_bundle, self._program, packed, key, self._settings.bounds, self._broken_off)
        return signed_with(key)

    async def _check(self) -> str:
        if not self._input.has_rego:
            return "holds no Rego"
        if self._input.compiled:
            await self._aside(self._opa.check, strict=False)
            return "only for built-ins: it is compiled"
        await self._aside(self._opa.check)
        return "strict, without built-ins that are not pure" if not self._settings.allow_builtins else "strict"

    async def _test(self) -> str:
        return await self._aside(self._opa.test)

    async def _cover(self) -> str:
        """One run where all is well; who failed is asked in a second one."""
        self._coverage = coverage = await self._aside(self._opa.cover)
        if coverage is None:
            await self._test()
            raise refused("opa test failed once and passed when run again; a test must not depend on time or load")
        least = self._settings.min_coverage
        if coverage.percent < least:
            raise Refused(Finding("", 0, too_little(coverage, least)), *uncovered(coverage))
        return f"pass, {coverage.percent:.1f} % of lines covered"

    async def _build(self) -> str:
        given, wasm = self._given.bundle, self._settings.engine == "wasm"
        if self._input.modules and not wasm:
            raise refused(f"the bundle {_COMPILED}")
        if given is not None and self._input.compiled:
            return "was compiled before; the wasm engine supplies no built-in that is not pure"
        if given is None or wasm:
            self._built = await self._aside(self._opa.build, self._settings.revision)
            return await self._purity(self._built, self._built.packed)
        self._built = BuiltPolicy.of(given)
        return "as given: " + await self._purity(self._built, pack(self._files))

    async def _purity(self, built: BuiltPolicy, readable: bytes) -> str:
        """Note which built-ins that are not pure are used; ``readable`` is the bundle as `opa inspect` may see it."""
        used = await self._aside(self._opa.used_builtins, readable)
        assert self._capabilities is not None
        self._impure = tuple(sorted(used & self._capabilities.impure))
        note = _described(built)
        return note + (f"; NOT exactly re-runnable: uses {', '.join(self._impure)}" if self._impure else "")

    async def _compile(self) -> str:
        """Compile to Wasm where that is not done yet, and load it as the engine would."""
        if self._given.bundle is not None and self._input.compiled:
            built = BuiltPolicy.of(self._given.bundle)
        else:
            built = await self._aside(self._opa.build, self._settings.revision, wasm=self._settings.entrypoint)
        try:
            self._engine = await self._stack.enter_async_context(wasm_on_trial(built.packed, self._settings.entrypoint))
        except PolicyLoadError as error:
            raise Refused(*unloadable(str(error), self._files)) from None
        self._wasm = built
        return ("as given: " if self._input.compiled else "") + _described(built)

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
            if self._given.bundle is not None or not self._settings.require_expectations:
                return f"there is no {EXPECTATIONS}"
            raise refused("is missing; write down a few decisions that must come out as they do now", EXPECTATIONS)
        expected, found = parse_expectations(raw)
        answers = await self._answers(one.document for one in expected)
        found += [m for one, got in zip(expected, answers, strict=True) if (m := one.mismatch(got))]
        if found:
            raise Refused(*sorted(found, key=lambda finding: finding.line))
        return f"{number_of(len(expected), 'decision')} as expected"

    async def _answers(self, documents: Iterable[dict[str, Any]], at_once: int = 8) -> list[Rerun]:
        engine = await self._on_trial()
        limit = self._settings.evaluation_seconds
        return [got async for got in rerun(engine, documents, timeout=limit, at_once=at_once)]


def signed_with(key: BundleKey) -> str:
    """What the step "signature" notes of a bundle that ``key`` verified."""
    return f"signed with the key {key.keyid!r} ({key.algorithm})"


def _described(built: BuiltPolicy) -> str:
    return f"bundle {built.digest[:16]}…, {len(built.packed):,} bytes"


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
