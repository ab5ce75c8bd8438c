"""What another version wrote or knows is refused at the start: one line with cause and mend, and nothing is touched."""

from __future__ import annotations

import hashlib
import sqlite3
import subprocess
from pathlib import Path

import lmdb
import pytest

from sidecar.ledger import has_ledger
from tests.collecting import collecting
from tests.program import made, sidecar


def digest(place: Path) -> dict[str, str]:
    """Of every file that holds something of it; LMDB's lock file does not."""
    files = [each for each in place.rglob("*") if each.is_file() and not each.name.endswith(("-lock", "-shm", "-wal"))]
    return {str(each): hashlib.sha256(each.read_bytes()).hexdigest() for each in files}


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    for word in words:
        assert word in line, line


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger that says it is of the next format."""
    ledger, _ = made(tmp_path_factory.mktemp("newer"))
    with (
        lmdb.open(str(ledger / "ledger.mdb"), subdir=False, max_dbs=12) as environment,
        environment.begin(write=True) as t,
    ):
        assert t.get(b"format") == b"sidecar/v1"
        t.put(b"format", b"sidecar/v2")
    return ledger


@pytest.mark.parametrize(
    "command",
    [("serve", "--dev", "--data-dir"), ("serve", "--dev", "--init", "--data-dir"), ("verify",)],
    ids=" ".join,
)
def test_an_older_program_refuses_a_newer_ledger(newer: Path, command: tuple[str, ...]) -> None:
    before = digest(newer)
    refused(sidecar(*command, newer), "of another version", "use the program that wrote it")
    assert digest(newer) == before and has_ledger(newer)


def test_an_older_collector_refuses_newer_objects_and_a_newer_index(tmp_path: Path) -> None:
    place = tmp_path / "collector"
    with collecting(place) as collector:
        assert collector.stop() == 0
    mark = place / "store" / "objects" / "format"
    assert mark.read_bytes() == b"sidecar/v1\n"
    mark.chmod(0o600)
    mark.write_bytes(b"sidecar/v2\n")
    before = digest(place)
    for command in ("serve", "verify"):
        refused(sidecar("collector", command, "--data-dir", place, "--dev"), "of another version", "not touched")
    assert digest(place) == before
    mark.write_bytes(b"sidecar/v1\n")
    with sqlite3.connect(place / "index.db") as index:
        index.execute("INSERT INTO migration VALUES (1000)")
    index.close()
    done = sidecar("collector", "serve", "--data-dir", place, "--dev")
    assert done.returncode in (1, 2) and "later version" in done.stderr.splitlines()[-1], done.stderr


@pytest.mark.parametrize("command", [("serve",), ("collector", "serve")], ids=" ".join)
def test_a_setting_of_another_version_is_not_passed_over(command: tuple[str, ...], tmp_path: Path) -> None:
    prefix = "SIDECAR_" if command == ("serve",) else "COLLECTOR_"
    where = ("--dev", "--data-dir", tmp_path / "ledger")
    file = tmp_path / "c.toml"
    file.write_text("[policy]\nstricter = true\n")
    near = "perhaps it is " if prefix == "SIDECAR_" else "--print-config"
    refused(sidecar(*command, *where, "--config", file), "policy_stricter", "c.toml", near)
    refused(
        sidecar(*command, *where, **{f"{prefix}POLICY_STRICTER": "1"}), f"{prefix}POLICY_STRICTER", "--print-config"
    )
    assert not (tmp_path / "ledger").exists()


def test_what_kubernetes_says_of_a_service_is_no_setting(tmp_path: Path) -> None:
    """Of a Service named `sidecar` in the namespace, in a pod without enableServiceLinks: false."""
    links = {
        "SIDECAR_SERVICE_HOST": "10.0.0.1",
        "SIDECAR_SERVICE_PORT_METRICS": "9464",
        "SIDECAR_PORT": "tcp://10.0.0.1:9464",
        "SIDECAR_PORT_9464_TCP_ADDR": "10.0.0.1",
    }
    done = sidecar("serve", "--dev", "--data-dir", tmp_path / "none", **links)
    refused(done, "no ledger in")
