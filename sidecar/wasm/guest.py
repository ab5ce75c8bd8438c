"""Calling a guest's functions, being called by it and reading its memory, with little around it.

wasmtime's own `Func.__call__` asks for the function's type and builds each value anew at every call: 40 µs, as long as
much of a policy. Here the arguments' array is made once for each function, and what the guest calls takes its i32 from
where they lie. It reaches below the binding's public names (`_ffi`), which the pinned major version keeps. Functions
are called through wasmtime's checked call, so a function of another type than ours is an error and never undefined
behaviour.

What runs guest code lets go of Python's lock, as `ctypes` does by itself, so that the sidecar and the epoch's ticker
run meanwhile. What only looks something up keeps it (`PyDLL`): asking for the lock again can take a turn of the
scheduler, and there were twenty such look-ups in an evaluation.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, Final

import wasmtime
from wasmtime import _ffi as ffi

from sidecar.errors import EngineError, PolicyLoadError

PAGE: Final = 1 << 16
_CHUNK: Final = 4096
_UNSIGNED: Final = 0xFFFF_FFFF
_Context: Final = ctypes.POINTER(ffi.wasmtime_context_t)
_Memory: Final = ctypes.POINTER(ffi.wasmtime_memory_t)
_Trap: Final = ctypes.POINTER(ffi.wasm_trap_t)
_NO_FINALIZER: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p)()


def _lookup(library: ctypes.PyDLL, name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    function = getattr(library, name)
    function.restype, function.argtypes = result, arguments
    return function  # type: ignore[no-any-return]


_wasmtime: Final = ctypes.PyDLL(ffi.dll._name)
_data = _lookup(_wasmtime, "wasmtime_memory_data", ctypes.c_void_p, _Context, _Memory)
_data_size = _lookup(_wasmtime, "wasmtime_memory_data_size", ctypes.c_size_t, _Context, _Memory)
_deadline = _lookup(_wasmtime, "wasmtime_context_set_epoch_deadline", None, _Context, ctypes.c_uint64)
_copy = _lookup(ctypes.PyDLL(None), "memmove", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t)


def set_deadline(store: wasmtime.Store, ticks: int) -> None:
    """Interrupt guest code of the store when its engine's epoch has moved on by ``ticks``."""
    _deadline(store._context(), ticks)


class GuestFunction:
    """An exported function that takes and gives i32. Belongs to its store's thread; not entered from within itself."""

    __slots__ = ("_arguments", "_arity", "_function", "_results", "_store")

    def __init__(self, store: wasmtime.Store, exported: object, name: str, arity: int) -> None:
        """Raises `PolicyLoadError` unless ``exported`` is a function of ``arity`` values that gives one."""
        i32 = wasmtime.ValType.i32()
        if not isinstance(exported, wasmtime.Func):
            raise PolicyLoadError(f"policy.wasm does not export {name}: no OPA policy of ABI 1.2 or later")
        kind = exported.type(store)
        if len(kind.params) != arity or len(kind.results) != 1 or any(t != i32 for t in (*kind.params, *kind.results)):
            raise PolicyLoadError(f"policy.wasm's {name} has another type than OPA's")
        self._store, self._function, self._arity = store, exported, arity
        self._arguments = _values(arity)
        self._results = _values(1)

    def __call__(self, *values: int) -> int:
        """Call it. Raises `wasmtime.Trap` or `wasmtime.WasmtimeError`, also where a host function raised."""
        arguments, results = self._arguments, self._results
        for place, value in enumerate(values):
            arguments[place].of.i32 = value
        trap = _Trap()
        error = ffi.wasmtime_func_call(
            self._store._context(), ctypes.byref(self._function._func), arguments, self._arity, results, 1,
            ctypes.byref(trap),
        )  # fmt: skip
        if error:
            raise wasmtime.WasmtimeError._from_ptr(error)
        if trap:
            raise wasmtime.Trap._from_ptr(trap)
        return int(results[0].of.i32) & _UNSIGNED


class HostFunction:
    """A function that the guest may import: takes so many i32, unsigned, and gives one, or None where it gives none.

    What it raises is a trap to the guest, without its cause: that is for ``function`` to keep. It must live as long as
    its store.
    """

    __slots__ = ("_called", "imported")

    def __init__(self, store: wasmtime.Store, arity: int, function: Callable[..., int | None], *, gives: bool) -> None:
        def called(_env: object, _caller: object, given: Any, _count: int, results: Any, _results: int) -> int:
            try:
                result = function(*[given[place].of.i32 & _UNSIGNED for place in range(arity)])
                if gives:
                    results[0].kind, results[0].of.i32 = ffi.WASMTIME_I32, result
            except BaseException:  # nothing may be raised through the guest's frames
                return ctypes.cast(wasmtime.Trap("the host failed")._consume(), ctypes.c_void_p).value or 0
            return 0

        i32, made = wasmtime.ValType.i32(), ffi.wasmtime_func_t()
        kind = wasmtime.FuncType([i32] * arity, [i32] * gives)
        self._called = ffi.wasmtime_func_callback_t(called)
        ffi.wasmtime_func_new(store._context(), kind.ptr(), self._called, None, _NO_FINALIZER, ctypes.byref(made))
        self.imported = wasmtime.Func._from_raw(made)


class GuestMemory:
    """A guest's memory: bounded reads and writes. Where it lies is asked each time, for it moves when it grows."""

    __slots__ = ("_at", "_memory", "_store")

    def __init__(self, store: wasmtime.Store, memory: wasmtime.Memory) -> None:
        self._store, self._memory = store, memory
        self._at = ctypes.byref(memory._memory)

    def write(self, start: int, raw: bytes) -> int:
        """Write at ``start``, growing the memory within its limit; the address after the last byte."""
        end = start + len(raw)
        lacking = end - self._size()
        if lacking > 0:
            try:
                self._memory.grow(self._store, -(-lacking // PAGE))
            except wasmtime.WasmtimeError:
                raise EngineError("the policy input does not fit the memory limit") from None
        _copy(self._base() + start, raw, len(raw))
        return end

    def text_at(self, start: int, limit: int, *, cut: bool = False) -> bytes:
        """The zero-ended text at ``start``, without its zero; longer than ``limit`` bytes is an error, or cut."""
        base, size = self._base(), self._size()
        found = b""
        while len(found) <= limit:
            at = start + len(found)
            if at >= size:
                raise EngineError("the policy answered with an address outside its memory")
            chunk = ctypes.string_at(base + at, min(_CHUNK, size - at))
            zero = chunk.find(0)
            found += chunk if zero < 0 else chunk[:zero]
            if zero >= 0:
                break
        if len(found) > limit and not cut:
            raise EngineError(f"the policy answered more than {limit} bytes")
        return found[:limit]

    def _size(self) -> int:
        return int(_data_size(self._store._context(), self._at))

    def _base(self) -> int:
        return int(_data(self._store._context(), self._at))


def _values(count: int) -> Any:
    """An array of i32 values, as the C interface takes them."""
    values = (ffi.wasmtime_val_t * count)()
    for value in values:
        value.kind = ffi.WASMTIME_I32
    return values
