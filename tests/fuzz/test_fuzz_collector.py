"""Every message between sidecar and collector, spoilt: refused by name, and nothing taken that was not written."""

from __future__ import annotations

import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.chain.parcel import enrol_message, pack, parcel_message
from sidecar.chain.stream import MAGIC, Kind, record
from sidecar.collector import FleetLog
from sidecar.collector.alarms import Alarms
from sidecar.collector.index import open_sqlite
from sidecar.collector.ingest import Ingest, Rules
from sidecar.collector.proofs import Proofs
from sidecar.collector.runs import Runs
from sidecar.collector.sequencer import Sequencer
from sidecar.errors import CollectorRefused, CollectorUnavailable, Malformed, Oversize
from sidecar.ship import Receipts
from sidecar.ship.link import Proved, Where
from sidecar.ship.start import acknowledged
from tests.collector.memory import MemoryStorage
from tests.collector.test_log import KEY, ORIGIN, VKEY
from tests.scribe import Scribe, flip, signing_key, story

CODES = {"MALFORMED", "WRONG_KEY", "OVERSIZE", "GAP", "FORK", "ROLLBACK", "UNKNOWN_CHAIN", "NOT_ALLOWED", "CLONE"}
STORY = story()
RECORDS = [(each.kind, each.body) for each in STORY.records]
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Collector:
    """One in memory, that holds the story."""

    def __init__(self, place) -> None:
        self.storage = storage = MemoryStorage()
        self.index = open_sqlite(place / "index.db")
        self.log = FleetLog(storage, self.index, ORIGIN, KEY)
        self.refused: list[object] = []
        self.sequencer = Sequencer(
            self.log, storage, self.index, roll_seconds=0.05, now=lambda: 1, on_refused=self.refused.append
        )
        alarms = Alarms(self.index, ORIGIN, KEY, None, lambda: 1)
        self.ingest = Ingest(
            Runs(storage), self.index, self.sequencer, alarms, Rules(anybody=True), ORIGIN, KEY, lambda: 1
        )
        self.proofs = Proofs(self.sequencer, self.index)
        self.enrol(STORY)

    def enrol(self, scribe: Scribe) -> None:
        key = signing_key(scribe.name, "identity")
        self.ingest.enrol(scribe.genesis, b"", key.sign(enrol_message(scribe.genesis, b"")), "")

    def ship(self, parcel: bytes, scribe: Scribe = STORY) -> str:
        key = signing_key(scribe.name, "identity")
        try:
            self.ingest.ship(scribe.chain_id, parcel, key.sign(parcel_message(scribe.chain_id, parcel)), "")
        except CollectorRefused as refusal:
            return refusal.code
        return ""


@pytest.fixture(scope="module")
def collector(tmp_path_factory):
    made = Collector(tmp_path_factory.mktemp("fuzz"))
    assert made.ship(pack(RECORDS)) == ""
    while made.sequencer.waiting or made.sequencer.roll_call(STORY.chain_id, made.log.tip.size) is None:
        threading.Event().wait(0.01)
    yield made
    assert made.refused == []
    made.sequencer.close()
    made.index.close()


def held(collector: Collector) -> tuple[int, int]:
    found = collector.ingest.where(STORY.chain_id, "")
    return found.segment, found.seq


@QUICK
@given(st.data())
def test_a_parcel_spoilt_after_it_was_signed(collector, data):
    parcel = bytearray(pack(RECORDS[:12]))
    parcel[data.draw(st.integers(0, len(parcel) - 1))] ^= data.draw(st.integers(1, 255))
    signature = signing_key(STORY.name, "identity").sign(parcel_message(STORY.chain_id, pack(RECORDS[:12])))
    with pytest.raises(CollectorRefused) as refusal:
        collector.ingest.ship(STORY.chain_id, bytes(parcel), signature, "")
    assert refusal.value.code == "WRONG_KEY"
    assert held(collector) == (STORY.segment, STORY.seq)


@QUICK
@given(st.data())
def test_records_spoilt_left_out_doubled_or_in_another_order(collector, data):
    """A fresh chain each time: what is taken is a beginning of what was written, or nothing."""
    records = list(RECORDS)
    at = data.draw(st.integers(0, len(records) - 1))
    kind, body = records[at]
    what = data.draw(st.sampled_from(["flip", "cut", "kind", "drop", "double", "swap", "garbage"]))
    if what == "flip":
        body = flip(body, data.draw(st.integers(0, len(body) - 1)), data.draw(st.integers(1, 255)))
        records[at] = kind, body
    elif what == "cut":
        records[at] = kind, body[: data.draw(st.integers(0, len(body) - 1))]
    elif what == "kind":
        records[at] = data.draw(st.sampled_from(Kind)), body
    elif what == "drop":
        del records[at]
    elif what == "double":
        records.insert(at, records[at])
    elif what == "swap":
        other = data.draw(st.integers(0, len(records) - 1))
        records[at], records[other] = records[other], records[at]
    else:
        records[at] = kind, data.draw(st.binary(max_size=400))
    assert collector.ship(pack(records)) in CODES | {""}
    assert held(collector) == (STORY.segment, STORY.seq)


@QUICK
@given(st.binary(max_size=300), st.booleans())
def test_what_is_no_parcel(collector, content, framed):
    import zlib

    parcel = zlib.compress(MAGIC + content) if framed else content
    assert collector.ship(parcel) in CODES | {""}
    assert held(collector) == (STORY.segment, STORY.seq)


@QUICK
@given(st.binary(max_size=400), st.binary(max_size=140), st.binary(max_size=70))
def test_enrolment(collector, genesis, token, signature):
    with pytest.raises(CollectorRefused) as refusal:
        collector.ingest.enrol(genesis, token, signature, "")
    assert refusal.value.code in CODES
    for part in (flip(STORY.genesis, len(genesis) % len(STORY.genesis)), STORY.genesis):
        with pytest.raises(CollectorRefused) as refusal:
            collector.ingest.enrol(part, token, signature, "")
        assert refusal.value.code in CODES


@QUICK
@given(st.lists(st.binary(max_size=200), max_size=70), st.integers(0, 2**64 - 1), st.binary(max_size=40))
def test_questions(collector, entries, since, chain_id):
    for asked in (
        lambda: collector.proofs.of(STORY.chain_id, entries, since),
        lambda: collector.ingest.where(chain_id, ""),
    ):
        try:
            asked()
        except CollectorRefused as refusal:
            assert refusal.code in CODES


@QUICK
@given(st.data())
def test_what_a_collector_answers(collector, tmp_path, data):
    """Nothing that was not proved is stored, and nothing but the pinned log's word is believed."""
    receipts = Receipts(tmp_path, VKEY)
    junk = st.binary(max_size=300)
    texts = [each.encode() for each in _texts()]
    good = collector.proofs.of(STORY.chain_id, texts[:1], 0)
    spoil = data.draw(st.sampled_from(["proofs", "roll_call", "junk", "timestamps"]))
    whole = good.proofs[0]
    assert whole and good.roll_call
    spoilt = flip(whole, data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(1, 255)))
    roll = good.roll_call
    spoilt_roll = flip(roll, data.draw(st.integers(0, len(roll) - 1)), data.draw(st.integers(1, 255)))
    answer = {
        "proofs": Proved((spoilt,), b"", b"", ()),
        "roll_call": Proved((), spoilt_roll, b"", ()),
        "junk": Proved((data.draw(junk.filter(bool)),), b"", data.draw(junk), ()),
        "timestamps": Proved((whole,), b"", b"", (data.draw(junk),)),
    }[spoil]
    with pytest.raises(CollectorRefused):
        receipts.store(STORY.chain_id, texts[:1], answer)
    assert list((tmp_path / "receipts").iterdir()) == []
    ack = bytearray(collector.ingest.where(STORY.chain_id, "").acknowledgement)
    ack[data.draw(st.integers(0, len(ack) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(CollectorUnavailable):
        acknowledged(Where(bytes(ack), 0, 0), STORY.chain_id, VKEY)
    with pytest.raises(CollectorUnavailable):
        acknowledged(Where(data.draw(junk), 0, 0), STORY.chain_id, VKEY)


def _texts() -> list[str]:
    from sidecar.chain import note

    return [note.parse(body).text for kind, body in RECORDS if kind in (Kind.EPOCH, Kind.SEAL)]


def test_no_more_is_inflated_than_allowed():
    import zlib

    from sidecar.chain.parcel import MAX_RECORDS_BYTES, unpack

    with pytest.raises(Oversize):
        unpack(zlib.compress(MAGIC + bytes(MAX_RECORDS_BYTES)))
    with pytest.raises(Malformed):
        unpack(zlib.compress(MAGIC + record(Kind.HEAD, b"x")[:-1]))
