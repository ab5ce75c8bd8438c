"""Attacks on a running collector, by somebody who has every key of a chain, or none (attacks 7, 9, 11, 14, 34)."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.chain import note
from sidecar.chain.ack import Ack
from sidecar.chain.logged import Logged
from sidecar.chain.parcel import MAX_RECORDS_BYTES, enrol_message, pack, parcel_message
from sidecar.chain.stream import MAGIC, Kind
from sidecar.chain.tlog_proof import TlogProof
from sidecar.errors import CollectorRefused, CollectorUnavailable
from sidecar.ship import GrpcLink
from sidecar.ship.link import Where
from sidecar.v1 import collector_pb2 as pb
from sidecar.v1 import collector_pb2_grpc
from sidecar.verify import Evidence, Report, Verdict, parse_trust
from tests.collecting import Collecting, collecting, status
from tests.program import sidecar
from tests.scribe import Record, Scribe, flip, judge, signing_key, story
from tests.servers.building import CLIENT, built
from tests.servers.running import PATIENCE


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collecting]:
    place = tmp_path_factory.mktemp("ingest") / "collector"
    with collecting(place) as running:
        yield running
        assert running.stop() == 0


class Sender:
    """Ships what a scribe wrote, over a connection of its own."""

    def __init__(self, scribe: Scribe, collector: Collecting) -> None:
        self.scribe, self.collector = scribe, collector
        self.link = GrpcLink(collector.address, lambda: None)
        self.enrol()

    def enrol(self) -> None:
        genesis = self.scribe.genesis
        key = signing_key(self.scribe.name, "identity")
        self.link.enrol(genesis, b"", key.sign(enrol_message(genesis, b"")))

    def ship(self, records: Sequence[Record], key: Ed25519PrivateKey | None = None) -> Where:
        return self.send(pack([(each.kind, each.body) for each in records]), key)

    def send(self, parcel: bytes, key: Ed25519PrivateKey | None = None) -> Where:
        signer = key or signing_key(self.scribe.name, "identity")
        return self.link.ship(self.scribe.chain_id, parcel, signer.sign(parcel_message(self.scribe.chain_id, parcel)))

    def refused(self, records: Sequence[Record] | bytes, key: Ed25519PrivateKey | None = None) -> str:
        parcel = records if isinstance(records, bytes) else pack([(each.kind, each.body) for each in records])
        signer = key or signing_key(self.scribe.name, "identity")
        signature = signer.sign(parcel_message(self.scribe.chain_id, parcel))
        request = pb.ShipRequest(chain_id=self.scribe.chain_id, parcel=parcel, signature=signature)
        with grpc.insecure_channel(self.collector.address) as channel:
            answer = collector_pb2_grpc.CollectorStub(channel).Ship(request, timeout=60)
        return pb.Refused.Name(answer.refusal.code).removeprefix("REFUSED_")

    def held(self) -> Ack:
        found = self.link.where(self.scribe.chain_id)
        key = note.parse_vkey(self.collector.key)
        return Ack.parse(note.verify_single(found.acknowledgement, key.name, key.public_key))

    def alarms(self) -> list[str]:
        chain = self.scribe.chain_id.hex()
        return [each["kind"] for each in status(self.collector.place)["alarms"] if each["chain"] == chain]


def two(name: str) -> tuple[Scribe, Scribe]:
    """Twins with one past: an epoch of a sealed segment and two entries of the next."""
    both = Scribe(name), Scribe(name)
    for each in both:
        each.open()
        each.decision()
        each.seal("count")
        each.decision()
        each.decision()
    return both


def of(scribe: Scribe, first: int) -> list[Record]:
    """What it wrote from the record with this number on."""
    return scribe.records[first:]


def test_a_chain_of_everything_arrives_however_it_is_cut(collector: Collecting) -> None:
    single = Sender(Scribe("single"), collector)
    s = single.scribe
    s.open()
    s.policy()
    s.seal("count")
    s.decision()
    s.seal("time")
    s.seal("time")
    s.close()
    s.open()
    s.head()
    attached, *rest = s.records
    assert attached.kind is Kind.ATTACHMENT and single.refused(rest[-3:]) == "GAP"
    assert single.refused(rest) == "GAP"  # the bundle that POLICY names did not come with it
    for each in rest:
        for _ in range(2):
            single.ship([attached, each])
    assert single.held().leaf == s.leaf
    whole = Sender(story(), collector)
    records = whole.scribe.records
    found = whole.ship(records)
    assert (found.segment, found.seq) == (whole.scribe.segment, whole.scribe.seq)
    assert whole.held().leaf == whole.scribe.leaf and whole.held().seq == whole.scribe.seq - 1
    assert whole.ship(records).seq == found.seq  # said twice
    assert whole.ship(records[3:9]).seq == found.seq
    assert single.alarms() == whole.alarms() == []


def test_attack_7_two_run_on_as_one(collector: Collecting) -> None:
    ours, theirs = two("cloned")
    sender, clone = Sender(ours, collector), Sender(theirs, collector)
    sender.ship(ours.records)
    mark = len(ours.records)
    ours.decision("ALLOW")
    theirs.decision("DENY")
    for each in (ours, theirs):
        each.head()
    sender.ship(of(ours, mark))
    assert clone.refused(of(theirs, mark)) == "FORK"
    assert clone.refused(of(theirs, mark)) == "FORK"
    theirs.decision("DENY")
    assert clone.refused(of(theirs, mark + 2)) == "FORK"  # goes on from what is not held
    assert sender.alarms() == ["FORK", "FORK"]  # one for each parcel kept, none for the repetition
    mark = len(ours.records)
    ours.seal("count")
    sender.ship(of(ours, mark))
    assert sender.held().segment == ours.segment
    kept = list((collector.place / "store" / "objects" / "evidence").iterdir())
    assert len(kept) >= 2


def test_attack_7_an_old_copy_starts_again(collector: Collecting) -> None:
    ours, theirs = two("restored")
    sender, old = Sender(ours, collector), Sender(theirs, collector)
    ours.decision()
    ours.seal("count")
    sender.ship(ours.records)
    mark = len(theirs.records)
    theirs.crash()
    theirs.open()
    assert old.refused([each for each in of(theirs, mark) if each.kind is not Kind.HEAD]) == "ROLLBACK"
    assert sender.alarms() == ["ROLLBACK"]
    assert sender.held().leaf == ours.leaf


def test_attack_9_a_second_chain_of_one_identity(collector: Collecting) -> None:
    Sender(Scribe("twice"), collector)
    with pytest.raises(CollectorRefused) as refusal:
        Sender(Scribe("twice", nonce=bytes(32)), collector)
    assert refusal.value.code == "CLONE"
    first = Scribe("twice")
    assert [e["kind"] for e in status(collector.place)["alarms"] if e["chain"] == first.chain_id.hex()] == ["CLONE"]


def test_attack_11_the_identity_key_rewrites_everything(collector: Collecting) -> None:
    ours, theirs = Scribe("stolen"), Scribe("stolen")
    ours.open()
    theirs.open(seed=bytes(range(32)))
    for each in (ours, theirs):
        each.decision()
        each.seal("count")
    sender, thief = Sender(ours, collector), Sender(theirs, collector)
    sender.ship(ours.records)
    assert thief.refused(theirs.records) == "ROLLBACK"
    assert sender.alarms() == ["ROLLBACK"]
    assert sender.held().leaf == ours.leaf


def test_attack_14_an_empty_segment_left_out(collector: Collecting) -> None:
    s = Scribe("gap")
    s.open()
    s.seal("time")
    s.seal("time")
    s.decision()
    s.head()
    sender = Sender(s, collector)
    seals = [each for each in s.records if each.kind is Kind.SEAL]
    assert sender.refused([each for each in s.records if each is not seals[1]]) == "MALFORMED"
    assert sender.held().seq is None
    sender.ship(s.records)
    assert sender.alarms() == []


def test_attack_34_a_conflicting_seal_that_nobody_signed(collector: Collecting) -> None:
    ours, theirs = two("unsigned")
    sender = Sender(ours, collector)
    mark = len(ours.records)
    sender.ship(ours.records)
    theirs.signing[theirs.segment] = signing_key("mallory")
    theirs.seal("count", count=1)
    forged = of(theirs, mark)
    assert sender.refused(forged) == "WRONG_KEY"  # the identity key vouches for it, the segment's does not
    assert sender.refused(forged, signing_key("mallory")) == "WRONG_KEY"
    assert sender.refused(ours.records, signing_key("mallory")) == "WRONG_KEY"
    ours.seal("count")
    sender.ship(of(ours, mark))
    assert sender.alarms() == []


@pytest.mark.parametrize(
    ("changed", "code"),
    [({"count": 2**63}, "GAP"), ({"root": bytes(32)}, "FORK"), ({"last": bytes(32)}, "FORK"), ({"first": 0}, "FORK")],
)
def test_a_seal_of_other_entries(collector: Collecting, changed: dict[str, object], code: str) -> None:
    s, _ = two(f"seal {changed}")
    sender = Sender(s, collector)
    sender.ship(s.records)
    mark = len(s.records)
    s.seal("count", **changed)
    assert sender.refused(of(s, mark)) == code
    assert sender.alarms() == ([] if code == "GAP" else [code])
    assert sender.held().seq == s.seq - 1


def test_what_is_too_large_or_no_parcel(collector: Collecting) -> None:
    sender = Sender(Scribe("sizes"), collector)
    bomb = zlib.compress(MAGIC + bytes(16 * MAX_RECORDS_BYTES), 9)
    assert len(bomb) < 2_000_000
    assert sender.refused(bomb) == "OVERSIZE"
    assert sender.refused(pack([(Kind.ATTACHMENT, b"")] * 20_001)) == "OVERSIZE"
    for parcel in (b"", b"x", pack([])[:-1], pack([]) + b"x", zlib.compress(b"SDCSEG\0\2")):
        assert sender.refused(parcel) == "MALFORMED"
    with pytest.raises(CollectorUnavailable):
        sender.send(bytes(11_000_000))
    assert sender.held().seq is None
    with pytest.raises(CollectorRefused, match="UNKNOWN_CHAIN"):
        sender.link.where(bytes(32))
    with pytest.raises(CollectorRefused, match="MALFORMED"):
        sender.link.where(b"")


def test_bombs_within_a_parcel(collector: Collecting) -> None:
    """A payload or an attachment that inflates without end is refused for what it says it is, and never unfolded."""
    s, _ = two("bombs")
    sender = Sender(s, collector)
    bomb = zlib.compress(bytes(10_000_000), 9)
    at = next(i for i, each in enumerate(s.records) if each.kind is Kind.ENTRY and each.seq == 2)
    body = s.records[at].body
    for codec, stored in ((1, bomb), (1, bomb[:-4]), (2, b"x"), (1, b""), (0, bytes(1_000_000))):
        spoilt = Record(Kind.ENTRY, body[:248] + bytes([codec]) + stored, 0, 2)
        assert sender.refused([*s.records[:at], spoilt, *s.records[at + 1 :]]) == "MALFORMED"
    huge = bytearray(body)
    huge[128:132] = b"\xff\xff\xff\xff"  # payload_len
    assert sender.refused([*s.records[:at], Record(Kind.ENTRY, bytes(huge), 0, 2)]) == "MALFORMED"
    for claimed in (12_000_000, 2**32 - 1):
        framed = bytes([Kind.ATTACHMENT]) + claimed.to_bytes(4, "big") + bytes(12_000_000)
        assert sender.refused(zlib.compress(MAGIC + framed)) == "MALFORMED"
    assert sender.held().seq is None
    sender.ship(s.records)
    assert sender.held().leaf == s.leaf and sender.alarms() == []


def test_each_byte_of_a_record_spoilt_is_refused(collector: Collecting) -> None:
    """Under a good signature of the parcel: whoever has the identity key gets nothing in that is not a chain."""
    s, _ = two("spoilt")
    s.seal("count")
    sender = Sender(s, collector)
    codes = set()
    for number, each in enumerate(s.records):
        for at in range(0, len(each.body), max(1, len(each.body) // 12)):
            spoilt = [
                *s.records[:number],
                Record(each.kind, flip(each.body, at), each.segment),
                *s.records[number + 1 :],
            ]
            codes.add(sender.refused(spoilt))
    assert codes <= {"MALFORMED", "WRONG_KEY", "FORK", "ROLLBACK", "GAP"}
    assert sender.held().seq is None
    sender.ship(s.records)
    assert sender.held().leaf == s.leaf


def test_a_thousand_connections_that_say_nothing(collector: Collecting) -> None:
    host, _, port = collector.address.rpartition(":")
    opened = [socket.create_connection((host, int(port)), timeout=20) for _ in range(1_000)]
    try:
        s, _ = two("quiet")
        sender = Sender(s, collector)
        sender.ship(s.records)
        assert sender.held().leaf == s.leaf
    finally:
        for each in opened:
            with closing(each):
                pass


def rolled(sender: Sender) -> bytes:
    """The receipt of a roll-call that names all that is held."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found = sender.link.receipts(sender.scribe.chain_id, [], 0).roll_call
        answer = Logged.parse(TlogProof.parse(found).extra or b"").answer if found else None
        if answer is not None and answer.standing.seq == sender.held().seq:
            return found
        time.sleep(0.05)
    raise AssertionError("no roll-call names it")


def offline(sender: Sender, records: Sequence[Record], *logged: bytes) -> Report:
    """What an auditor finds, who has trust.json and these receipts."""
    done = sidecar("collector", "trust", "--data-dir", sender.collector.place, "--dev")
    return judge(records, Evidence(trust=parse_trust(done.stdout.encode()), logged=list(logged)))


def test_attack_4_an_open_tail_cut_whose_head_was_shipped(collector: Collecting) -> None:
    whole, shorter = two("tail")
    shorter.head()
    for _ in range(2):
        whole.decision()
    whole.head()
    sender = Sender(whole, collector)
    sender.ship(whole.records)
    receipt = rolled(sender)
    report = offline(sender, shorter.records, receipt)
    assert report.verdict is Verdict.INCOMPLETE, report.findings
    bad = report.first_bad()
    assert bad is not None and bad.seq == whole.seq - 1  # which the collector had
    # What is after the last seal is under no receipt yet, and the report says so.
    report = offline(sender, whole.records, receipt)
    assert report.verdict is Verdict.UNANCHORED, report.findings


def test_attack_5_an_open_tail_cut_that_nobody_has_seen(collector: Collecting) -> None:
    seen, lost = two("unseen")
    seen.head()
    sender = Sender(seen, collector)
    sender.ship(seen.records)
    lost.decision()
    lost.head()
    report = offline(sender, seen.records, rolled(sender))
    assert report.verdict is Verdict.UNANCHORED, report.findings


def test_attack_6_a_tail_cut_and_the_sidecar_started_again(collector: Collecting) -> None:
    """Where the collector held the tail it is a ROLLBACK; where nobody did, the chain goes on without an alarm."""
    ours, _ = two("restarted")
    sender = Sender(ours, collector)
    ours.head()
    sender.ship(ours.records)
    mark = len(ours.records)
    ours.seal("crash")  # at the very entry that the collector holds
    ours.open()
    ours.head()
    sender.ship(ours.records[mark - 1 :])
    assert sender.alarms() == [] and sender.held().leaf == ours.leaf
    cut = Scribe("restarted")
    cut.open()
    cut.decision()
    cut.seal("count")
    cut.decision()
    mark = len(cut.records)
    cut.crash()
    assert sender.refused(cut.records[mark:]) == "ROLLBACK"
    assert sender.alarms() == ["ROLLBACK"]


def test_a_public_client_follows_the_log(collector: Collecting) -> None:
    s, _ = two("public")
    s.close()
    sender = Sender(s, collector)
    sender.ship(s.records)
    rolled(sender)
    command = [built(CLIENT), collector.url, collector.key]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    entries = json.loads(done.stdout)["entries"]
    notes = [note.parse(each.body).text for each in s.records if each.kind in (Kind.EPOCH, Kind.SEAL)]
    assert set(notes) <= set(entries) and len(set(entries)) == len(entries)


def test_the_store_is_as_it_was_taken(collector: Collecting, tmp_path: Path) -> None:
    done = sidecar("collector", "verify", "--data-dir", collector.place, "--dev", "--workers", "2")
    assert done.returncode == 0, done.stdout + done.stderr
