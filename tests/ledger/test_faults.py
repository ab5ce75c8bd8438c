"""Every write breaks once, as *failed* and as *failed but persisted*; the disk fills up; nothing is answered twice."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sidecar.chain.stream import Kind, records
from sidecar.errors import LedgerError, LedgerFull
from sidecar.ledger import Ledger, ledger_stream
from sidecar.ledger.batch import Batch
from sidecar.ledger.port import Store
from sidecar.ledger.store import LmdbStore
from tests.ledger.worlds import PATIENCE, SECOND, CountedStore, StoreAround, World, decision, decision_id, refused

FAULTS = ["failed", "failed but persisted"]


class FaultyStore(StoreAround):
    """Fails its n-th commit (from 0), before or after it happened."""

    def __init__(self, inner: Store, nth: int, fault: str, error: BaseException) -> None:
        super().__init__(inner)
        self._left, self._fault, self._error = nth, fault, error
        self.after = 0

    def commit(self, batch: Batch) -> None:
        self._left -= 1
        if self._left < -1:
            self.after += 1
        if self._left != -1:
            self.inner.commit(batch)
            return
        if self._fault == "failed but persisted":
            self.inner.commit(batch)
        raise self._error


def faulty(nth: int, fault: str, error: BaseException | None = None) -> Callable[[Store], FaultyStore]:
    return lambda store: FaultyStore(store, nth, fault, error or LedgerError("input/output error"))


def leaves(world: World) -> int:
    with ledger_stream(world.directory) as read:
        return sum(kind is Kind.ENTRY for kind, _ in records(read))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_group_that_fails_ends_all_answers(world: World, fault: str) -> None:
    # Attack 35. Commit 0 opens the epoch, 1 records the first decision, 2 fails.
    ledger = world.open(faulty(2, fault))
    good = ledger.append(decision(1)).result(PATIENCE)
    with pytest.raises(LedgerError, match="input/output"):
        ledger.append(decision(2)).result(PATIENCE)
    for _ in range(2):
        with pytest.raises(LedgerError, match="input/output"):
            ledger.append(decision(3)).result(PATIENCE)
        with pytest.raises(LedgerError, match="input/output"):
            asyncio.run(ledger.record(decision(3)))
    with pytest.raises(LedgerError, match="input/output"):
        ledger.check_writable()
    ledger.close()
    assert [str(f) for f in world.failures] == ["input/output error"]  # told once
    assert ledger._store.after == 0  # nothing was written after it, CLOSE neither
    assert ledger.position().next_seq == good.seq + 1

    again = world.open()
    assert again.find(decision_id(1)) == good.seq
    assert (again.find(decision_id(2)) is None) == (fault == "failed")
    again.append(decision(4)).result(PATIENCE)
    again.close()
    assert leaves(world) == 8 + (fault != "failed")
    world.assert_verifies([good.receipt])


@pytest.mark.parametrize("fault", FAULTS)
def test_everyone_who_waits_is_told(world: World, fault: str) -> None:
    stores: list[CountedStore] = []

    def around(store: Store) -> Store:
        stores.append(CountedStore(faulty(1, fault)(store)))
        return stores[0]

    ledger = world.open(around)
    stores[0].start_over()
    stores[0].gate.clear()
    futures = [ledger.append(decision(0))]
    assert stores[0].arrived.acquire(timeout=PATIENCE)
    futures += [ledger.append(decision(n)) for n in range(1, 6)]

    async def also_from_a_loop() -> None:
        waiting = asyncio.gather(*(ledger.record(decision(n)) for n in range(6, 9)), return_exceptions=True)
        await asyncio.sleep(0)
        stores[0].gate.set()
        assert {type(e) for e in await waiting} == {LedgerError}

    asyncio.run(also_from_a_loop())
    errors = [f.exception(PATIENCE) for f in futures]
    assert {str(e) for e in errors} == {"input/output error"} and len({id(e) for e in errors}) == len(errors)
    ledger.close()
    world.open().close()
    assert leaves(world) == 6 + (fault != "failed")
    world.assert_verifies()


@pytest.mark.parametrize("fault", FAULTS)
def test_opening_that_fails_opens_nothing(world: World, fault: str) -> None:
    with pytest.raises(LedgerError, match="input/output"):
        world.open(faulty(0, fault))
    ledger = world.open()
    seq = ledger.append(refused()).result(PATIENCE).seq
    ledger.close()
    assert seq == 4 + (fault != "failed")
    world.assert_verifies()


@pytest.mark.parametrize("fault", FAULTS)
def test_opening_that_fails_after_a_crash_recovers_once(world: World, fault: str) -> None:
    ledger = world.open()
    receipt = ledger.append(decision(1)).result(PATIENCE).receipt
    left = world.snapshot("crashed")
    ledger.close()
    with pytest.raises(LedgerError, match="input/output"):
        left.open(faulty(0, fault))
    left.open().close()
    left.assert_verifies([receipt])


@pytest.mark.parametrize("fault", FAULTS)
def test_a_seal_by_time_that_fails_ends_all_answers(world: World, fault: str) -> None:
    ledger = world.open(faulty(2, fault))
    receipt = ledger.append(decision(1)).result(PATIENCE).receipt
    world.clock.move(60 * SECOND)
    with pytest.raises(LedgerError, match="input/output"):
        ledger.append(decision(2)).result(PATIENCE)
    ledger.close()
    again = world.open()
    assert again.find(decision_id(2)) is None
    assert again.position().segment == 2 + (fault != "failed")
    again.close()
    world.assert_verifies([receipt])


@pytest.mark.parametrize("fault", FAULTS)
def test_a_seal_by_count_that_fails_ends_all_answers(world: World, fault: str) -> None:
    ledger = world.open(faulty(2, fault), options=dataclasses.replace(world.options, segment_entries=3))
    receipt = ledger.append(decision(1)).result(PATIENCE).receipt
    with pytest.raises(LedgerError, match="input/output"):
        ledger.append(decision(2)).result(PATIENCE)
    ledger.close()
    again = world.open()
    assert (again.find(decision_id(2)) is None) == (fault == "failed")
    again.close()
    world.assert_verifies([receipt])


@pytest.mark.parametrize("fault", FAULTS)
def test_a_close_that_fails_is_told_and_the_next_start_recovers(world: World, fault: str) -> None:
    ledger = world.open(faulty(2, fault))
    receipt = ledger.append(decision(1)).result(PATIENCE).receipt
    ledger.close()
    ledger.close()
    assert len(world.failures) == 1
    world.open().close()
    world.assert_verifies([receipt])


def test_an_error_nobody_thought_of_is_treated_alike(world: World) -> None:
    ledger = world.open(faulty(1, "failed", ZeroDivisionError("secret detail")))
    with pytest.raises(LedgerError, match="ZeroDivisionError") as caught:
        ledger.append(decision(1)).result(PATIENCE)
    assert "secret" not in str(caught.value)
    ledger.close()
    world.open().close()
    world.assert_verifies()


def test_a_failing_founding_leaves_nothing_behind(tmp_path: Path, world: World) -> None:
    new = World(tmp_path / "new", world.custody)
    for fault in FAULTS:
        with pytest.raises(LedgerError, match="input/output"):
            new.create(create_store=lambda d, m, f=fault: faulty(0, f)(LmdbStore.create(d, m)))
        assert sorted(p.name for p in tmp_path.iterdir()) == ["ledger"]
    new.create()
    new.assert_verifies()


def fill(ledger: Ledger, size: int = 200_000) -> tuple[list[bytes], LedgerError]:
    """Record incompressible decisions until one is refused; the receipts, and why."""
    receipts = []
    for n in range(10_000):
        try:
            arguments = f'{{"a":"{os.urandom(size // 2).hex()}"}}'
            receipts.append(ledger.append(decision(n, arguments=arguments)).result(PATIENCE).receipt)
        except LedgerError as error:
            return receipts, error
    raise AssertionError("it never filled up")


def test_near_its_greatest_size_it_refuses_and_still_closes(world: World) -> None:
    small = dataclasses.replace(world.options, max_bytes=4 << 20, reserve_bytes=1 << 20)
    ledger = world.open(options=small)
    receipts, error = fill(ledger)
    assert isinstance(error, LedgerFull) and "ledger_max_mib" in str(error) and len(receipts) > 5
    assert ledger.append(refused()).exception(PATIENCE) is None  # a small one still fits
    while ledger.append(refused()).exception(PATIENCE) is None:
        pass
    with pytest.raises(LedgerFull):
        asyncio.run(ledger.record(refused()))
    ledger.close()
    assert world.failures == []
    world.assert_verifies(receipts)
    with pytest.raises(LedgerFull, match="ledger_max_mib"):
        world.open(options=dataclasses.replace(small, reserve_bytes=2 << 20))
    ledger = world.open(options=dataclasses.replace(small, max_bytes=8 << 20))
    assert ledger.append(refused()).result(PATIENCE).segment == 2
    ledger.close()
    world.assert_verifies(receipts)


class ShrinkingStore(StoreAround):
    """Says that more and more is taken."""

    taken = 0

    def used(self, rough: int = 0) -> int:
        return self.inner.used(rough) + self.taken


def test_when_the_reserve_goes_it_closes_in_order(world: World) -> None:
    stores: list[ShrinkingStore] = []

    def around(store: Store) -> Store:
        stores.append(ShrinkingStore(store))
        return stores[0]

    ledger = world.open(around)
    receipt = ledger.append(decision(1)).result(PATIENCE).receipt
    stores[0].taken = world.options.max_bytes - (1 << 20)  # the reserve alone is left
    world.clock.move(SECOND // 4)
    with pytest.raises(LedgerFull):
        ledger.append(decision(2)).result(PATIENCE)
    assert world.failures == []
    stores[0].taken += 1 << 19
    with pytest.raises(LedgerFull):
        ledger.append(decision(3)).result(PATIENCE)
    with pytest.raises(LedgerFull):
        ledger.append(decision(4)).result(PATIENCE)
    ledger.close()
    assert [type(f) for f in world.failures] == [LedgerFull]
    world.assert_verifies([receipt])
    world.open().close()  # it had ended in order: nothing to recover
    world.assert_verifies([receipt])


@pytest.fixture
def small_disk(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of 6 MiB, or as many as a test says."""
    place = Path(tempfile.mkdtemp())
    mount = ["mount", "-t", "tmpfs", "-o", f"size={getattr(request, 'param', 6)}m", "tmpfs", str(place)]
    try:
        if subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("needs the right to mount a tmpfs: run as root")
        yield place
        subprocess.run(["umount", "--lazy", str(place)], check=True)
    finally:
        place.rmdir()


def test_on_a_nearly_full_disk_it_refuses_and_still_closes(small_disk: Path, world: World) -> None:
    new = World(small_disk / "ledger", world.custody, options=world.options)
    new.create()
    ledger = new.open()
    receipts, error = fill(ledger)
    assert isinstance(error, LedgerFull) and "make room on it" in str(error)
    ledger.close()
    assert new.failures == []
    new.assert_verifies(receipts)
    with pytest.raises(LedgerFull, match="disk"):
        new.open(options=dataclasses.replace(new.options, reserve_bytes=3 << 20))


def test_a_disk_that_is_suddenly_full_ends_all_answers(small_disk: Path, world: World) -> None:
    new = World(small_disk / "ledger", world.custody, options=world.options)
    new.create()
    stores: list[CountedStore] = []

    def around(store: Store) -> Store:
        stores.append(CountedStore(store))
        return stores[0]

    ledger = new.open(around)
    receipt = ledger.append(decision(1)).result(PATIENCE).receipt
    stores[0].start_over()
    stores[0].gate.clear()
    future = ledger.append(decision(2, arguments=f'{{"a":"{os.urandom(400_000).hex()}"}}'))
    assert stores[0].arrived.acquire(timeout=PATIENCE)  # it was let in; now somebody else takes the disk
    hog = (small_disk / "hog").open("wb", buffering=0)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        while True:
            hog.write(bytes(4096))
    stores[0].gate.set()
    with pytest.raises(LedgerFull, match="disk is full"):
        future.result(PATIENCE)
    ledger.close()
    assert len(new.failures) == 1
    hog.close()
    (small_disk / "hog").unlink()
    new.open().close()
    new.assert_verifies([receipt])


@pytest.mark.parametrize("small_disk", [80], indirect=True)
@pytest.mark.parametrize("noticed", ["by what was taken", "by time"])
@pytest.mark.parametrize("free", [0, 3 << 20])
def test_a_disk_that_fills_between_two_looks(small_disk: Path, world: World, free: int, noticed: str) -> None:
    """While plenty is left the writer looks only now and then: of the reserve that costs a quarter at most."""
    options = dataclasses.replace(world.options, max_bytes=1 << 30, reserve_bytes=4 << 20)
    new = World(small_disk / "ledger", world.custody, options=options)
    new.create()
    ledger = new.open()
    receipts = [ledger.append(decision(0)).result(PATIENCE).receipt]
    file, before = new.directory / "ledger.mdb", os.statvfs(small_disk).f_bavail * 4096
    with (small_disk / "hog").open("wb") as hog:  # somebody else
        os.posix_fallocate(hog.fileno(), 0, before - free)
    if noticed == "by time":
        new.clock.move(SECOND // 4)
    size = file.stat().st_size
    more, error = fill(ledger, 2000)
    assert isinstance(error, LedgerFull) and "make room on it" in str(error)
    assert (not more) if noticed == "by time" else 0 < len(more) <= (1 << 20) // 8192
    assert file.stat().st_size == size  # what was taken had been put aside before
    ledger.close()
    assert len(new.failures) == (free == 0)
    new.assert_verifies([*receipts, *more])
    (small_disk / "hog").unlink()
    with ledger_stream(new.directory) as read:
        assert [kind for kind, _ in records(read)][-1] is Kind.SEAL  # it had ended in order
    new.open().close()


def test_that_nothing_can_be_put_aside_is_no_failure(small_disk: Path) -> None:
    store = LmdbStore.create(small_disk, 64 << 20)
    with (small_disk / "hog").open("wb") as hog:
        os.posix_fallocate(hog.fileno(), 0, os.statvfs(small_disk).f_bavail * 4096)
    size = (small_disk / "ledger.mdb").stat().st_size
    store.reach()
    assert (small_disk / "ledger.mdb").stat().st_size == size
    store.close()


LIMITED = """
import resource, sys
from pathlib import Path
from sidecar.chain.seeds import Custodian, Custody
from sidecar.errors import LedgerError
from tests.ledger.worlds import World, decision
world = World(Path(sys.argv[1]), Custody("any", (Custodian("auditor", "hpke", b"a key nobody uses here"),)))
ledger = world.open()
size = (world.directory / "ledger.mdb").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + int(sys.argv[2]), size + int(sys.argv[2])))
n = 0
while True:
    try:
        print(ledger.append(decision(n)).result(60).receipt.hex(), flush=True)
    except LedgerError as error:
        assert world.failures and str(error) == str(world.failures[0])
        ledger.close()
        sys.exit(7)
    n += 1
"""


@pytest.mark.parametrize("more", [0, 4096, 6000, 20_480])
def test_a_write_that_the_system_refuses_half_way_ends_all_answers(world: World, more: int) -> None:
    """A real error from pwrite(2): the file may not grow past a limit that falls within a commit."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(world.directory), str(more)],
        capture_output=True, text=True, timeout=PATIENCE, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 7, done.stderr
    receipts = [bytes.fromhex(line) for line in done.stdout.split()]
    ledger = world.open()
    ledger.append(refused()).result(PATIENCE)
    ledger.close()
    world.assert_verifies(receipts)
