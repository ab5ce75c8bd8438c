"""Engines for policies that are compared or re-run: each from a directory, a bundle file, or a bundle as archived."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from sidecar.errors import PolicyLoadError, UsageError

from .bundle import pack, unpack
from .capabilities import pure_capabilities
from .engine import Engine
from .findings import Refused
from .opa_bounded import Bounds
from .opa_program import _COMPILED, BuiltPolicy, OpaProgram
from .opa_steps import CAPABILITIES, POLICY, OpaSteps
from .tree import TreeLimits, read_tree
from .trial import opa_on_trial, wasm_on_trial

Policy = Mapping[str, bytes]
"""The files of a directory or of a bundle, by path."""


def read_policy(place: Path) -> Policy:
    """The files of a directory of Rego or of a bundle file. Raises `UsageError` or `PolicyLoadError`."""
    try:
        return read_tree(place, TreeLimits()) if place.is_dir() else unpack(place.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot read the policy {place}: {error.strerror}") from None
    except Refused as error:
        raise PolicyLoadError(f"the policy {place} cannot be used: {error}") from None


def read_bundle(packed: bytes) -> Policy:
    """The files of a bundle. Raises `PolicyLoadError`."""
    return unpack(packed)


@contextlib.asynccontextmanager
async def deciding(
    program: OpaProgram, policy: Policy, entrypoint: str, engine: str, bounds: Bounds | None = None
) -> AsyncIterator[Engine]:
    """An engine, "wasm" or "opa", that decides by ``policy``; gone afterwards.

    What the engine cannot use as it is, is built first. Built-ins that are not pure are refused: a decision by them
    cannot be run again. Raises `PolicyLoadError`.
    """
    bounds = bounds or Bounds()
    packed = await asyncio.to_thread(_packed, program, policy, entrypoint, engine, bounds)
    trial = wasm_on_trial(packed, entrypoint) if engine == "wasm" else opa_on_trial(program, packed, entrypoint, bounds)
    async with trial as decides:
        yield decides


def _packed(program: OpaProgram, policy: Policy, entrypoint: str, engine: str, bounds: Bounds) -> bytes:
    if "policy.wasm" in policy:
        if engine != "wasm":
            raise PolicyLoadError(f"the policy {_COMPILED}")
        return pack(dict(policy))
    return _built(program, policy, entrypoint if engine == "wasm" else "", bounds).packed


def _built(program: OpaProgram, policy: Policy, wasm: str, bounds: Bounds) -> BuiltPolicy:
    with tempfile.TemporaryDirectory(prefix="sidecar-rerun-") as scratch:
        place = Path(scratch)
        for path, content in policy.items():
            to = place / POLICY / path
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(content)
        (place / CAPABILITIES).write_text(pure_capabilities(program, (), place, bounds).text)
        try:
            return OpaSteps(program, place, bounds).build("", wasm=wasm)
        except Refused as error:
            raise PolicyLoadError(f"the policy does not build for a re-run: {error}") from None
