"""The fleet log: what it promises when it grows, starts, fails, is restored from a backup, or is not alone."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from sidecar.chain import checkpoint, cosignature, merkle, note, tile
from sidecar.chain.batch import Batch
from sidecar.chain.checkpoint import Checkpoint
from sidecar.chain.consistency import Consistency
from sidecar.chain.epoch import EpochNote
from sidecar.chain.logged import Logged, entry_of
from sidecar.chain.note import SignedNote, VerifierKey
from sidecar.chain.rollcall import Standing
from sidecar.chain.seal import seal_hash
from sidecar.chain.tlog_proof import TlogProof
from sidecar.collector import FleetLog, objects, published, reindex
from sidecar.collector.index import open_sqlite
from sidecar.collector.index.sql import SqlIndex
from sidecar.collector.roll import call_roll
from sidecar.collector.storage import FileStorage, Storage
from sidecar.errors import LogRefused, Malformed, StorageError
from tests.collector.memory import MemoryStorage
from tests.scribe import public, secret, signing_key, story

ORIGIN = "log.example.org/fleet"
KEY = signing_key("log")
VKEY = VerifierKey(ORIGIN, public(KEY))
STORY = story()
REAL = [STORY.notes[0], *(STORY.seals[i] for i in sorted(STORY.seals))]
_EPOCH = EpochNote.parse(note.parse(STORY.notes[0]).text)
_IDENTITY = signing_key("fleet")


def notes(count: int, first: int = 0) -> list[bytes]:
    """As many different epoch notes."""
    texts = (dataclasses.replace(_EPOCH, config=secret("note", i)).text() for i in range(first, first + count))
    return [note.sign(text, "somebody", _IDENTITY) for text in texts]


@pytest.fixture
def index(tmp_path: Path):
    with_index = open_sqlite(tmp_path / "index.db")
    yield with_index
    with_index.close()


def fresh(tmp_path: Path, name: str) -> SqlIndex:
    return open_sqlite(tmp_path / f"{name}.db")


def whole(storage: Storage, signed: bytes) -> list[bytes]:
    """The entries of a log, read from its bundles and held against the checkpoint and every tile."""
    tip, _ = checkpoint.verify(signed, VKEY)
    entries: list[bytes] = []
    for number in range(-(-tip.size // 256)):
        which = tile.Tile(None, number, tile.width_at(0, number, tip.size))
        found = published(storage, signed, which.path())
        assert found is not None
        entries += tile.split_entries(found[0])
    assert len(entries) == tip.size
    for which, data in tile.Edge(0, lambda level, number: []).grow([merkle.leaf_hash(e) for e in entries]):
        assert published(storage, signed, which.path()) == (data, "application/octet-stream")
    tree = merkle.Tree()
    for each in entries:
        tree.append(merkle.leaf_hash(each))
    assert tree.root() == tip.root
    return entries


def test_it_grows_and_proves(index: SqlIndex) -> None:
    storage = MemoryStorage()
    log = FleetLog(storage, index, ORIGIN, KEY)
    assert (log.number, log.tip.size, log.signed) == (-1, 0, b"")
    assert published(storage, log.signed, "checkpoint") is None
    signed: list[bytes] = []
    for count in (1, 255, 1, 300, 40):
        wanted = notes(count, first=log.tip.size)
        taken = log.append(wanted)
        assert [t.position for t in taken] == list(range(log.tip.size - count, log.tip.size))
        signed.append(log.signed)
    entries = whole(storage, log.signed)
    assert entries == [entry_of(each) for each in notes(597)]
    for position in (0, 255, 256, 300, 596):
        proof = TlogProof.parse(log.receipt(position, Logged.parse(entries[position])))
        proof.verify(merkle.leaf_hash(entries[position]), checkpoint.verify(proof.checkpoint, VKEY)[0])
    for older in signed:
        old, _ = checkpoint.verify(older, VKEY)
        file = Consistency.parse(log.consistency(old.size))
        merkle.verify_consistency(old.size, 597, old.root, log.tip.root, file.proof)
        assert TlogProof.parse(log.receipt(0, Logged.parse(entries[0]), older)).checkpoint == older
    assert Consistency.parse(log.consistency(0)).proof == ()
    with pytest.raises(IndexError):
        log.receipt(1, Logged.parse(entries[1]), signed[0])


def test_a_text_is_logged_once(index: SqlIndex) -> None:
    storage = MemoryStorage()
    log = FleetLog(storage, index, ORIGIN, KEY)
    first = log.append(REAL)
    again = note.sign(entry_of(REAL[2]).decode(), "another", KEY)
    assert log.append([again, *reversed(REAL)]) == [first[2], *reversed(first)]
    assert log.number == 0 and log.tip.size == len(REAL)
    (twice, also) = log.append(notes(1) * 2)
    assert twice == also and log.tip.size == len(REAL) + 1


@pytest.mark.parametrize("bad", [b"", b"no note", STORY.receipt(5), entry_of(REAL[1])])
def test_what_it_does_not_take_takes_nothing_else_with_it(index: SqlIndex, bad: bytes) -> None:
    storage = MemoryStorage()
    log = FleetLog(storage, index, ORIGIN, KEY)
    with pytest.raises(Malformed):
        log.append([REAL[0], bad])
    assert storage.objects == {} and log.tip.size == 0


def test_more_than_one_batch_holds(index: SqlIndex) -> None:
    log = FleetLog(MemoryStorage(), index, ORIGIN, KEY)
    log.append(notes(5_000))
    assert log.number == 1 and log.tip.size == 5_000


def test_retention_is_asked_for_all_but_what_can_be_made_again(index: SqlIndex) -> None:
    storage = MemoryStorage()
    FleetLog(storage, index, ORIGIN, KEY, keep_until=lambda: 1_900_000_000).append(notes(300))
    assert {name for name, until in storage.kept.items() if until is None} == {
        "log/tile/0/001.p/44",
        "log/tile/1/000.p/1",
        "log/tile/entries/001.p/44",
    }


def test_parts_of_a_filled_tile_are_removed_and_older_trees_are_still_proved(index: SqlIndex) -> None:
    """Without that a log that grows by single entries would take a hundred times what is in it."""
    storage = MemoryStorage()
    log = FleetLog(storage, index, ORIGIN, KEY)
    sizes = []
    for first in range(0, 520, 40):
        log.append(notes(40, first))
        sizes.append(log.tip.size)
    for first in range(520, 530):  # a few at a time
        log.append(notes(1, first))
    parts = {name for name in storage.objects if ".p/" in name}
    assert not [name for name in parts if re.search(r"/(0|entries)/00[01]\.p/", name)]
    assert "log/tile/entries/002.p/18" in parts
    again = FleetLog(storage, index, ORIGIN, KEY)  # nothing of it in memory
    for size in sizes[:-1]:
        joined = Consistency.parse(again.consistency(size, again.signed))
        newest = checkpoint.verify(again.signed, log.key)[0]
        older = checkpoint.verify(storage.objects[f"log/checkpoint/{sizes.index(size):03}"], log.key)[0]
        merkle.verify_consistency(size, newest.size, older.root, newest.root, joined.proof)
        # Who began to read while the log grew still finds the tree of then.
        read = objects.Tiles(storage).at(size)
        assert merkle.Tree(size, tile.peaks(size, read)).root() == older.root


def test_parts_that_cannot_be_removed_stop_nothing(index: SqlIndex) -> None:
    class Keeping(MemoryStorage):
        def remove(self, name: str) -> None:
            raise StorageError("kept")

    storage = Keeping()
    log = FleetLog(storage, index, ORIGIN, KEY)
    log.append(notes(200))
    log.append(notes(200, 200))
    log.append(notes(1, 400))
    assert log.tip.size == 401 and "log/tile/entries/000.p/200" in storage.objects


# --- failing


def steps(count: int) -> int:
    storage = MemoryStorage()
    index = open_sqlite(Path(":memory:"))
    FleetLog(storage, index, ORIGIN, KEY).append(notes(count))
    index.close()
    return storage.created


POINTS = [(200, 100, at) for at in range(steps(300))]


@pytest.mark.parametrize("how", ["failed", "persisted"])
@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize(("before", "count", "at"), POINTS)
def test_each_write_point(tmp_path: Path, how: str, restart: bool, before: int, count: int, at: int) -> None:
    """A creation fails, persisted or not; the log goes on, or is opened anew: nothing is lost, doubled or forked."""
    storage, index = MemoryStorage(), fresh(tmp_path, "index")
    log = FleetLog(storage, index, ORIGIN, KEY)
    log.append(notes(before))
    earlier = log.signed
    storage.fault = lambda number, name: how if number == reached + at else None
    reached = storage.created
    with pytest.raises(StorageError):
        log.append(notes(count, before))
    storage.fault = lambda number, name: None
    whole(storage, log.signed)
    if restart:
        log = FleetLog(storage, index, ORIGIN, KEY, known=[earlier])
        whole(storage, log.signed)
    # Others come first, then the ones that failed.
    log.append(notes(10, 10_000))
    taken = log.append(notes(count, before))
    entries = whole(storage, log.signed)
    assert sorted(entries) == sorted(entry_of(each) for each in [*notes(before + count), *notes(10, 10_000)])
    assert [entries[t.position] for t in taken] == [entry_of(each) for each in notes(count, before)]
    old, _ = checkpoint.verify(earlier, VKEY)
    proof = Consistency.parse(log.consistency(old.size)).proof
    merkle.verify_consistency(old.size, log.tip.size, old.root, log.tip.root, proof)
    assert reindex(storage, index, VKEY) == len(entries)
    index.close()


class FailingIndex(SqlIndex):
    """An index whose next `advance` fails, before or after it happened."""

    how: str | None = None

    def advance(self, *args):  # type: ignore[no-untyped-def]
        how, self.how = self.how, None
        if how == "failed":
            raise StorageError("failed")
        done = super().advance(*args)
        if how == "persisted":
            raise StorageError("failed, and it persisted")
        return done


@pytest.mark.parametrize("how", ["failed", "persisted"])
@pytest.mark.parametrize("restart", [False, True])
def test_an_index_that_fails_after_the_checkpoint(tmp_path: Path, how: str, restart: bool) -> None:
    storage, plain = MemoryStorage(), fresh(tmp_path, "index")
    index = FailingIndex(plain._database)
    log = FleetLog(storage, index, ORIGIN, KEY)
    log.append(notes(3))
    index.how = how
    with pytest.raises(StorageError):
        log.append(notes(4, 3))
    if restart:
        log = FleetLog(storage, index, ORIGIN, KEY)
    assert [t.position for t in log.append(notes(4, 3))] == [3, 4, 5, 6]
    assert len(whole(storage, log.signed)) == 7
    index.close()


# --- starting


def test_it_starts_where_it_stopped_also_without_its_index(tmp_path: Path, index: SqlIndex) -> None:
    storage = FileStorage(tmp_path / "store")
    log = FleetLog(storage, index, ORIGIN, KEY)
    for at in range(20):
        log.append(notes(30, 30 * at))
    for found in (index, fresh(tmp_path, "new")):
        again = FleetLog(storage, found, ORIGIN, KEY, known=[log.signed])
        assert (again.number, again.tip, again.signed) == (19, log.tip, log.signed)
        assert [t.position for t in again.append(notes(5, 17))] == [17, 18, 19, 20, 21]
        if found is not index:
            found.close()


def backed_up(index: SqlIndex) -> tuple[dict[str, bytes], FleetLog]:
    """A copy of the objects of three entries, and the log that went on to six."""
    storage = MemoryStorage()
    log = FleetLog(storage, index, ORIGIN, KEY)
    log.append(notes(3))
    old = dict(storage.objects)
    log.append(notes(3, 3))
    return old, log


def test_an_old_copy_of_the_objects_with_the_index(index: SqlIndex) -> None:
    old, _ = backed_up(index)
    with pytest.raises(LogRefused, match="old copy"):
        FleetLog(MemoryStorage(old), index, ORIGIN, KEY)


def test_an_old_copy_of_everything_but_what_a_witness_knows(tmp_path: Path, index: SqlIndex) -> None:
    old, log = backed_up(index)
    with pytest.raises(LogRefused, match="old copy"):
        FleetLog(MemoryStorage(old), fresh(tmp_path, "a"), ORIGIN, KEY, known=[log.signed])
    # Continued without being told, it has forked, and whoever holds the old checkpoint shows it.
    forked = FleetLog(MemoryStorage(old), fresh(tmp_path, "b"), ORIGIN, KEY)
    forked.append(notes(9, 90))
    with pytest.raises(LogRefused, match="forked"):
        FleetLog(MemoryStorage(old), fresh(tmp_path, "c"), ORIGIN, KEY, known=[log.signed])


def test_a_batch_that_waits_is_not_signed_where_it_contradicts_a_known_checkpoint(tmp_path: Path) -> None:
    old, log = backed_up(fresh(tmp_path, "a"))
    waiting = Batch(1, 3, checkpoint.verify(old["log/checkpoint/000"], VKEY)[0].root, tuple(notes(4, 50)))
    old["log/batch/001"] = waiting.encode(KEY)
    with pytest.raises(LogRefused, match="forked"):
        FleetLog(MemoryStorage(old), fresh(tmp_path, "b"), ORIGIN, KEY, known=[log.signed])
    assert "log/checkpoint/001" not in old


def test_a_batch_put_there_by_somebody_else_is_never_signed(tmp_path: Path, index: SqlIndex) -> None:
    """Who can write to the store, and has no key, cannot have the log vouch for what it never checked."""
    storage = MemoryStorage()
    log = FleetLog(storage, index, ORIGIN, KEY)
    log.append(notes(3))
    forged = Batch(1, 3, log.tip.root, tuple(notes(2, 50)))
    storage.objects["log/batch/001"] = forged.encode(signing_key("mallory"))
    with pytest.raises(StorageError, match="does not verify"):
        log.append(notes(1, 3))
    with pytest.raises(StorageError, match="does not verify"):
        FleetLog(storage, index, ORIGIN, KEY)
    assert "log/checkpoint/001" not in storage.objects


def test_anothers_key_origin_or_checkpoint(tmp_path: Path, index: SqlIndex) -> None:
    storage = MemoryStorage()
    log = FleetLog(storage, index, ORIGIN, KEY)
    log.append(notes(3))
    with pytest.raises(LogRefused):
        FleetLog(storage, fresh(tmp_path, "a"), ORIGIN, signing_key("other"))
    with pytest.raises(LogRefused):
        FleetLog(storage, fresh(tmp_path, "b"), "log.example.org/other", KEY)
    with pytest.raises(LogRefused):
        FleetLog(storage, index, ORIGIN, KEY, known=[checkpoint.sign(log.tip, signing_key("other"))])


DAMAGE = ["log/tile/0/000.p/3", "log/tile/entries/000.p/3", "log/checkpoint/000"]


@pytest.mark.parametrize("name", DAMAGE)
@pytest.mark.parametrize("how", ["gone", "changed", "cut"])
def test_damaged_objects(tmp_path: Path, name: str, how: str) -> None:
    storage = MemoryStorage()
    FleetLog(storage, fresh(tmp_path, "a"), ORIGIN, KEY).append(notes(3))
    data = storage.objects.pop(name)
    if how != "gone":
        storage.objects[name] = data[:-1] if how == "cut" else bytes([data[0] ^ 1]) + data[1:]
    if (name, how) == ("log/checkpoint/000", "gone"):
        # It is as if the batch was never signed: signed again, it is the same.
        assert FleetLog(storage, fresh(tmp_path, "b"), ORIGIN, KEY).signed == data
        return
    with pytest.raises((LogRefused, StorageError)):
        FleetLog(storage, fresh(tmp_path, "b"), ORIGIN, KEY)


def test_a_tile_exchanged_while_it_runs_is_never_signed_over(index: SqlIndex) -> None:
    storage = MemoryStorage()
    log = FleetLog(storage, index, ORIGIN, KEY)
    log.append(notes(3))
    storage.objects["log/tile/0/000.p/3"] = bytes(96)
    with pytest.raises(LogRefused, match="do not extend"):
        log.append(notes(1, 3))
    assert "log/checkpoint/001" not in storage.objects


def test_an_object_in_the_place_of_a_tile(index: SqlIndex) -> None:
    storage = MemoryStorage({"log/tile/0/000.p/3": bytes(96)})
    with pytest.raises(StorageError, match="other bytes"):
        FleetLog(storage, index, ORIGIN, KEY).append(notes(3))


@pytest.mark.parametrize("place", [0, 2, 3, 2**62])
def test_a_poisoned_index_is_not_believed(index: SqlIndex, place: int) -> None:
    """It says that an entry is logged which is not, or is elsewhere."""
    log = FleetLog(MemoryStorage(), index, ORIGIN, KEY)
    log.append(notes(3))
    (strange,) = notes(1, 99)
    with index._database.transaction() as t:
        t.run("INSERT INTO position VALUES (?, ?)", (merkle.leaf_hash(entry_of(strange)), place))
    with pytest.raises(StorageError, match="reindex"):
        log.append([strange])
    assert [t.position for t in log.append(notes(3))] == [0, 1, 2]


# --- two at once


def test_two_logs_on_one_storage_take_turns(tmp_path: Path) -> None:
    storage = MemoryStorage()
    index = fresh(tmp_path, "index")
    one, two = (FleetLog(storage, index, ORIGIN, KEY) for _ in range(2))
    places = []
    for at in range(6):
        places += [t.position for t in (one, two)[at % 2].append(notes(7, 7 * at))]
    assert places == list(range(42)) and one.tip.size <= 42 == two.tip.size
    assert whole(storage, two.signed) == [entry_of(each) for each in notes(42)]
    index.close()


def test_a_second_log_wins_the_batch_in_between(tmp_path: Path) -> None:
    """The other log creates the same batch between our look and our creation."""
    storage = MemoryStorage()
    index = fresh(tmp_path, "index")
    one, two = (FleetLog(storage, index, ORIGIN, KEY) for _ in range(2))
    busy: list[int] = []

    def intrude(number: int, name: str) -> None:
        if name == "log/batch/000" and not busy:
            busy.append(number)
            two.append(notes(5, 100))

    storage.fault = intrude
    taken = one.append(notes(3))
    assert [t.position for t in taken] == [5, 6, 7] and len(whole(storage, one.signed)) == 8
    index.close()


# --- the roll, the index


def test_the_roll_is_called(index: SqlIndex) -> None:
    storage = MemoryStorage()
    log = FleetLog(storage, index, ORIGIN, KEY)
    log.append(REAL)
    standings = [Standing(secret("chain", i), 1, i, secret("seal", i), None, None, None) for i in range(20)]
    for each in standings:
        assert index.stand(each, 0)
    roll = call_roll(storage, index.standings, ORIGIN, lambda: 1_800_000_000)
    (taken,) = log.append([roll.call.text().encode()])
    assert roll.standings == tuple(sorted(standings, key=lambda s: s.chain_id))
    for at in range(20):
        proof = TlogProof.parse(log.receipt(taken.position, Logged(roll.call, roll.call.text(), roll.answer(at))))
        assert proof.extra is not None
        said = Logged.parse(proof.extra)
        assert said.answer is not None
        said.answer.verify(roll.call)
        assert said.chain_id == roll.standings[at].chain_id


def test_reindex_gives_the_same_index_and_what_the_log_says_of_each_chain(tmp_path: Path, index: SqlIndex) -> None:
    storage = MemoryStorage()
    log = FleetLog(storage, index, ORIGIN, KEY)
    log.append([*REAL, *notes(300)])
    head = Standing(STORY.chain_id, 2, 5, seal_hash(note.parse(STORY.seals[5]).text), 18, STORY.leaf_of(18), 5)
    index.stand(head, 0)
    log.append([call_roll(storage, index.standings, ORIGIN, lambda: 1_800_000_000).call.text().encode()])
    poisoned = fresh(tmp_path, "poisoned")
    assert reindex(storage, poisoned, VKEY) == log.tip.size
    assert poisoned.tip() == index.tip()
    leaves = [merkle.leaf_hash(each) for each in whole(storage, log.signed)]
    assert poisoned.positions(leaves) == index.positions(leaves) == {leaf: i for i, leaf in enumerate(leaves)}
    assert list(poisoned.standings()) == list(index.standings())
    poisoned.close()


@pytest.mark.parametrize("name", ["log/batch/000", "log/batch/001", "log/checkpoint/000", "log/checkpoint/001"])
def test_reindex_finds_changed_objects(tmp_path: Path, index: SqlIndex, name: str) -> None:
    storage = MemoryStorage()
    log = FleetLog(storage, index, ORIGIN, KEY)
    log.append(REAL)
    log.append(notes(3))
    data = storage.objects[name]
    for at in range(0, len(data), 97):
        storage.objects[name] = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises((LogRefused, StorageError)):
            reindex(storage, index, VKEY)


def test_sizes_of_runs() -> None:
    for last in range(-1, 40):
        for known in (-1, last // 2, last):
            assert objects.newest(lambda n, last=last: n <= last, known) == last


def test_an_empty_checkpoint_is_never_signed(index: SqlIndex) -> None:
    log = FleetLog(MemoryStorage(), index, ORIGIN, KEY)
    assert log.append([]) == [] and log.tip == Checkpoint(ORIGIN, 0, merkle.EMPTY_ROOT)


# --- cosignatures


def test_cosignatures_are_kept_with_their_checkpoint(tmp_path: Path, index: SqlIndex) -> None:
    storage = FileStorage(tmp_path / "store")
    log = FleetLog(storage, index, ORIGIN, KEY)
    log.append(notes(3))
    older = log.signed
    one, two = (cosignature.cosign(log.tip.text(), f"w{i}.example", signing_key("w", i), 5) for i in range(2))
    assert log.cosigned(older, one) == log.signed != older
    again = cosignature.cosign(log.tip.text(), "w0.example", signing_key("w", 0), 6)
    assert log.cosigned(log.signed, again) == log.signed
    log.cosigned(older, two)
    both = note.parse(log.signed).signatures
    assert set(both[1:]) == {one, two} and note.encode(SignedNote(log.tip.text(), both[:1])) == older
    assert set(note.parse(FleetLog(storage, index, ORIGIN, KEY).signed).signatures) == set(both)
    late = cosignature.cosign(log.tip.text(), "w2.example", signing_key("w", 2), 7)
    cosigned = log.signed
    log.append(notes(1, 3))
    assert late in note.parse(log.cosigned(cosigned, late)).signatures
    assert len(note.parse(log.signed).signatures) == 1
    with pytest.raises(LogRefused):
        log.cosigned(checkpoint.sign(log.tip, signing_key("other")), late)
