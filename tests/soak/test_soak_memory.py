"""Memory over long runs, judged by RssAnon (LMDB's map counts in RSS): the sidecar's, and the verifier's.

SIDECAR_SOAK_DECISIONS (100,000): answered by a sidecar whose RssAnon must stay at 100 MB or less.
SIDECAR_SOAK_ENTRIES (1,000,000): of a ledger whose verification must take no more memory late than early.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sidecar.ledger import Ledger, Options, SystemClock
from sidecar.verify.outcomes import REMEMBERED
from tests.api.running import PRIVATE, found, wrap
from tests.faults.load import Load, Told
from tests.ledger.worlds import PATIENCE, decision
from tests.program import Serving, environment, made, serving
from tests.soak.figures import tell, wanted
from tests.wasm.processes import beside

pytestmark = pytest.mark.soak
HOME = Path(__file__).parents[2]
MOST_ANON = 100_000_000  # bytes
MOST_GROWTH = 8 << 20
EARLY = 2 * REMEMBERED  # entries, when all is held that a verifier remembers of the last ones
AT_ONCE = 1_000

VERIFYING = """
import json, os, sys
from pathlib import Path
from sidecar.custody import load_private, open_seed
from sidecar.ledger import ledger_stream
from sidecar.verify import Evidence, verify_stream

def anon(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")) * 1024

def whole(count):
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    samples.append((count, anon("self") + sum(map(anon, children))))

samples = []
keys = [load_private(sys.stdin.buffer.read())]
with ledger_stream(Path(sys.argv[1])) as read:
    report = verify_stream(read, Evidence(open_seed=lambda *where: open_seed(keys, *where)), progress=whole)
print(json.dumps({"verdict": report.verdict.name, "entries": report.entries, "samples": samples}))
"""


def anon(server: Serving) -> int:
    """Of the sidecar and the process that evaluates beside it."""
    pids = (server.process.pid, *beside(server.process.pid))
    lines = [line for pid in pids for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:"))


def test_the_sidecars_memory_after_many_decisions(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    ledger, _ = made(tmp_path)
    count, told, started = wanted("DECISIONS", 100_000), Told(), time.monotonic()
    samples: list[int] = []

    async def main(server: Serving) -> None:
        async with Load(server.address, told).running(unary=12, batches=2, streams=2):
            for _ in range(10):
                await told.more(count // 10)
                samples.append(anon(server))
            assert await asyncio.to_thread(server.stop) == 0

    with serving(ledger) as server:
        asyncio.run(main(server))
    megabytes = ", ".join(f"{sample / 1e6:.1f}" for sample in samples)
    took = time.monotonic() - started
    tell(pytestconfig, f"sidecar: RssAnon at each tenth of {count:,} decisions, MB: {megabytes} ({took:.0f} s)")
    assert max(samples) <= MOST_ANON


def written(directory: Path, count: int) -> None:
    """A ledger of so many entries."""
    found(directory)
    options = Options(queue_limit=2 * AT_ONCE, max_bytes=1 << 40)
    ledger = Ledger.open(directory, wrap=wrap, options=options, clock=SystemClock(), on_failure=lambda error: None)
    for first in range(0, count, AT_ONCE):
        waiting = [ledger.append(decision(n)) for n in range(first, min(first + AT_ONCE, count))]
        for future in waiting:
            future.result(PATIENCE)
    ledger.close()


def test_the_verifiers_memory_is_flat(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    count = wanted("ENTRIES", 1_000_000)
    written(tmp_path / "ledger", count)
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", VERIFYING, str(tmp_path / "ledger")],
        input=PRIVATE, capture_output=True, cwd=HOME, env=environment(),
    )  # fmt: skip
    took = time.monotonic() - started
    assert done.returncode == 0, done.stderr.decode()
    said = json.loads(done.stdout)
    assert (said["verdict"], said["entries"] >= count) == ("UNANCHORED", True)
    early = max(taken for at, taken in said["samples"] if at <= EARLY)
    late = max(taken for at, taken in said["samples"] if at > EARLY)
    tell(
        pytestconfig,
        f"verify: RssAnon with its reading child {early / 1e6:.1f} MB in the first {EARLY:,} entries, at most "
        f"{late / 1e6:.1f} MB in the rest of {said['entries']:,} ({took:.0f} s)",
    )
    assert late <= early + MOST_GROWTH
