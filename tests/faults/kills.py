"""kill -9 at random moments: of a sidecar under load, and of one that is starting.

The moment under load is drawn as a number of answers and a few milliseconds more, so that it falls anywhere in a
commit, a seal or an evaluation, on a machine of any speed.
"""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.load import Load, Told
from tests.program import BIN, environment, serving

_STARTING = 0.2  # the share of kills that hit a start
_START_SECONDS = 0.9  # what a start takes, about


@dataclass(slots=True)
class Kills:
    """Kills one sidecar after the other on a ledger; counts. ``told``: what its callers were told, ever."""

    chooser: random.Random
    told: Told = field(default_factory=Told)
    under_load: int = 0
    starting: int = 0

    @property
    def count(self) -> int:
        return self.under_load + self.starting

    def kill(self, ledger: Path, runner: asyncio.Runner) -> None:
        """Start a sidecar and kill it at a random moment."""
        settings = {
            "SIDECAR_SEGMENT_ENTRIES": str(self.chooser.choice((3, 40, 10_000))),
            "SIDECAR_SEGMENT_SECONDS": str(self.chooser.choice((0.05, 60))),
        }
        if self.chooser.random() < _STARTING:
            self.starting += 1
            self._kill_starting(ledger, settings)
        else:
            self.under_load += 1
            with serving(ledger, **settings) as server:
                runner.run(self._kill_under_load(server.address, server.process))

    def _kill_starting(self, ledger: Path, settings: dict[str, str]) -> None:
        command = [str(BIN / "sidecar"), "serve", "--data-dir", str(ledger), "--dev", "--listen", f"unix:{ledger}.sock"]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment(**settings)) as process:
            try:
                process.wait(self.chooser.uniform(0.2, 1.0) * _START_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                assert process.wait() == -signal.SIGKILL
            else:
                raise AssertionError(f"the sidecar ended by itself: {process.returncode}")

    async def _kill_under_load(self, address: str, process: subprocess.Popen[str]) -> None:
        async with Load(address, self.told).running(unary=10, batches=2, streams=2):
            await self.told.more(self.chooser.randint(1, 300))
            await asyncio.sleep(self.chooser.uniform(0, 0.008))
            process.kill()
            assert await asyncio.to_thread(process.wait) == -signal.SIGKILL
