"""What is kept of chains, where an object of it is damaged: said as such, and never taken for something else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sidecar.collector.runs import Runs
from sidecar.errors import StorageError
from tests.collector.memory import MemoryStorage

TOKEN, CHAIN = b"a token", bytes(32)


def claim(runs: Runs) -> object:
    return runs.claim("identity/ab", CHAIN)


def expires(runs: Runs) -> object:
    return runs.token_expires(TOKEN)


@pytest.mark.parametrize(
    ("ask", "prefix", "damaged"),
    [
        (claim, "identity/", b"\xff\xfe"),
        (claim, "identity/", b"no hex"),
        (expires, "token/", b"no JSON"),
        (expires, "token/", b"{}"),
        (expires, "token/", b'{"expires":null}'),
        (expires, "token/", b'{"expires":"soon"}'),
    ],
)
def test_a_damaged_object_is_said_to_be_one(ask: Callable[[Runs], object], prefix: str, damaged: bytes) -> None:
    storage = MemoryStorage()
    runs = Runs(storage)
    runs.register(TOKEN, 5)
    assert ask(runs) == ask(runs) and expires(runs) == 5
    (name,) = (each for each in storage.objects if each.startswith(prefix))
    storage.objects[name] = damaged
    with pytest.raises(StorageError, match=f"{name} is damaged"):
        ask(runs)
