"""One running copy of a policy compiled to Wasm (OPA's documentation, "Wasm", ABI 1.2 and later of major version 1).

An instance belongs to one thread at a time. After any exception its memory is in an unknown state and it must be
discarded. The evaluation is bounded by Wasmtime: time by the engine's epoch, memory by the store's limit.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import wasmtime

from sidecar.errors import EngineError, PolicyLoadError

from . import rego_value
from .guest import PAGE, GuestFunction, GuestMemory, HostFunction, set_deadline
from .host_builtins import HOST_BUILTINS, BuiltinError, call

_MESSAGE_BYTES: Final = 200
_MAX_VALUE_BYTES: Final = 1 << 20
# How many values each takes; each gives one.
_EXPORTS: Final = {
    "opa_eval": 7,
    "opa_heap_ptr_get": 0,
    "opa_json_dump": 1,
    "opa_json_parse": 2,
    "opa_malloc": 1,
    "opa_value_dump": 1,
    "entrypoints": 0,
    "builtins": 0,
}


@dataclass(frozen=True, slots=True)
class Program:
    """What every instance of a policy shares."""

    engine: wasmtime.Engine
    module: wasmtime.Module
    data: bytes
    static_bytes: int  # the module's length bounds its static data
    memory_limit: int  # bytes
    answer_limit: int  # bytes of a result set


class Instance:
    """A policy with its data loaded. The caller sets `deadline` before anything that runs guest code."""

    def __init__(self, program: Program, ticks: int) -> None:
        """Instantiate and load the data within ``ticks`` of the engine's epoch.

        Raises `wasmtime.WasmtimeError`, `wasmtime.Trap`, `EngineError` or `PolicyLoadError`.
        """
        self._failure: EngineError | None = None
        self._answer_limit = program.answer_limit
        self._host: list[HostFunction] = []
        self._store = wasmtime.Store(program.engine)
        try:
            self._start(program, ticks)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Free the guest's memory now, not when the collector comes by."""
        self._store.close()
        self._host.clear()

    def deadline(self, ticks: int) -> None:
        """Interrupt guest code when the engine's epoch has moved on by ``ticks``."""
        set_deadline(self._store, ticks)

    def evaluate(self, entrypoint: int, document: bytes) -> bytes:
        """The result set as JSON: ``[{"result": ...}]``, or ``[]`` where the entry point is undefined."""
        self._failure = None
        heap = self._memory.write(self._base, document)
        address = self._call("opa_eval", 0, entrypoint, self._data, self._base, len(document), heap, 0)
        return self._memory.text_at(address, self._answer_limit)

    def _start(self, program: Program, ticks: int) -> None:
        self._store.set_limits(memory_size=program.memory_limit, memories=1, instances=1, tables=4)
        self.deadline(ticks)
        exports = self._instantiate(program)
        self._functions = {
            name: GuestFunction(self._store, exports.get(name), name, arity) for name, arity in _EXPORTS.items()
        }
        self.entrypoints = self._names("entrypoints")
        self._builtins = {number: name for name, number in self._names("builtins").items()}
        missing = sorted(set(self._builtins.values()) - set(HOST_BUILTINS))
        if missing:
            raise PolicyLoadError(
                f"the policy uses built-ins the wasm engine does not supply: {', '.join(missing)[:300]}; "
                "do without them, or use the opa engine"
            )
        self._data = self._load_json(program.data)
        self._base = self._call("opa_heap_ptr_get")

    def _instantiate(self, program: Program) -> Mapping[str, object]:
        linker = wasmtime.Linker(program.engine)
        for needed in program.module.imports:
            if needed.module != "env" or needed.name is None:
                raise PolicyLoadError("policy.wasm imports from elsewhere than env: it is not an OPA policy")
            linker.define(self._store, "env", needed.name, self._import(program, needed.name, needed.type))
        return linker.instantiate(self._store, program.module).exports(self._store)

    def _import(self, program: Program, name: str, kind: object) -> wasmtime.Memory | wasmtime.Func:
        if name == "memory" and isinstance(kind, wasmtime.MemoryType):
            limits = wasmtime.Limits(_pages(program, kind), None)
            memory = wasmtime.Memory(self._store, wasmtime.MemoryType(limits))
            self._memory = GuestMemory(self._store, memory)
            return memory
        callbacks: dict[str, tuple[int, bool, Callable[..., Any]]] = {
            "opa_abort": (1, False, self._abort),
            "opa_println": (1, False, lambda _: None),
            **{f"opa_builtin{n}": (n + 2, True, self._builtin) for n in range(5)},
        }
        if name not in callbacks:
            raise PolicyLoadError(f"policy.wasm imports env.{ascii(name)[:100]}, which OPA does not define")
        arity, returns, function = callbacks[name]
        self._host.append(HostFunction(self._store, arity, function, gives=returns))
        return self._host[-1].imported

    def _abort(self, address: int) -> None:
        """The guest gives up: out of memory, or two values for one rule. Raising makes it trap."""
        message = _printable(self._memory.text_at(address, _MESSAGE_BYTES, cut=True))
        if message.startswith("opa_malloc"):
            message = "it needs more memory than its limit; simplify it or raise the limit"
        self._failure = EngineError(f"the policy aborted: {message}")
        raise self._failure

    def _builtin(self, number: int, _context: int, *addresses: int) -> int:
        try:
            name = self._builtins.get(number, "?")
            arguments = [self._value_at(address) for address in addresses]
            return self._load_json(call(name, arguments))
        except BuiltinError as error:
            self._failure = EngineError(f"a built-in of the policy failed: {error}")
            raise self._failure from None
        except Exception as error:
            self._failure = EngineError(f"a built-in of the policy failed ({type(error).__name__})")
            raise self._failure from None

    def _call(self, name: str, *arguments: int) -> int:
        try:
            return self._functions[name](*arguments)
        except Exception:
            if self._failure is not None:
                raise self._failure from None
            raise

    def _names(self, export: str) -> dict[str, int]:
        address = self._call("opa_json_dump", self._call(export))
        return {
            str(name): int(number)
            for name, number in json.loads(self._memory.text_at(address, _MAX_VALUE_BYTES)).items()
        }

    def _value_at(self, address: int) -> rego_value.Value:
        return rego_value.parse(self._memory.text_at(self._call("opa_value_dump", address), _MAX_VALUE_BYTES).decode())

    def _load_json(self, raw: bytes) -> int:
        place = self._call("opa_malloc", len(raw))
        self._memory.write(place, raw)
        address = self._call("opa_json_parse", place, len(raw))
        if address == 0:
            raise EngineError("the policy engine could not read the data")
        return address


def _pages(program: Program, declared: wasmtime.MemoryType) -> int:
    """What to begin with: the module's static data, no longer than the module, is copied in before it runs."""
    return int(declared.limits.min) + 2 + program.static_bytes // PAGE


def _printable(message: bytes) -> str:
    """OPA's abort messages name a rule's place or the allocator; anything unprintable is left out."""
    return "".join(character for character in message.decode(errors="replace") if character.isprintable())
