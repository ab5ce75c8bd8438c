"""The engine that decided, once more: as it was recorded, by the very bytes of the bundle that the ledger archived.

Nothing is built anew. A bundle that could reach for the network, the clock or chance is not run, whatever its entry
says of it: the Wasm engine supplies no such built-in, and for OPA the bundle is looked through first.
"""

from __future__ import annotations

import asyncio
import contextlib
import tarfile
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from sidecar.errors import PolicyLoadError

from .bundle import pack
from .capabilities import pure_capabilities
from .engine import Engine
from .findings import Refused
from .gate_input import check_fits, of_bundle
from .opa_bounded import Bounds
from .opa_program import OpaProgram
from .opa_steps import POLICY, OpaSteps
from .tree import TreeLimits
from .trial import opa_on_trial, wasm_on_trial


@contextlib.asynccontextmanager
async def archived_wasm(packed: bytes, entrypoint: str) -> AsyncIterator[Engine]:
    """Raises `PolicyLoadError`, also for a built-in that is not pure."""
    async with wasm_on_trial(packed, entrypoint) as engine:
        yield engine


@contextlib.asynccontextmanager
async def archived_opa(
    program: OpaProgram, packed: bytes, entrypoint: str, bounds: Bounds | None = None
) -> AsyncIterator[Engine]:
    """Raises `PolicyLoadError`, also for a built-in that is not pure."""
    bounds = bounds or Bounds()
    impure = await asyncio.to_thread(impure_builtins, program, packed, bounds)
    if impure:
        raise PolicyLoadError(f"the policy uses {', '.join(impure)}, whose result is no function of the input")
    async with contextlib.AsyncExitStack() as stack:
        try:
            engine = await stack.enter_async_context(opa_on_trial(program, packed, entrypoint, bounds))
        except (ValueError, TypeError, AttributeError, tarfile.TarError):  # of a manifest that is not one
            raise PolicyLoadError("the archived policy's manifest cannot be read") from None
        yield engine


def impure_builtins(program: OpaProgram, packed: bytes, bounds: Bounds) -> list[str]:
    """The built-ins of a bundle whose result is no function of the input. Raises `PolicyLoadError`."""
    try:
        files = of_bundle(packed, TreeLimits()).readable
        check_fits(files)
        with tempfile.TemporaryDirectory(prefix="sidecar-replay-") as scratch:
            place = Path(scratch)
            (place / POLICY).mkdir()
            impure = pure_capabilities(program, (), place, bounds).impure
            return sorted(OpaSteps(program, place, bounds).used_builtins(pack(files)) & impure)
    except Refused as error:
        raise PolicyLoadError(f"the archived policy cannot be used: {error}") from None
