"""kill -9 at every write point: whatever was answered is there afterwards, and the whole verifies (attack 36).

Kills come in three places of a commit: before it, after it but before the answer, and inside it, at the write(2) that
would grow the file past a limit: it is cut short there, and nothing is written after it.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.ledger.worlds import PATIENCE, World, refused

VICTIM = """
import dataclasses, json, os, resource, signal, sys
from pathlib import Path
from sidecar.chain.seeds import Custodian, Custody
from sidecar.errors import LedgerError
from sidecar.ledger.batch import Batch
from tests.ledger.worlds import SECOND, StoreAround, World, decision

for line in sys.stdin:  # each victim is forked from here, where all is imported
    directory, where, nth, told = json.loads(line)
    pid = os.fork()
    if pid == 0:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
else:
    sys.exit()
directory = Path(directory)
os.dup2(os.open(told, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)

class Deadly(StoreAround):
    commits = 0
    def commit(self, batch: Batch) -> None:
        if where == "before" and self.commits == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            self.inner.commit(batch)
        except LedgerError:
            os.kill(os.getpid(), signal.SIGKILL)
        if where == "after" and self.commits == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        self.commits += 1

world = World(directory, Custody("any", (Custodian("auditor", "hpke", b"a key nobody uses here"),)))
world.options = dataclasses.replace(world.options, segment_entries=4)
if where == "within":
    limit = (directory / "ledger.mdb").stat().st_size + nth * 4096 + 100
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
ledger = world.open(Deadly)
n = 0
while n < 400:
    batch = [ledger.append(decision(n + i)) for i in range(3)]
    if n == 6:
        world.clock.move(60 * SECOND)
    for future in batch:
        print(future.result(60).receipt.hex(), flush=True)
    n += 3
ledger.close()
"""
POINTS = [
    *(("before", n) for n in range(9)),
    *(("after", n) for n in range(9)),
    *(("within", n) for n in (0, 1, 2, 3, 4, 5, 6, 8, 11, 15, 20, 30)),
]


Killed = Callable[[Path, str, int], tuple[list[bytes], int]]


@pytest.fixture(scope="module")
def killed() -> Iterator[Killed]:
    """Gives the receipts that were given out before the kill, and how the victim ended."""
    command = [sys.executable, "-c", VICTIM]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as victims:
        assert victims.stdin is not None and victims.stdout is not None

        def kill(directory: Path, where: str, nth: int) -> tuple[list[bytes], int]:
            told = directory.with_name("told")
            victims.stdin.write(json.dumps([str(directory), where, nth, str(told)]) + "\n")
            victims.stdin.flush()
            code = int(victims.stdout.readline())
            return [bytes.fromhex(line) for line in told.read_text().split("\n")[:-1]], code

        yield kill


@pytest.mark.parametrize(("where", "nth"), POINTS)
def test_every_answered_decision_survives(killed: Killed, world: World, where: str, nth: int) -> None:
    receipts, code = killed(world.directory, where, nth)
    assert code == -signal.SIGKILL
    world.assert_verifies(receipts)  # as the kill left it
    ledger = world.open()
    ledger.append(refused()).result(PATIENCE)
    ledger.close()
    world.assert_verifies(receipts)


def test_kill_upon_kill(killed: Killed, world: World) -> None:
    receipts: list[bytes] = []
    for where, nth in (("after", 0), ("before", 0), ("within", 9), ("after", 5), ("before", 2)):
        more, code = killed(world.directory, where, nth)
        assert code == -signal.SIGKILL
        receipts += more
    world.open().close()
    assert receipts
    world.assert_verifies(receipts)
