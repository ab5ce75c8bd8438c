"""Engines for policies that are compared or re-run: each from a directory, a bundle file, or a bundle as archived."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from sidecar.errors import PolicyLoadError, UsageError

from .bundle import pack, unpack
from .engine import Engine
from .findings import Refused
from .gate import build_files
from .gate_input import COMPILED
from .gate_result import GateSettings
from .opa_bounded import Bounds
from .opa_program import _COMPILED, OpaProgram
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
    packed = await _packed(program, policy, GateSettings(entrypoint, engine, bounds=bounds))
    trial = wasm_on_trial(packed, entrypoint) if engine == "wasm" else opa_on_trial(program, packed, entrypoint, bounds)
    async with trial as decides:
        yield decides


async def _packed(program: OpaProgram, policy: Policy, settings: GateSettings) -> bytes:
    if COMPILED not in policy:
        return (await build_files(program, policy, settings)).packed
    if settings.engine != "wasm":
        raise PolicyLoadError(f"the policy {_COMPILED}")
    return pack(dict(policy))
