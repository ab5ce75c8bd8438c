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

from sidecar.chain import note
from sidecar.chain.entry import EntryType
from sidecar.chain.head import Head
from tests.ledger.worlds import PATIENCE, World, decision_id, indexed, outcome, refused

VICTIM = """
import dataclasses, json, os, resource, signal, sys
from pathlib import Path
from sidecar.chain.seeds import Custodian, Custody
from sidecar.errors import LedgerError
from sidecar.ledger.batch import Batch
from tests.ledger.worlds import SECOND, StoreAround, World, decision

for line in sys.stdin:  # each victim is forked from here, where all is imported
    directory, where, nth, told, at_once, first = json.loads(line)
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
world.options = dataclasses.replace(world.options, segment_entries=4 if at_once > 1 else 10_000)
if where == "within":
    limit = (directory / "ledger.mdb").stat().st_size + nth * 4096 + 100
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
ledger = world.open(Deadly)
n = first
while n < first + 400:
    batch = [ledger.append(decision(n + i)) for i in range(at_once)]
    if n == 6 and at_once > 1:
        world.clock.move(60 * SECOND)
    for future in batch:
        print(future.result(60).receipt.hex(), flush=True)
    n += at_once
ledger.close()
"""
POINTS = [
    *(("before", n) for n in range(9)),
    *(("after", n) for n in range(9)),
    *(("within", n) for n in (0, 1, 2, 3, 4, 5, 6, 8, 11, 15, 20, 30)),
]


Killed = Callable[..., tuple[list[bytes], int]]


@pytest.fixture(scope="module")
def killed() -> Iterator[Killed]:
    """Gives the receipts that were given out before the kill, and how the victim ended."""
    command = [sys.executable, "-c", VICTIM]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as victims:
        assert victims.stdin is not None and victims.stdout is not None

        def kill(
            directory: Path, where: str, nth: int, at_once: int = 3, first: int = 0
        ) -> tuple[list[bytes], int]:  # fmt: skip
            told = directory.with_name("told")
            victims.stdin.write(json.dumps([str(directory), where, nth, str(told), at_once, first]) + "\n")
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


@pytest.mark.parametrize(
    ("where", "nth"),
    [("before", 2), ("before", 64), ("after", 64), ("before", 65), ("within", 60)],
)
def test_decisions_that_the_index_lacked_are_found_after_kills(
    killed: Killed, world: World, where: str, nth: int
) -> None:
    """Commit 0 opens the epoch, each after it has one decision; two epochs are left unsealed, one after the other."""
    receipts: list[bytes] = []
    for first in (0, 500):
        more, code = killed(world.directory, where, nth, 1, first)
        assert code == -signal.SIGKILL and more
        assert not first or len(indexed(world)) >= len(receipts)  # the start between the kills put them there
        receipts += more
    assert (where, nth) != ("before", 64) or (len(indexed(world)), len(receipts)) == (63, 126)
    ledger = world.open()
    for receipt in receipts:
        head = Head.parse(note.parse(receipt).text)
        assert head.decided is not None and ledger.find(head.decided.decision_id) == head.seq
    told = {n: seq for n in (0, nth - 1, 500) if (seq := ledger.find(decision_id(n))) is not None}
    for n, seq in told.items():
        reported = ledger.append(outcome(n, seq)).result(PATIENCE).seq
        assert ledger.about(seq) == [(reported, EntryType.OUTCOME)]
    ledger.close()
    assert len(told) > 1 and len(indexed(world)) >= len(receipts)
    world.assert_verifies(receipts)
