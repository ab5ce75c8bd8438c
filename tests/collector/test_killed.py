"""kill -9 of a log in the middle of its writes: what it said was logged is there, once, and the log verifies."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

from sidecar.chain import checkpoint, merkle
from sidecar.chain.consistency import Consistency
from sidecar.chain.logged import entry_of
from sidecar.collector import FleetLog
from sidecar.collector.index import open_sqlite
from sidecar.collector.storage import FileStorage
from tests.collector.test_log import KEY, ORIGIN, VKEY, notes, whole
from tests.scribe import SOAK

REPOSITORY = Path(__file__).parent.parent.parent


def test_killed_at_random(tmp_path: Path) -> None:
    chooser, told, first, seen = random.Random(6), dict[int, int](), 0, b""
    for _ in range(60 if SOAK else 6):
        first, said = killed(tmp_path, first, chooser)
        told |= said
        storage, index = FileStorage(tmp_path / "store"), open_sqlite(tmp_path / "index.db")
        log = FleetLog(storage, index, ORIGIN, KEY, known=[seen] if seen else [])
        entries = whole(storage, log.signed)
        assert len(set(entries)) == len(entries)
        for number, position in told.items():
            assert entries[position : position + 17] == [entry_of(each) for each in notes(17, number)]
        if seen:
            old, _ = checkpoint.verify(seen, VKEY)
            proof = Consistency.parse(log.consistency(old.size)).proof
            merkle.verify_consistency(old.size, log.tip.size, old.root, log.tip.root, proof)
        seen = log.signed
        index.close()
    assert told


def killed(directory: Path, first: int, chooser: random.Random) -> tuple[int, dict[int, int]]:
    """Kill it after some batches and a little more; what to go on with, and what it said."""
    command = [sys.executable, "-m", "tests.collector.killed", str(directory), str(first)]
    said = dict[int, int]()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for _ in range(chooser.randrange(1, 6)):
            number, position = map(int, process.stdout.readline().split())
            said[number] = position
        try:
            process.wait(chooser.random() * 0.06)  # anywhere in the batch that follows
        except subprocess.TimeoutExpired:
            process.kill()
        # It may have said more before it died.
        said |= {int(a): int(b) for a, b in (row.split() for row in process.stdout if row.endswith("\n"))}
    return max(said) + 17, said
