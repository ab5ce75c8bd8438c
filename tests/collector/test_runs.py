"""What is kept of chains, where an object of it is damaged: said as such, and never taken for something else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.collector.runs import Runs
from sidecar.errors import CollectorRefused, StorageError
from tests.collector.memory import MemoryStorage
from tests.fuzz.test_fuzz_collector import Collector
from tests.scribe import Scribe

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


def test_of_one_chain_no_more_contradictions_are_kept_than_there_may_be(tmp_path: Path) -> None:
    """Of clones too, each of which is another GENESIS: nobody could remove what they filled the store with."""
    collector = Collector(tmp_path)
    collector.enrol(Scribe("twice"))
    for number in range(66):
        with pytest.raises(CollectorRefused, match="CLONE"):
            collector.enrol(Scribe("twice", nonce=bytes([number]) * 32))
    assert len([each for each in collector.storage.objects if each.startswith("evidence/")]) == 64
    assert len(collector.index.alarms()) == 64
    collector.sequencer.close()
    collector.index.close()
