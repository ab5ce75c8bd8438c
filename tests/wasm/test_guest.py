"""Calling a guest with little around it: types are checked when it is loaded, addresses each time."""

from __future__ import annotations

import pytest
import wasmtime
from wasmtime._instance import InstanceExports as Exports

from sidecar.errors import EngineError, PolicyLoadError
from sidecar.wasm.guest import PAGE, GuestFunction, GuestMemory, HostFunction

MODULE = """
(module
  (memory (export "memory") 1)
  (data (i32.const 16) "text\\00")
  (func (export "add") (param i32 i32) (result i32) local.get 0 local.get 1 i32.add)
  (func (export "trap") (result i32) unreachable)
  (func (export "long") (param i64) (result i32) i32.const 0)
  (func (export "silent") (param i32)))
"""


@pytest.fixture
def store() -> wasmtime.Store:
    return wasmtime.Store()


@pytest.fixture
def exports(store: wasmtime.Store) -> Exports:
    module = wasmtime.Module(store.engine, wasmtime.wat2wasm(MODULE))
    return wasmtime.Instance(store, module, []).exports(store)


def test_calls_are_unsigned_and_may_be_repeated(store: wasmtime.Store, exports: Exports) -> None:
    add = GuestFunction(store, exports["add"], "add", 2)
    assert [add(1, 2), add(0xFFFF_FFFF, 0), add(0x7FFF_FFFF, 1)] == [3, 0xFFFF_FFFF, 0x8000_0000]


def test_a_trap_is_raised(store: wasmtime.Store, exports: Exports) -> None:
    with pytest.raises(wasmtime.Trap):
        GuestFunction(store, exports["trap"], "trap", 0)()


ASKING = """
(module
  (import "env" "asked" (func $asked (param i32 i32) (result i32)))
  (func (export "ask") (param i32) (result i32) local.get 0 i32.const -1 call $asked))
"""


def _asking(store: wasmtime.Store, host: HostFunction) -> GuestFunction:
    module = wasmtime.Module(store.engine, wasmtime.wat2wasm(ASKING))
    exports = wasmtime.Instance(store, module, [host.imported]).exports(store)
    return GuestFunction(store, exports["ask"], "ask", 1)


def test_the_guest_calls_the_host_with_unsigned_values(store: wasmtime.Store) -> None:
    seen: list[tuple[int, ...]] = []

    def asked(*values: int) -> int:
        seen.append(values)
        return values[0] + 1

    host = HostFunction(store, 2, asked, gives=True)
    ask = _asking(store, host)
    assert [ask(7), ask(0xFFFF_FFFE)] == [8, 0xFFFF_FFFF]
    assert seen == [(7, 0xFFFF_FFFF), (0xFFFF_FFFE, 0xFFFF_FFFF)]


@pytest.mark.parametrize("wrong", [ValueError("secret"), KeyboardInterrupt(), None])
def test_a_host_that_fails_is_a_trap_without_its_cause(store: wasmtime.Store, wrong: BaseException | None) -> None:
    def fails(*_: int) -> int | None:
        if wrong is not None:
            raise wrong
        return None

    host = HostFunction(store, 2, fails, gives=True)
    with pytest.raises((wasmtime.Trap, wasmtime.WasmtimeError), match="the host failed") as caught:
        _asking(store, host)(7)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("name", "arity"), [("add", 1), ("add", 3), ("long", 1), ("silent", 1), ("memory", 0)])
def test_another_type_is_no_policy(store: wasmtime.Store, exports: Exports, name: str, arity: int) -> None:
    with pytest.raises(PolicyLoadError, match=name):
        GuestFunction(store, exports[name], name, arity)


def test_memory_is_read_and_written_within_its_bounds(store: wasmtime.Store, exports: Exports) -> None:
    store.set_limits(memory_size=2 * PAGE)
    raw = exports["memory"]
    assert isinstance(raw, wasmtime.Memory)
    memory = GuestMemory(store, raw)
    assert memory.text_at(16, 10) == b"text"
    assert memory.text_at(16, 2, cut=True) == b"te"
    with pytest.raises(EngineError, match="more than 2 bytes"):
        memory.text_at(16, 2)
    for outside in (PAGE, 0xFFFF_FFFF):
        with pytest.raises(EngineError, match="outside"):
            memory.text_at(outside, 10)
    assert memory.write(PAGE - 2, b"abcd\0") == PAGE + 3  # grown by a page
    assert memory.text_at(PAGE - 2, 10) == b"abcd"
    memory.write(2 * PAGE - 4, b"wxyz")  # up to the very end, without a zero
    with pytest.raises(EngineError, match="outside"):
        memory.text_at(2 * PAGE - 4, 10)
    for start in (2 * PAGE - 3, 0xFFFF_FFFF):
        with pytest.raises(EngineError, match="limit"):
            memory.write(start, b"wxyz")
    assert memory.text_at(16, 10) == b"text"
