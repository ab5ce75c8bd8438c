"""A collector is copied while it runs, by docs/RECOVER.md, and brought back; and what an old copy comes to."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sidecar.collector import FleetLog
from sidecar.collector.index import open_sqlite
from sidecar.collector.storage import FileStorage
from sidecar.errors import StorageError
from tests.collecting import Collecting, collecting
from tests.collector.test_log import KEY, ORIGIN, notes, whole
from tests.collector.test_shipping import until
from tests.needs import needs_program
from tests.ports import free_address
from tests.program import Serving, made, serving, sidecar

RECOVER = (Path(__file__).parents[2] / "docs" / "RECOVER.md").read_text()
STEPS = re.findall(r"^rsync .*$", RECOVER, re.MULTILINE)


def copy(step: str, place: Path) -> None:
    needs_program("rsync")
    subprocess.run(step.split(), cwd=place, check=True)


def grown(place: Path) -> tuple[FleetLog, FileStorage]:
    """A log of 250 entries, in five batches, on files."""
    (place / "collector").mkdir(parents=True)
    storage = FileStorage(place / "collector" / "store")
    log = FleetLog(storage, open_sqlite(place / "index.db"), ORIGIN, KEY)
    for first in range(0, 250, 50):
        log.append(notes(50, first))
    return log, storage


def test_the_two_steps_are_those_of_the_document() -> None:
    assert len(STEPS) == 2 and "log/checkpoint/ " in STEPS[0] and "--exclude=/log/checkpoint/" in STEPS[1]


def test_a_copy_made_while_the_log_grows_is_a_whole_log(tmp_path: Path) -> None:
    """Between the two steps a tile is filled, and the parts of it that the last checkpoint copied was made from go."""
    log, storage = grown(tmp_path)
    copy(STEPS[0], tmp_path)
    for first in range(250, 300, 10):
        log.append(notes(10, first))
    copy(STEPS[1], tmp_path)
    back = FileStorage(tmp_path / "backup")
    again = FleetLog(back, open_sqlite(tmp_path / "again.db"), ORIGIN, KEY)
    assert (again.tip, again.signed) == (log.tip, log.signed)  # what was signed after the first step, signed alike
    assert whole(back, again.signed) == whole(storage, log.signed)


def test_in_the_other_order_it_is_none_and_no_log_starts_on_it(tmp_path: Path) -> None:
    log, _ = grown(tmp_path)
    (tmp_path / "backup").mkdir()
    copy(STEPS[1], tmp_path)
    log.append(notes(10, 250))
    copy(STEPS[0], tmp_path)
    with pytest.raises(StorageError, match=r"missing|gone"):
        FleetLog(FileStorage(tmp_path / "backup"), open_sqlite(tmp_path / "again.db"), ORIGIN, KEY)


class Fleet:
    """A collector in ``place`` and a sidecar that ships to it."""

    def __init__(self, place: Path) -> None:
        self.place, self.address, self.config = place, free_address(), place / "c.toml"
        self.ledger, self.key = made(place)

    def collector(self) -> object:
        return collecting(self.place / "collector", listen=self.address)

    def configure(self, collector: Collecting, *more: str) -> None:
        self.config.write_text("segment_seconds = 0.2\n" + collector.settings(*more))

    def served(self, count: int) -> None:
        """A run of the sidecar, in which so many decisions are made, to its end."""
        with serving(self.ledger, "--config", self.config) as server:
            self.decided(server, count)
            assert server.stop() == 0

    def decided(self, server: Serving, count: int) -> None:
        with server.guard() as guard:
            for _ in range(count):
                guard.ask("crm.read", ("customer", "c-1"), {})

    def report(self, collector: Collecting) -> dict[str, object]:
        trust = collector.trust(self.place / "trust.json")
        return dict(json.loads(sidecar("verify", self.ledger, "--trust", trust, "--json").stdout))


def size_of(path: Path) -> int:
    return int(path.read_text().split("\n")[1]) if path.is_file() else -1


def receipts(ledger: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in (ledger / "receipts").iterdir()}


def tree(place: Path) -> int:
    """Entries of the log that is stored there."""
    return max(map(size_of, (place / "store/objects/log/checkpoint").rglob("*")))


def restored(place: Path) -> None:
    """Only the backup and the key are left; the index is made anew."""
    key = (place / "collector" / "log-key.pem").read_bytes()
    shutil.rmtree(place / "collector")
    (place / "collector").mkdir()
    (place / "collector" / "log-key.pem").write_bytes(key)
    (place / "collector" / "log-key.pem").chmod(0o600)
    (place / "backup").rename(place / "collector" / "store")
    done = sidecar("collector", "reindex", "--data-dir", place / "collector", "--dev")
    assert done.returncode == 0, done.stderr
    looked = sidecar("collector", "verify", "--data-dir", place / "collector", "--dev")
    assert looked.returncode == 0, looked.stdout + looked.stderr


def test_a_collector_is_brought_back_whole(tmp_path: Path) -> None:
    """Copied while it runs and once more when it has ended: the sidecar goes on, and its ledger is OK to the end."""
    fleet = Fleet(tmp_path)
    with fleet.collector() as collector:
        fleet.configure(collector)
        with serving(fleet.ledger, "--config", fleet.config) as server:
            fleet.decided(server, 5)
            until(lambda: (collector.place / "store/objects/log/checkpoint").is_dir())
            for step in STEPS:
                copy(step, tmp_path)
            fleet.decided(server, 5)
            assert server.stop() == 0
        assert collector.stop() == 0
    for step in STEPS:
        copy(step, tmp_path)
    restored(tmp_path)
    with fleet.collector() as collector:
        fleet.served(5)
        assert fleet.report(collector)["verdict"] == "OK"
        assert collector.status()["alarms"] == []


@pytest.mark.soak  # in make test: test_receipts_kept
def test_what_an_old_copy_says_no_sidecar_takes(tmp_path: Path) -> None:
    """Without a witness it starts; but the sidecar holds a newer checkpoint, and takes no receipt of this log again."""
    fleet = Fleet(tmp_path)
    with fleet.collector() as collector:
        fleet.configure(collector)
        fleet.served(3)
        for step in STEPS:
            copy(step, tmp_path)
        fleet.served(10)
        assert fleet.report(collector)["verdict"] == "OK"
        assert collector.stop() == 0
    held, newest = receipts(fleet.ledger), tree(collector.place)
    restored(tmp_path)
    with fleet.collector() as collector:
        fleet.configure(collector, "linger = 0")
        with serving(fleet.ledger, "--config", fleet.config) as server:
            fleet.decided(server, 3)
            until(lambda: tree(collector.place) > newest + 2)
            assert "does not extend" in next(line for line in server.process.stderr or () if "not shipped" in line)
            assert server.stop() == 0
        assert receipts(fleet.ledger) == held
        report = fleet.report(collector)
        assert report["verdict"] == "UNANCHORED" and report["entries"] > 16, report
