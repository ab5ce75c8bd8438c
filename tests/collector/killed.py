"""A process that appends to a fleet log on files and says what was logged, until it is killed.

    python -m tests.collector.killed DIRECTORY FIRST

One line a batch, after it was appended: the position of its first note and how many.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sidecar.collector import FleetLog
from sidecar.collector.index import open_sqlite
from sidecar.collector.storage import FileStorage
from tests.collector.test_log import KEY, ORIGIN, notes


def main(directory: Path, first: int) -> None:
    log = FleetLog(FileStorage(directory / "store"), open_sqlite(directory / "index.db"), ORIGIN, KEY)
    print("ready", flush=True)
    while True:
        taken = log.append(notes(17, first))
        print(first, taken[0].position, flush=True)
        first += 17


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
