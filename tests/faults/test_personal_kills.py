"""kill -9 while data subjects' keys are made and copied: what was answered as sealed opens with the copy alone."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb
import pytest

from sidecar.client import AsyncGuard, NoDecision
from sidecar.ledger.store import FILE
from tests.cli.test_subjects import after_the_pod, configured, founded, here, listed
from tests.collector.test_shipping import until
from tests.program import serving

AT_ONCE = 6


class Answered:
    """What callers were told: by each decision its person and value. Every question is about somebody new."""

    def __init__(self) -> None:
        self.told: dict[str, tuple[int, str]] = {}
        self._numbers = itertools.count()
        self._more = asyncio.Event()

    def next(self) -> tuple[int, str]:
        number = next(self._numbers)
        return number, f"someone.{number}.quux@example.org"

    async def ask(self, guard: AsyncGuard) -> None:
        """Until there is no answer any more."""
        while True:
            customer, email = self.next()
            arguments = {"customer_id": customer, "email": email}
            try:
                decision = await guard.check("crm.read", ("customer", "record"), arguments)
            except NoDecision:
                return
            self.told[decision.decision_id] = customer, email
            self._more.set()

    async def killed(self, address: str, process: Any, after: int, seconds: float) -> None:
        """``after`` so many answers and ``seconds`` more it is killed, while others are asked for."""
        async with AsyncGuard(address, agent="billing-agent", timeout=20.0, attempts=1) as guard:
            asking = [asyncio.create_task(self.ask(guard)) for _ in range(AT_ONCE)]
            least = len(self.told) + after
            while len(self.told) < least:
                self._more.clear()
                await self._more.wait()
            await asyncio.sleep(seconds)
            process.send_signal(signal.SIGKILL)
            await asyncio.gather(*asking)
        assert await asyncio.to_thread(process.wait) == -signal.SIGKILL


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A ledger whose keys are copied to a volume of their own."""
    founded(tmp_path)
    (tmp_path / "volume").mkdir()
    config = configured(tmp_path)
    config.write_text(config.read_text() + f'copy_file = "{tmp_path}/volume/keys"\n')
    return tmp_path


def opened(place: Path) -> dict[str, tuple[int, str]]:
    """By each decision its person and value, as the ledger has them where of all keys the copy alone is left."""
    keys, config, openings = place / "after", place / "after.toml", place / "openings"
    config.write_text(f'[personal]\nsubject = "/arguments/customer_id"\nkeys_dir = "{keys}"\n')
    where = ("--config", config, "--data-dir", place / "ledger")
    here("subjects", "restore", place / "volume" / "keys", *where, "--custodian-key", place / "auditor.pem")
    here("subjects", "openings", place / "ledger", "--keys", keys, "--out", openings)
    assert here("verify", place / "ledger", "--openings", openings, code=4).startswith("UNANCHORED\n")
    shown = here("show", place / "ledger", "--openings", openings, "--json").splitlines()
    shutil.rmtree(keys)
    openings.unlink()
    found = {}
    for payload in (json.loads(line)["payload"] for line in shown):
        if payload["type"] == "DECISION":
            arguments = json.loads(payload["request"]["arguments"])
            found[payload["decision_id"]] = arguments["customer_id"], arguments["email"]
    return found


def random_kills(place: Path, times: int, seed: int) -> None:
    chooser, answered = random.Random(seed), Answered()
    with asyncio.Runner() as runner:
        for _ in range(times):
            with serving(place / "ledger", "--config", place / "sidecar.toml") as server:
                after, seconds = chooser.randint(1, 40), chooser.uniform(0, 0.005)
                runner.run(answered.killed(server.address, server.process, after, seconds))
            people = set(after_the_pod(place / "ledger", place / "volume" / "keys"))  # a start would mend the copy
            assert people >= {customer for customer, _ in answered.told.values()}
    found = opened(place)
    assert len(answered.told) >= times and found.items() >= answered.told.items()


def test_killed_anywhere_what_was_answered_opens_with_the_copy_alone(place: Path) -> None:
    random_kills(place, 2, seed=1)


@pytest.mark.soak
def test_killed_thirty_times(place: Path) -> None:
    random_kills(place, 30, seed=2)


def test_killed_between_the_copy_and_the_answer(place: Path) -> None:
    """Another process writes to the ledger's store: nothing is recorded meanwhile, so nothing is answered. The key that
    the copy has for nobody's decision is the one that this person has afterwards."""
    ledger, copy = place / "ledger", place / "volume" / "keys"
    answered: list[Exception] = []

    def ask(server: Any) -> None:
        with server.guard(attempts=1) as guard:
            try:
                guard.check("crm.read", ("customer", "record"), {"customer_id": 7, "email": "seven.quux@example.org"})
            except NoDecision as error:
                answered.append(error)

    with serving(ledger, "--config", place / "sidecar.toml") as server:
        before = copy.stat().st_size
        with holding(ledger):
            asking = threading.Thread(target=ask, args=(server,))
            asking.start()
            until(lambda: copy.stat().st_size > before)
            assert not answered
            server.process.send_signal(signal.SIGKILL)
            assert server.process.wait(60) == -signal.SIGKILL
            asking.join()
        assert len(answered) == 1
    (subject,) = listed(place / "sidecar.toml", ledger).values()
    assert opened(place) == {}
    with serving(ledger, "--config", place / "sidecar.toml") as server:
        ask(server)
        assert server.stop() == 0
    assert len(answered) == 1 and listed(place / "sidecar.toml", ledger) == {7: subject}
    assert list(opened(place).values()) == [(7, "seven.quux@example.org")]


@contextlib.contextmanager
def holding(ledger: Path) -> Iterator[None]:
    """Nobody else writes to the store meanwhile."""
    with contextlib.closing(lmdb.open(str(ledger / FILE), subdir=False, create=False)) as store:
        writes = store.begin(write=True)
        try:
            yield
        finally:
            writes.abort()
