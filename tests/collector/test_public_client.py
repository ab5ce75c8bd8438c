"""A public client (Go: torchwood and golang.org/x/mod) follows our log over HTTP and checks all of it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from sidecar.chain.logged import entry_of
from sidecar.collector import FleetLog, published
from sidecar.collector.index import open_sqlite
from tests.collector.memory import MemoryStorage
from tests.collector.serving import served
from tests.collector.test_log import KEY, ORIGIN, REAL, VKEY, notes
from tests.servers.building import CLIENT, built
from tests.servers.running import PATIENCE


@pytest.mark.parametrize("size", [1, 256, 600])
def test_it_reads_every_entry_and_finds_the_log_consistent(tmp_path: Path, size: int) -> None:
    storage, index = MemoryStorage(), open_sqlite(tmp_path / "index.db")
    log = FleetLog(storage, index, ORIGIN, KEY)
    log.append(REAL[:1])
    (tmp_path / "older").write_bytes(log.signed)
    wanted = [*REAL, *notes(600)][:size]
    log.append(wanted)
    with served(storage, log) as url:
        answer = asked(url, tmp_path / "older")
        assert answer.returncode == 0, answer.stderr
    said = json.loads(answer.stdout)
    assert (said["origin"], said["size"], said["older"]) == (ORIGIN, size, 1)
    assert said["entries"] == [entry_of(each).decode() for each in wanted]
    index.close()


def test_it_refuses_what_is_not_ours(tmp_path: Path) -> None:
    """The client is no rubber stamp: a changed entry, and a log that forked, are found."""
    storage, index = MemoryStorage(), open_sqlite(tmp_path / "index.db")
    log = FleetLog(storage, index, ORIGIN, KEY)
    log.append(notes(10))
    other = FleetLog(MemoryStorage(), open_sqlite(tmp_path / "other.db"), ORIGIN, KEY)
    other.append(notes(5, 50))
    (tmp_path / "older").write_bytes(other.signed)
    with served(storage, log) as url:
        assert asked(url, tmp_path / "older").returncode == 1
        bundle = storage.objects["log/tile/entries/000.p/10"]
        storage.objects["log/tile/entries/000.p/10"] = bundle.replace(b"epoch 0", b"epoch 1", 1)
        assert asked(url).returncode == 1
    index.close()
    other._index.close()  # type: ignore[attr-defined]


def asked(url: str, *more: Path) -> subprocess.CompletedProcess[str]:
    command = [built(CLIENT), url, str(VKEY), *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_what_is_published_and_what_is_not(tmp_path: Path) -> None:
    storage, index = MemoryStorage(), open_sqlite(tmp_path / "index.db")
    log = FleetLog(storage, index, ORIGIN, KEY)
    log.append(notes(3))
    assert published(storage, log.signed, "checkpoint") == (log.signed, "text/plain; charset=utf-8")
    for path in (
        "",
        "batch/000",
        "tile/0/000",
        "tile/0/000.p/2",
        "tile/0/../../batch/000",
        "checkpoint/000",
        "tile/0/001",
    ):
        assert published(storage, log.signed, path) is None
    index.close()
