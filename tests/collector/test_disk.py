"""The log on real file systems that fail: a power cut, a full disk. What was logged is there afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.chain.logged import entry_of
from sidecar.collector import FleetLog
from sidecar.collector.index import open_sqlite
from sidecar.collector.storage import FileStorage
from sidecar.errors import StorageError
from tests.collector.test_log import KEY, ORIGIN, notes, whole
from tests.faults.mounts import ext4, tmpfs


def test_a_power_cut_takes_nothing_that_was_logged(tmp_path: Path) -> None:
    """Files, their names and their directories had reached the disk before `append` returned."""
    index = open_sqlite(tmp_path / "index.db")
    with ext4(48) as disk:
        log = FleetLog(FileStorage(disk.place / "store"), index, ORIGIN, KEY)
        for at in range(3):
            log.append(notes(90, 90 * at))
        disk.fail()
        with pytest.raises(StorageError):
            log.append(notes(1, 1_000))
        disk.mount_again()
        again = FleetLog(FileStorage(disk.place / "store"), index, ORIGIN, KEY, known=[log.signed])
        assert whole(FileStorage(disk.place / "store"), again.signed) == [entry_of(each) for each in notes(270)]
        assert again.append(notes(1, 1_000))[0].position == 270
    index.close()


def test_what_was_not_synced_is_lost_in_that_power_cut() -> None:
    """The cut is a real one: a file that nobody synced is gone after it."""
    with ext4(48) as disk:
        (disk.place / "unsynced").write_bytes(b"x")
        disk.fail()
        disk.mount_again()
        assert not (disk.place / "unsynced").exists()


def test_a_full_disk_stops_the_log_and_breaks_nothing(tmp_path: Path) -> None:
    index = open_sqlite(tmp_path / "index.db")
    with tmpfs(4) as place:
        ballast = place / "ballast"
        ballast.write_bytes(bytes(3 * 1024 * 1024))
        log = FleetLog(FileStorage(place / "store"), index, ORIGIN, KEY)
        logged = 0
        with pytest.raises(StorageError):
            for _ in range(50):
                log.append(notes(40, logged))
                logged += 40
        assert logged
        whole(FileStorage(place / "store"), log.signed)
        ballast.unlink()
        again = FleetLog(FileStorage(place / "store"), index, ORIGIN, KEY, known=[log.signed])
        assert {t.position for t in again.append(notes(40, logged))} == set(range(logged, logged + 40))
        assert len(whole(FileStorage(place / "store"), again.signed)) == logged + 40
    index.close()
