"""Attacks that need a collector, through a running one and the verifier that has its receipts: verdict, segment, seq.

4 to 9, 11, 14, 34 and what the collector itself answers to them are in `tests/collector/test_ingest.py` and
`test_shipping.py`; 26's liars in `test_liars.py`. The last test here holds the whole list together.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from rfc3161_client import decode_timestamp_response

from sidecar.anchor.authority import check, roots_of
from sidecar.chain import note, strictjson
from sidecar.chain.checkpoint import Checkpoint
from sidecar.chain.entry import EntryType
from sidecar.chain.stream import Kind
from sidecar.chain.timestamp import Timestamp
from sidecar.chain.tlog_proof import TlogProof
from sidecar.ship.link import Proved
from sidecar.verify import Evidence, Verdict, parse_trust
from sidecar.verify.trust import Trust
from tests.anchor.parties import OpensslAuthority
from tests.attacks.expect import T, at, found, seal_of
from tests.collecting import Collecting, collecting
from tests.collector.test_ingest import Sender, rolled
from tests.program import sidecar
from tests.scribe import Scribe, judge

OK, U, INCOMPLETE, FORK = Verdict.OK, Verdict.UNANCHORED, Verdict.INCOMPLETE, Verdict.FORK
PATIENCE = 60.0  # seconds; only a failing test waits so long


def told(name: str, **changed: bytes) -> Scribe:
    """Three sealed segments, the middle one empty, ended in order: entries 0 to 2, none, 3 to 5."""
    s = Scribe(name, **changed)  # type: ignore[arg-type]
    s.open()
    s.decision()
    s.seal("count")
    s.seal("time")
    s.decision(proof="mtls")
    s.decision()
    s.close()
    return s


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collecting]:
    with collecting(tmp_path_factory.mktemp("attacks") / "collector") as running:
        yield running
        assert running.stop() == 0


class Kept:
    """A ledger that was shipped, and all that its sidecar was given for it, under one checkpoint."""

    def __init__(self, s: Scribe, collector: Collecting) -> None:
        self.scribe, self.sender = s, Sender(s, collector)
        self.sender.ship(s.records)
        self.roll = rolled(self.sender)
        self.proofs = self._proved().proofs
        done = sidecar("collector", "trust", "--data-dir", collector.place, "--dev")
        self.trust = parse_trust(done.stdout.encode())

    def _proved(self) -> Proved:
        notes = [note.parse(r.body).text.encode() for r in self.scribe.records if r.kind in (Kind.EPOCH, Kind.SEAL)]
        end = time.monotonic() + PATIENCE
        while True:
            found = self.sender.link.receipts(self.scribe.chain_id, notes, 0)
            if all(found.proofs) and found.roll_call:
                self.roll = found.roll_call
                return found
            assert time.monotonic() < end
            time.sleep(0.02)

    def evidence(self, trust: Trust | None = None, **more: object) -> Evidence:
        return Evidence(trust=trust or self.trust, logged=[*self.proofs, self.roll], **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def kept(collector: Collecting) -> Kept:
    made = Kept(told("kept"), collector)
    assert judge(made.scribe.records, made.evidence()).verdict is OK
    return made


def test_attack_3_a_sealed_tail_is_cut(kept: Kept) -> None:
    records = kept.scribe.records
    for segment in (0, 1):
        found(records[: seal_of(records, segment) + 1], INCOMPLETE, segment + 1, None, kept.evidence())


def test_attack_4_what_the_collector_had_of_an_open_tail(collector: Collecting) -> None:
    s = Scribe("open")
    s.open()
    s.seal("count")
    s.decision()
    s.decision()
    s.head()
    sender = Sender(s, collector)
    sender.ship(s.records)
    roll = rolled(sender)
    done = sidecar("collector", "trust", "--data-dir", collector.place, "--dev")
    evidence = Evidence(trust=parse_trust(done.stdout.encode()), logged=[roll])
    shorter = Scribe("open")
    shorter.open()
    shorter.seal("count")
    shorter.decision()
    shorter.head()
    found(shorter.records, INCOMPLETE, None, 3, evidence)  # a roll-call names entries, not their segments


def test_attack_8_an_old_copy_that_ends_in_close(collector: Collecting) -> None:
    s = told("older")
    kept = Kept(s, collector)
    old = list(s.records)
    s.open()
    s.close()
    kept.sender.ship(s.records[len(old) :])
    assert judge(old, kept.evidence()).verdict is OK  # up to the time of its own roll-call
    alone = Evidence(trust=kept.trust, logged=kept.proofs)
    assert judge(old, alone).verdict is U
    newer = replace(kept.evidence(), logged=[*kept.proofs, rolled(kept.sender)])
    found(old, INCOMPLETE, 3, None, newer)


def test_attack_9_a_new_genesis_under_the_same_identity(kept: Kept) -> None:
    other = told("kept", nonce=bytes(32))
    found(other.records, T, 0, 0, kept.evidence())


def test_attack_11_the_identity_key_rewrites_everything(kept: Kept) -> None:
    thief = Scribe("kept")
    thief.open(seed=bytes(range(32)))
    thief.decision("DENY")
    thief.seal("count")
    found(thief.records, T, 0, None, kept.evidence())
    assert judge(thief.records).verdict is U


def test_attack_14_an_empty_segment_is_dropped(kept: Kept) -> None:
    records = kept.scribe.records
    without = [each for i, each in enumerate(records) if i != seal_of(records, 1)]
    found(without, T, 1, None, kept.evidence())


def test_attack_19_a_wrong_agent_tag_that_the_collector_cannot_see(collector: Collecting) -> None:
    """It has no key; it takes it, and whoever has one finds it, under a receipt."""
    s = Scribe("wrong tag")
    s.open()
    value = strictjson.dumps(s.decision_value("ALLOW", "mtls"))
    seq = s.write(EntryType.DECISION, value, agent="somebody-else")
    s.close()
    kept = Kept(s, collector)
    assert judge(s.records, kept.evidence()).verdict is OK
    found(s.records, T, 0, seq, replace(kept.evidence(), open_seed=s.keyed.open_seed))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> OpensslAuthority:
    return OpensslAuthority.make(tmp_path_factory.mktemp("tsa") / "ours")


@pytest.mark.parametrize("what", ["other bytes", "another nonce"])
def test_attack_26_a_timestamp_that_does_not_fit_the_checkpoint(
    kept: Kept, authority: OpensslAuthority, what: str
) -> None:
    text = note.parse(TlogProof.parse(kept.roll).checkpoint).text
    asked = b"another" if what == "other bytes" else text.encode()
    response = authority.reply(authority.query(sha256(asked).digest()))
    nonce = decode_timestamp_response(response).tst_info.nonce
    stamp = Timestamp(text, nonce if what == "other bytes" else nonce ^ 1, response)
    roots = roots_of([authority.root])
    evidence = kept.evidence(timestamps=[stamp.encode()], check_timestamp=lambda each: check(each, roots))
    report = found(kept.scribe.records, T, None, None, evidence)
    assert [each.reason.startswith("timestamp 1:") for each in report.findings] == [True]


def test_attack_27_one_log_two_histories(tmp_path: Path) -> None:
    """Two collectors with one key and name: each shows its own tree, and the verifier who has both sees it."""
    s = told("split")
    with ExitStack() as stack:
        views = []
        for number in range(2):
            place = tmp_path / str(number)
            place.mkdir()
            if number:
                (place / "log-key.pem").write_bytes((tmp_path / "0" / "log-key.pem").read_bytes())
            view = stack.enter_context(collecting(place, COLLECTOR_ROLL_CALL_SECONDS="3600"))
            if number:
                Sender(told("another"), view).ship(told("another").records)
            sender = Sender(s, view)
            sender.ship(s.records)
            views.append(_sealed(sender, s, [size_of(each) for each in views]))
        trust = parse_trust(sidecar("collector", "trust", "--data-dir", view.place, "--dev").stdout.encode())
    apart = Evidence(trust=trust, logged=[each.proofs[0] for each in views])
    found(s.records, INCOMPLETE, None, None, apart)
    found(s.records, FORK, None, None, replace(apart, consistency=[views[1].consistency]))


def size_of(shown: Proved) -> int:
    return Checkpoint.parse(note.parse(TlogProof.parse(shown.proofs[0]).checkpoint).text).size


def _sealed(sender: Sender, s: Scribe, since: list[int]) -> Proved:
    """The receipt of the last seal, and what is said to prove that the log extends the tree of that size."""
    text = note.parse(s.seals[2]).text.encode()
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        shown = sender.link.receipts(s.chain_id, [text], *since or [0])
        if shown.proofs[0]:
            return shown
        time.sleep(0.02)
    raise AssertionError("no receipt")


def test_attack_28_receipts_of_a_collector_that_is_not_pinned(kept: Kept, tmp_path: Path) -> None:
    with collecting(tmp_path / "theirs") as theirs:
        other = Kept(told("kept"), theirs)
    records = kept.scribe.records
    assert judge(records, other.evidence()).verdict is OK
    found(records, T, 0, None, other.evidence(trust=kept.trust))
    assert judge(records, replace(other.evidence(), trust=None)).verdict is U
    mixed = replace(kept.evidence(), logged=[*kept.proofs, other.roll])
    assert judge(records, mixed).verdict is T


def test_attack_31_a_record_that_the_operator_leaves_out(collector: Collecting, tmp_path: Path) -> None:
    """What the collector hands out is held against what was logged: one entry less, and it is found, at its place."""
    kept = Kept(told("left out"), collector)
    records = kept.scribe.records
    without = [each for i, each in enumerate(records) if i != at(records, 4)]
    found(without, T, 2, 4, kept.evidence())


SHAPES: dict[str, Callable[[TlogProof], TlogProof]] = {
    "no path": lambda proof: replace(proof, path=()),
    "one hash less": lambda proof: replace(proof, path=proof.path[:-1]),
    "one hash more": lambda proof: replace(proof, path=(*proof.path, bytes(32))),
    "63 hashes": lambda proof: replace(proof, path=(bytes(32),) * 63),
    "beyond the tree": lambda proof: replace(proof, index=2**62),
    "the next entry's place": lambda proof: replace(proof, index=proof.index ^ 1),
}


@pytest.mark.parametrize("change", SHAPES.values(), ids=list(SHAPES))
def test_proofs_of_the_wrong_shape_prove_nothing(kept: Kept, change: Callable[[TlogProof], TlogProof]) -> None:
    for data in (kept.proofs[0], kept.roll):
        spoilt = change(TlogProof.parse(data)).encode()
        others = [each for each in (*kept.proofs, kept.roll) if each != data]
        report = judge(kept.scribe.records, replace(kept.evidence(), logged=[*others, spoilt]))
        assert report.verdict is T, report.findings


@pytest.mark.parametrize("count", [2**63, 2**64 - 1])
def test_a_seal_that_counts_more_entries_than_there_are(kept: Kept, count: int) -> None:
    """Signed as it must be: TAMPERED, and no longer to judge than any other."""
    s = Scribe("kept")
    s.open()
    s.decision()
    s.seal("count", count=count)
    found(s.records, T, 0, None, kept.evidence())


NEEDED = (3, 4, 6, 7, 8, 9, 11, 14, 19, 26, 27, 28, 29, 31, 34)


def test_each_attack_that_needs_a_collector_is_a_test() -> None:
    """The table is the names of the tests: `test_attack_<number>`, or `test_attacks_<number>_and_<number>`."""
    here = Path(__file__).resolve().parent.parent
    files = [path for room in ("attacks", "collector") for path in (here / room).glob("test_*.py")]
    text = "".join(f"def {path.name}\n{path.read_text()}" for path in files)
    names = re.findall(r"def test_attacks?_([0-9_and]+)", text)
    assert set(NEEDED) <= {int(number) for name in names for number in re.findall(r"[0-9]+", name)}
