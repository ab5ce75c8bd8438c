"""Modules compiled to machine code, the last few kept in memory.

Compiling takes a third of a second of a processor. A policy that the gate tried on a real engine is the one that an
engine is made of next, and it need not be compiled again. Nothing is kept on disk: machine code is run unchecked.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from hashlib import sha256
from typing import Final

import wasmtime

from sidecar.errors import PolicyLoadError

_MOST: Final = 2  # about 1.2 MB each


def new_engine() -> wasmtime.Engine:
    """One as all are configured: stopped by its epoch, without threads and 64-bit memories."""
    config = wasmtime.Config()
    config.epoch_interruption = True
    config.wasm_threads = False
    config.wasm_memory64 = False
    return wasmtime.Engine(config)


class MachineCode:
    """Used on any thread."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def module(self, engine: wasmtime.Engine, wasm: bytes) -> wasmtime.Module:
        """The module for an engine of `new_engine`. Raises PolicyLoadError: it is none."""
        known = self.of(wasm)
        if known is not None:
            return wasmtime.Module.deserialize(engine, known)
        try:
            module = wasmtime.Module(engine, wasm)
        except wasmtime.WasmtimeError:
            raise PolicyLoadError("the policy bundle's policy.wasm is not a valid Wasm module") from None
        self.keep(wasm, bytes(module.serialize()))
        return module

    def of(self, wasm: bytes) -> bytes | None:
        """What is kept of a module, or None."""
        with self._lock:
            return self._kept.get(sha256(wasm).digest())

    def keep(self, wasm: bytes, code: bytes) -> None:
        """Keep ``code``, which was made here of ``wasm``; the oldest goes."""
        with self._lock:
            self._kept[sha256(wasm).digest()] = code
            if len(self._kept) > _MOST:
                self._kept.popitem(last=False)


MACHINE_CODE: Final = MachineCode()
"""Of this process."""
