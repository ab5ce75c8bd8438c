"""Reading for verification: the stream's order, segment files, hostile files, and what becomes of the reading child."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.chain import note
from sidecar.chain.limits import MAX_RECORD
from sidecar.chain.seal import Seal
from sidecar.chain.stream import MAGIC, Kind, record, records
from sidecar.errors import LedgerUnknown, Malformed, NotFound, SidecarError
from sidecar.ledger import ledger_stream
from sidecar.ledger.causes import DAMAGED, OVERTAKEN
from sidecar.ledger.reader import child_stream
from sidecar.verify import Evidence, verify_stream
from tests.ledger.worlds import PATIENCE, SECOND, World, decision, everything, loaded, naive_open, refused


def long_ledger(world: World) -> World:
    """Epochs 0 to 2; segment 1 rolls over by time, 2 is empty, 3 is crashed, 4 closed."""
    ledger, store = world.open_counted()
    ledger.append(loaded()).result(PATIENCE)
    for commits in (2, 3):
        world.clock.move(60 * SECOND)
        store.wait_for_commits(commits)
    ledger.append(decision(1)).result(PATIENCE)
    left = world.snapshot("long")
    ledger.close()
    left.open().close()
    return left


def test_the_stream_has_the_specified_order(world: World) -> None:
    left = long_ledger(world)
    epoch, entry, head, seal = Kind.EPOCH, Kind.ENTRY, Kind.HEAD, Kind.SEAL
    assert left.kinds() == [
        Kind.ATTACHMENT,
        epoch, entry, entry, entry, seal,
        epoch, entry, entry, seal,
        seal,
        entry, head, seal,
        epoch, entry, entry, seal,
    ]  # fmt: skip


def test_segment_files_carry_the_context_they_need(world: World) -> None:
    left = long_ledger(world)
    genesis, epoch, opening, before = Kind.GENESIS, Kind.EPOCH, Kind.OPEN, Kind.SEAL_BEFORE
    entry, head, seal = Kind.ENTRY, Kind.HEAD, Kind.SEAL
    bundle = Kind.ATTACHMENT
    assert left.kinds(0) == [epoch, entry, entry, entry, seal]
    assert left.kinds(1) == [genesis, epoch, before, bundle, entry, entry, seal]
    assert left.kinds(2) == [genesis, epoch, opening, before, bundle, seal]
    assert left.kinds(3) == [genesis, epoch, opening, before, bundle, entry, head, seal]
    assert left.kinds(4) == [genesis, epoch, before, bundle, entry, entry, seal]


def test_segment_files_verify(world: World) -> None:
    left = long_ledger(world)
    for segment in range(5):
        with ledger_stream(left.directory, segment) as read:
            report = verify_stream(read, Evidence(open_seed=naive_open))
        worse = [f for f in report.findings if f.verdict.name != "UNANCHORED"]
        assert report.verdict.name == "UNANCHORED" and not worse, (segment, worse)


def test_an_open_segment_ends_in_its_head(world: World) -> None:
    ledger = world.open()
    ledger.append(refused()).result(PATIENCE)
    assert world.kinds()[5:] == [Kind.EPOCH, Kind.ENTRY, Kind.ENTRY, Kind.HEAD]
    world.assert_verifies()
    for absent in (1, 2, 2**64 - 1, 2**70, -1):
        with ledger_stream(world.directory, absent) as read, pytest.raises(NotFound):
            everything(read)
    ledger.close()


def test_reading_beside_the_writer_gives_one_snapshot(world: World) -> None:
    ledger = world.open()
    receipts = [ledger.append(decision(n)).result(PATIENCE).receipt for n in range(20)]
    with ledger_stream(world.directory) as read:
        start = read(8)  # the child has its snapshot once the first byte is there
        for n in range(20, 200):
            ledger.append(decision(n)).result(PATIENCE)
        rest = iter([start])
        found = list(records(lambda n: next(rest, None) or read(n)))
    assert 24 <= sum(kind is Kind.ENTRY for kind, _ in found) <= 204
    assert found[-1][0] is Kind.HEAD
    ledger.close()
    world.assert_verifies(receipts)


def test_reads_of_any_size_give_the_same_bytes(world: World) -> None:
    ledger = world.open()
    ledger.append(decision(1, arguments='{"a":"' + "z" * 3_000_000 + '"}')).result(PATIENCE)
    ledger.append(decision(2, arguments=f'{{"a":"{os.urandom(1_200_000).hex()}"}}')).result(PATIENCE)
    ledger.close()
    with ledger_stream(world.directory) as read:
        whole = everything(read)
        assert read(1) == b""
    chooser = random.Random(7)
    with ledger_stream(world.directory) as read:
        pieces = []
        while piece := read(chooser.choice((1, 5, 700, 65_536, 3_000_000))):
            pieces.append(piece)
    assert b"".join(pieces) == whole and whole.startswith(MAGIC)


def test_a_reader_that_stops_early_leaves_no_child(world: World) -> None:
    ledger = world.open()
    ledger.append(decision(2, arguments=f'{{"a":"{os.urandom(3_000_000).hex()}"}}')).result(PATIENCE)
    ledger.close()
    before = children()
    with ledger_stream(world.directory) as read:
        assert read(8) == MAGIC and children() > before
    assert children() == before


def children() -> set[str]:
    """Processes that this thread started and that are still there, or not yet waited for."""
    return set(Path("/proc/thread-self/children").read_text().split())


UNPRIVILEGED = """
import os, sys
from sidecar.ledger.dump import main
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
sys.exit(main([sys.argv[1]]))
"""


def test_a_directory_that_cannot_be_written_is_read(public_place: Path, world: World) -> None:
    made = World(public_place / "ledger", world.custody)
    made.create()
    for file in made.directory.iterdir():
        file.chmod(0o444)
    made.directory.chmod(0o555)
    try:
        done = subprocess.run(
            [sys.executable, "-c", UNPRIVILEGED, str(made.directory)], capture_output=True, timeout=PATIENCE
        )
    finally:
        made.directory.chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in made.directory.iterdir()) == ["identity.pem", "ledger.mdb", "lock"]
    with ledger_stream(made.directory) as read:
        assert everything(read) == done.stdout


def test_a_reader_the_writer_does_not_know_of_notices_being_overtaken(public_place: Path, world: World) -> None:
    """Without a place in the lock file pages may change under the reader; then it says so, and gives no verdict."""
    made = World(public_place / "ledger", world.custody)
    made.create()
    made.directory.chmod(0o555)
    ledger = made.open()
    for n in range(30):
        ledger.append(decision(n, arguments=f'{{"a":"{os.urandom(50_000).hex()}"}}')).result(PATIENCE)
    for file in made.directory.iterdir():
        file.chmod(0o444)
    with subprocess.Popen(
        [sys.executable, "-c", UNPRIVILEGED, str(made.directory)], stdout=subprocess.PIPE, bufsize=0
    ) as child:
        assert child.stdout is not None
        assert child.stdout.read(8) == MAGIC  # it has its snapshot, and far more to write than a pipe holds
        for n in range(30, 34):
            ledger.append(decision(n)).result(PATIENCE)
        child.stdout.readall()
        code = child.wait(PATIENCE)
    made.directory.chmod(0o755)
    ledger.close()
    # LMDB itself may stumble over a page that is used again, before our own look at the end
    assert code in (OVERTAKEN, -signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS, DAMAGED)


@pytest.mark.parametrize(("overtaken", "error"), [(True, LedgerUnknown), (False, Malformed)])
def test_a_crash_says_nothing_against_a_ledger_that_was_written_to_meanwhile(
    overtaken: bool, error: type[Exception]
) -> None:
    crash = ["sh", "-c", "kill -ABRT $$"]
    with child_stream(crash, silence=30, overtaken=lambda: overtaken) as read, pytest.raises(error):
        read(1)


@pytest.mark.parametrize("how", ["symbolic", "hard", "none"])
def test_reading_a_hostile_directory_writes_to_nothing(tmp_path: Path, world: World, how: str) -> None:
    lock = world.directory / "ledger.mdb-lock"
    lock.unlink(missing_ok=True)
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    if how == "symbolic":
        lock.symlink_to(precious)
    elif how == "hard":
        lock.hardlink_to(precious)
    world.assert_verifies()
    assert precious.read_bytes() == b"precious"
    assert lock.exists() == (how != "none")


@pytest.mark.parametrize("gibibytes", [1, 3])
def test_a_record_longer_than_memory_is_malformed(world: World, gibibytes: int) -> None:
    """Attack 33: a value that claims gigabytes, and a file (with holes) that really has them."""
    ledger = world.open()
    ledger.append(decision(1, arguments=f'{{"a":"{os.urandom(20_000).hex()}"}}')).result(PATIENCE)
    left = world.snapshot("hostile")
    ledger.close()
    path = left.directory / "ledger.mdb"
    data = bytearray(path.read_bytes())
    body_size = next(len(b) for b in left.bodies() if len(b) > 20_000)
    node = data.find(body_size.to_bytes(4, "little"))  # a node starts with its value's size, low half first
    while node >= 0 and data[node + 4 : node + 16] != b"\x01\x00\x08\x00" + (4).to_bytes(8, "big"):
        node = data.find(body_size.to_bytes(4, "little"), node + 1)
    assert node >= 0
    data[node : node + 4] = (gibibytes << 30).to_bytes(4, "little")
    path.write_bytes(data)
    os.truncate(path, 4 << 30)
    with ledger_stream(left.directory) as read, pytest.raises(Malformed):
        for _, body in records(read):
            assert len(body) <= MAX_RECORD


def test_no_ledger_there(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnknown), ledger_stream(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seed", range(12))
def test_a_hostile_file_never_harms_the_reader(world: World, seed: int) -> None:
    """Attack 33: random damage to pages. Whatever the child does, the reader gets records or one of our errors."""
    ledger = world.open()
    for n in range(40):
        ledger.append(decision(n)).result(PATIENCE)
    left = world.snapshot("hostile")
    ledger.close()
    chooser = random.Random(seed)
    data = bytearray((left.directory / "ledger.mdb").read_bytes())
    pages = len(data) // 4096
    for _ in range(chooser.randint(1, 6)):
        page, at = chooser.randrange(pages), chooser.randrange(0, 64)
        data[page * 4096 + at : page * 4096 + at + 8] = chooser.randbytes(8)
    (left.directory / "ledger.mdb").write_bytes(data)
    try:
        with ledger_stream(left.directory, silence=20) as read:
            for _, body in records(read):
                assert len(body) <= MAX_RECORD
    except (Malformed, LedgerUnknown) as error:
        assert "\n" not in str(error)


def test_a_truncated_file_is_a_finding(world: World) -> None:
    ledger = world.open()
    for n in range(200):
        ledger.append(decision(n, arguments=f'{{"a":"{os.urandom(600).hex()}"}}'))
    ledger.close()
    copy = world.directory.with_name("cut")
    shutil.copytree(world.directory, copy)
    with (copy / "ledger.mdb").open("r+b") as file:
        file.truncate(12 * 4096)
    with ledger_stream(copy) as read, pytest.raises(SidecarError):  # a child killed by SIGBUS, most likely
        list(records(read))


def _python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_child_that_crashes_is_malformed() -> None:
    code = "import os,sys; sys.stdout.buffer.write(b'SDCSEG\\0\\1'); sys.stdout.flush(); os.kill(os.getpid(), 11)"
    with child_stream(_python(code), silence=PATIENCE) as read:
        assert read(8) == MAGIC
        with pytest.raises(Malformed, match="crashed"):
            read(5)


def test_a_child_that_fails_is_malformed_even_after_whole_records() -> None:
    whole = MAGIC + record(Kind.SEAL, b"x")
    code = f"import sys; sys.stdout.buffer.write({whole!r}); sys.exit(1)"
    with child_stream(_python(code), silence=PATIENCE) as read, pytest.raises(Malformed, match="exit code 1"):
        list(records(read))


@pytest.mark.parametrize(
    "ending", ["import time; time.sleep(600)", "import os; os.close(1); import time; time.sleep(600)"]
)
def test_a_child_that_falls_silent_is_malformed(ending: str) -> None:
    with (
        child_stream(_python(ending), silence=0.2) as read,
        pytest.raises(Malformed, match=r"said nothing|does not end"),
    ):
        read(8)


def test_entries_of_a_damaged_seal_are_still_all_there(world: World) -> None:
    """No record is hidden by what another one says."""
    import lmdb

    left = long_ledger(world)
    before = sorted(kind.name for kind in left.kinds())
    environment = lmdb.open(str(left.directory / "ledger.mdb"), subdir=False, max_dbs=3, map_size=256 << 20)
    notes = environment.open_db(b"notes")
    for change in (b"\ncount 2\n", b"\ncount 7\n", b"\ncount -\n"):
        with environment.begin(write=True) as txn:
            key = (1).to_bytes(8, "big") + b"\x02"
            signed = txn.get(key, db=notes)
            assert (signed is not None and Seal.parse(note.parse(signed).text).count == 2) or change != b"\ncount 2\n"
            lines = signed.split(b"\n")
            lines[5] = change.strip()
            txn.put(key, b"\n".join(lines), db=notes)
        assert sorted(kind.name for kind in left.kinds()) == before
    environment.close()
