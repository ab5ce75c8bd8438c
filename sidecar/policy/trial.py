"""An engine for a policy on trial: the real one, on what was just built, under limits, and gone afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator
from typing import Final

from sidecar.errors import EngineError, PolicyLoadError

from .engine import Engine
from .opa import OpaEngine
from .opa_bounded import Bounds
from .opa_guard import Guarded, guard_bundle
from .opa_process import OpaProcess, opa_process
from .opa_program import OpaProgram
from .supervised import Probe
from .wasm import WasmEngine

_LOOK_EVERY: Final = 0.02  # seconds, while OPA starts


@contextlib.asynccontextmanager
async def wasm_on_trial(bundle: bytes, entrypoint: str) -> AsyncIterator[Engine]:
    """Raises `PolicyLoadError` when the bundle cannot be used, naming built-ins that the engine lacks."""
    engine = await asyncio.to_thread(WasmEngine, bundle, entrypoint)
    try:
        yield engine
    finally:
        await engine.close()


@contextlib.asynccontextmanager
async def opa_on_trial(program: OpaProgram, bundle: bytes, entrypoint: str, bounds: Bounds) -> AsyncIterator[Engine]:
    """An OPA that serves ``bundle``. Raises `PolicyLoadError` when it does not come up with it."""
    guarded = guard_bundle(bundle, entrypoint)
    async with opa_process(program, guarded) as process:
        with contextlib.suppress(ProcessLookupError):  # it has ended already, which the next step says
            most = bounds.memory_bytes
            resource.prlimit(process.pid, resource.RLIMIT_AS, (most, most))
        await _up(process, guarded, entrypoint, bounds.seconds)
        engine = OpaEngine(process.address, entrypoint, token=guarded.token)
        try:
            yield engine
        finally:
            await engine.close()


async def _up(process: OpaProcess, guarded: Guarded, entrypoint: str, seconds: float) -> None:
    probe = Probe(process.address, entrypoint, token=guarded.token)
    try:
        async with asyncio.timeout(seconds):
            while not await _healthy(probe, seconds):
                if process.ended.done():
                    raise PolicyLoadError(f"OPA ended with status {process.ended.result()} while loading the policy")
                await asyncio.sleep(_LOOK_EVERY)
    except TimeoutError:
        raise PolicyLoadError(f"OPA did not load the policy in {seconds:g} s") from None
    finally:
        await probe.close()
    process.loaded = True


async def _healthy(probe: Probe, seconds: float) -> bool:
    try:
        return await probe.healthy(seconds)
    except EngineError:
        return False
