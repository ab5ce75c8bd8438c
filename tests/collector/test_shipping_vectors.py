"""`tests/vectors/shipping/`: fresh; what is signed computed again from SHIPPING.md alone; and a collector and a shipper
that go by them, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sidecar.chain import note
from sidecar.chain.parcel import Record, unpack
from sidecar.chain.stream import Kind
from sidecar.collector import FleetLog
from sidecar.collector.alarms import Alarms, alarm_text
from sidecar.collector.index import Alarm, open_sqlite
from sidecar.collector.index.sql import SqlIndex
from sidecar.collector.ingest import Ingest, Rules
from sidecar.collector.runs import Runs
from sidecar.collector.sequencer import Sequencer
from sidecar.errors import CollectorRefused, LedgerError
from sidecar.ship import Backlog, Bounds, Receipts, Shipper
from sidecar.ship.link import Proved, Where
from tests.collector.memory import MemoryStorage
from tests.vectors import make_shipping

FOLDER = make_shipping.FOLDER


def load(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


KEYS = json.loads(load("keys.json"))
STEPS: list[dict[str, Any]] = json.loads(load("steps.json"))
CHAIN, NOW = bytes.fromhex(KEYS["chain"]), int(KEYS["now"])
LOG = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(KEYS["log_private"]))
IDENTITY = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(KEYS["identity_private"]))
TOKEN = KEYS["token"].encode()
VKEY = note.parse_vkey(KEYS["log"])


def test_the_vectors_are_fresh() -> None:
    assert make_shipping.build() == {path.name: path.read_bytes() for path in FOLDER.iterdir()}


# --- by other code


def H(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def test_what_is_signed() -> None:
    genesis = load("genesis.json")
    assert H(b"sidecar/v1/chain\0" + genesis) == CHAIN
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(json.loads(genesis)["identity"]))
    key.verify(bytes.fromhex(KEYS["enrolment"]), b"sidecar/v1/enrol\0" + H(genesis) + H(TOKEN))
    for step in STEPS:
        signed = b"sidecar/v1/parcel\0" + CHAIN + H(load(f"{step['parcel']}.parcel"))
        if step["refused"] != "WRONG_KEY":
            key.verify(bytes.fromhex(step["signature"]), signed)


def test_a_parcel_is_a_deflated_stream() -> None:
    data, at, found = zlib.decompress(load("first.parcel")), 8, list[int]()
    assert data[:8] == b"SDCSEG\0\1"
    while at < len(data):
        kind, length = struct.unpack_from(">BI", data, at)
        found.append(kind)
        at += 5 + length
    assert at == len(data) and found == [8, 2, 5, 5, 5, 5, 7, 5, 5, 6]


@pytest.mark.parametrize(("number", "parcel"), [(0, "first"), (1, "last")])
def test_a_run_is_its_parcel_and_where_the_chain_stood(number: int, parcel: str) -> None:
    data = load(f"{number}.run")
    (length,) = struct.unpack_from(">I", data, 8)
    held = json.loads(data[12 : 12 + length])
    step = next(each for each in STEPS if (each["parcel"], each["refused"]) == (parcel, ""))
    assert data[:8] == b"SDCRUN\0\1" and held["run"] == str(number)
    assert data[12 + length :] == bytes.fromhex(step["signature"]) + load(f"{parcel}.parcel")


# --- the collector


class Clocked:
    """A collector in memory whose clock stands where the vectors were made."""

    def __init__(
        self, place: Path, roll_seconds: float = 3_600, index: Callable[[SqlIndex], Any] = lambda it: it
    ) -> None:
        self.storage, self.index = MemoryStorage(), index(open_sqlite(place / "index.db"))
        self.log = FleetLog(self.storage, self.index, make_shipping.ORIGIN, LOG)
        self.sequencer = Sequencer(
            self.log, self.storage, self.index, roll_seconds=roll_seconds, now=lambda: NOW, on_refused=lambda _: None
        )
        self.alarms = Alarms(self.index, make_shipping.ORIGIN, LOG, None, lambda: NOW)
        runs = Runs(self.storage)
        runs.register(TOKEN, NOW // 10**9 + 1)
        self.ingest = Ingest(
            runs, self.index, self.sequencer, self.alarms, Rules(), make_shipping.ORIGIN, LOG, lambda: NOW
        )

    def close(self) -> None:
        self.sequencer.close()
        self.index.close()


def test_a_collector_answers_so(tmp_path: Path) -> None:
    collector = Clocked(tmp_path)
    try:
        collector.ingest.enrol(load("genesis.json"), TOKEN, bytes.fromhex(KEYS["enrolment"]), "")
        for step in STEPS:
            refused = ""
            try:
                collector.ingest.ship(CHAIN, load(f"{step['parcel']}.parcel"), bytes.fromhex(step["signature"]), "")
            except CollectorRefused as refusal:
                refused = refusal.code
            found = collector.ingest.where(CHAIN, "")
            assert (step["parcel"], refused) == (step["parcel"], step["refused"])
            assert (found.segment, found.seq) == (step["segment"], step["seq"])
            if not refused:
                assert found.acknowledgement == load(f"{step['parcel']}.ack")
        for number in range(2):
            assert collector.storage.objects[f"chain/{CHAIN.hex()}/{number:03}"] == load(f"{number}.run")
        assert [each.kind for each in collector.index.alarms()] == ["FORK", "ROLLBACK"]
        names = {name for name in collector.storage.objects if name.startswith(("token", "identity", "enrolled"))}
        spent = f"token-spent/{H(TOKEN).hex()}"
        identity = json.loads(load("genesis.json"))["identity"]
        assert names == {f"token/{H(TOKEN).hex()}", spent, f"identity/{identity}", f"enrolled/{CHAIN.hex()}"}
        assert collector.storage.objects[spent] == CHAIN.hex().encode()
        said = Alarm(NOW, CHAIN, "SILENT", "nothing was shipped", "")
        assert note.sign(alarm_text(said), make_shipping.ORIGIN, LOG) == load("alarm.txt")
    finally:
        collector.close()


# --- the sidecar


class Book:
    """A ledger that holds what the vectors' parcels bring."""

    def __init__(self) -> None:
        self.parts = {(0, 0): unpack(load("first.parcel"))}
        first, last = ((step["segment"], step["seq"]) for step in (STEPS[0], STEPS[-1]))
        self.parts |= {first: unpack(load("last.parcel")), last: []}

    def shipment(self, segment: int, seq: int, limit: int) -> Any:
        class Part:
            records: tuple[Record, ...] = tuple(self.parts[segment, seq])

        return Part()

    def trim(self, receipted: int) -> int:
        raise AssertionError("nothing was proved, and entries were let go of")

    def notes(self, segment: int) -> list[bytes]:
        return []

    def size(self, first: int, after: int) -> int:
        return 0

    def first(self, segment: int) -> int:
        return 0

    def position(self) -> Any:
        class Here:
            segment = 0

        return Here()


class Left:
    chain_id = CHAIN

    def __init__(self, leaves: dict[int, bytes]) -> None:
        self._leaves = leaves

    def genesis(self) -> bytes:
        return load("genesis.json")

    def leaf(self, seq: int) -> bytes | None:
        return self._leaves.get(seq)

    def sign(self, message: bytes) -> bytes:
        return IDENTITY.sign(message)


class Link:
    """Answers as the vectors say; ``got`` is what came."""

    def __init__(self) -> None:
        self.got: list[tuple[list[Record], bytes, bytes]] = []
        self.enrolled: tuple[bytes, bytes, bytes] | None = None
        self.asked = 0

    def enrol(self, genesis: bytes, token: bytes, signature: bytes) -> None:
        self.enrolled = genesis, token, signature

    def where(self, chain_id: bytes) -> Where:
        if self.enrolled is None:
            raise CollectorRefused("UNKNOWN_CHAIN", "")
        first = note.sign(f"sidecar/v1/ack\nchain {CHAIN.hex()}\nepoch 0\nsegment 0\nseq -\nleaf -\ntime {NOW}\n",
                          make_shipping.ORIGIN, LOG)  # fmt: skip
        return Where(first, 0, 0)

    def ship(self, chain_id: bytes, parcel: bytes, signature: bytes) -> Where:
        self.got.append((unpack(parcel), parcel, signature))
        name = "first" if len(self.got) == 1 else "last"
        step = next(each for each in STEPS if (each["parcel"], each["refused"]) == (name, ""))
        return Where(load(f"{name}.ack"), step["segment"], step["seq"])

    def receipts(self, chain_id: bytes, entries: list[bytes], since: int) -> Proved:
        self.asked += 1
        return Proved((b"",) * len(entries), b"", b"", ())

    def close(self) -> None:
        pass


def leaves() -> dict[int, bytes]:
    records = [*unpack(load("first.parcel")), *unpack(load("last.parcel"))]
    entries = [body for kind, body in records if kind is Kind.ENTRY]
    return {seq: H(b"\0" + body[:216]) for seq, body in enumerate(entries)}


class Ahead(Link):
    """Signs that it holds nothing, and says beside it that all is there."""

    def where(self, chain_id: bytes) -> Where:
        found = super().where(chain_id)
        self.asked += 1
        return Where(found.acknowledgement, STEPS[-1]["segment"], STEPS[-1]["seq"])


def shipped(
    tmp_path: Path, left: Left, done: Callable[[Link, list[LedgerError]], bool], kind: type[Link] = Link
) -> tuple[Link, Backlog, list]:  # type: ignore[type-arg]
    link, failures = kind(), list[LedgerError]()
    backlog = Backlog(lambda: STEPS[-1]["seq"], Bounds())
    shipper = Shipper(
        Book(), left, link, VKEY, Receipts(tmp_path, VKEY), backlog, lambda: TOKEN,
        period=0.002, roll_seconds=0, on_failure=failures.append,
    )  # fmt: skip
    try:
        pause = threading.Event()
        for _ in range(10_000):
            if done(link, failures):
                break
            pause.wait(0.005)
    finally:
        shipper.close()
    return link, backlog, failures


def test_a_sidecar_ships_so(tmp_path: Path) -> None:
    link, backlog, failures = shipped(tmp_path, Left(leaves()), lambda link, failures: len(link.got) == 2)
    assert link.enrolled == (load("genesis.json"), TOKEN, bytes.fromhex(KEYS["enrolment"]))
    for (records, parcel, signature), name in zip(link.got, ("first", "last"), strict=True):
        assert records == unpack(load(f"{name}.parcel"))
        IDENTITY.public_key().verify(signature, b"sidecar/v1/parcel\0" + CHAIN + H(parcel))
    assert backlog.acknowledged == STEPS[-1]["seq"] and failures == []


def test_a_sidecar_that_holds_another_entry_than_is_acknowledged_tells_and_ends(tmp_path: Path) -> None:
    other = leaves() | {STEPS[0]["seq"] - 1: bytes(32)}
    link, _, failures = shipped(tmp_path, Left(other), lambda link, failures: bool(failures))
    assert [records for records, _, _ in link.got] == [unpack(load("first.parcel"))] * 2
    (failure,) = failures
    assert "holds another entry" in str(failure)


def test_a_place_that_nobody_signed_is_not_gone_on_from(tmp_path: Path) -> None:
    """Else a sidecar that may have little unshipped would take for shipped what nobody acknowledged."""
    link, backlog, failures = shipped(tmp_path, Left(leaves()), lambda link, failures: link.asked >= 2, Ahead)
    assert link.asked >= 2 and link.got == [] and failures == []
    assert backlog.acknowledged == 0


def test_nothing_is_let_go_of_by_receipts_of_before_alone(tmp_path: Path) -> None:
    """The collector was given back from an old copy: what it had receipted it may not hold any more."""
    (tmp_path / "receipts").mkdir()
    (tmp_path / "receipts" / "seal-0-5.tlog-proof").write_bytes(b"its name counts")
    link, backlog, _ = shipped(tmp_path, Left(leaves()), lambda link, failures: link.asked >= 3)
    assert link.asked >= 3 and len(link.got) == 2 and backlog.acknowledged == STEPS[-1]["seq"]
