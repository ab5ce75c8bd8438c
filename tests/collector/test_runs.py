"""What is kept of chains, where an object of it is damaged: said as such, and never taken for something else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.chain.acts import AcceptLoss, Position
from sidecar.chain.authority_note import compose
from sidecar.chain.parcel import pack, parcel_message
from sidecar.chain.stream import Kind
from sidecar.collector.alarms import Alarms
from sidecar.collector.ingest import Ingest, Rules
from sidecar.collector.runs import Runs
from sidecar.errors import CollectorRefused, StorageError
from tests.collector.memory import MemoryStorage
from tests.collector.test_log import KEY, ORIGIN
from tests.collector.test_retention import chain
from tests.fuzz.test_fuzz_collector import Collector
from tests.scribe import Scribe, signing_key

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


class _Slow(MemoryStorage):
    """Where the newest run was found and is read, ``then`` happens first, once."""

    then: Callable[[], None] | None = None
    looked_for = ""

    def read(self, name: str, limit: int) -> bytes | None:
        data, then = super().read(name, limit), self.then
        if then is not None and name.startswith("chain/") and data is not None:
            if name == self.looked_for:
                self.then = None
                then()
            self.looked_for = name
        return data


def test_a_chain_that_is_opened_twice_at_once_is_not_called_shorter(tmp_path: Path) -> None:
    """After an accepted loss, where what is held may be less than was said: a start opens every chain, and its sidecar
    ships meanwhile."""
    s = chain("opened-twice")
    collector = Collector(tmp_path)
    collector.enrol(s)
    records = [(each.kind, each.body) for each in s.records]
    assert collector.ship(pack(records), s) == "" and s.authority is not None
    kept = Position(1, 5, s.leaf_of(4))
    grant = compose(AcceptLoss(s.chain_id, kept, Position(s.segment, s.seq, s.leaf), "lost"), 1, s.authority)
    assert collector.ship(pack([(Kind.AUTHORITY, grant)]), s) == ""
    fifth, sixth = ([(e.kind, e.body) for e in s.records if e.kind is Kind.ENTRY and e.seq == n] for n in (5, 6))
    assert collector.ship(pack(fifth), s) == ""
    storage = _Slow(collector.storage.objects)
    alarms = Alarms(collector.index, ORIGIN, KEY, None, lambda: 1)
    again = Ingest(
        Runs(storage), collector.index, collector.sequencer, alarms, Rules(anybody=True), ORIGIN, KEY, lambda: 1
    )
    parcel = pack(sixth)
    signature = signing_key(s.name, "identity").sign(parcel_message(s.chain_id, parcel))
    sidecar = threading.Thread(target=again.ship, args=(s.chain_id, parcel, signature, ""))

    def meanwhile() -> None:
        sidecar.start()
        sidecar.join(0.2)

    storage.then = meanwhile
    again.where(s.chain_id, "")
    sidecar.join(60)
    lines = {each.chain_id: each.seq for each in collector.sequencer.standings.all()}
    assert again.where(s.chain_id, "").seq == 7 and lines[s.chain_id] == 6
    collector.sequencer.close()
    collector.index.close()
