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

_MOST: Final = 2  # about 1.2 MB each


class MachineCode:
    """Used on any thread."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def module(self, engine: wasmtime.Engine, wasm: bytes) -> wasmtime.Module:
        """The module for ``engine``; all engines are configured alike. Raises `wasmtime.WasmtimeError`: it is none."""
        known = self.of(wasm)
        if known is not None:
            return wasmtime.Module.deserialize(engine, known)
        module = wasmtime.Module(engine, wasm)
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
