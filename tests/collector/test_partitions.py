"""Hosts cut off from each other and killed at random under load: sidecars, one collector, its PostgreSQL, its S3.

Afterwards every answered decision is with the collector, each receipt verifies offline, the log extends each checkpoint
that it ever showed, and no alarm was raised that should not have been. SIDECAR_SOAK_SEED: another run of the same kind.
"""

from __future__ import annotations

import json
import random
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from sidecar.collector.index.postgres import open_postgres
from sidecar.collector.storage.s3 import S3Storage
from tests.collector.fleet import Fleet, fleet
from tests.collector.test_kills import consistent, decisions
from tests.collector.test_log import KEY, ORIGIN
from tests.collector.test_shipping import verdict
from tests.scribe import SOAK
from tests.soak.figures import tell, wanted

CUT = ("collector", "database", "store")
SECONDS = wanted("PARTITION_SECONDS", 300) if SOAK else 0
SIDECARS = 3


def test_cut_off_and_killed_at_random_nothing_is_lost(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    seed = wanted("SEED", 7)
    print(f"seed {seed}")  # shown where the test fails
    chooser, faults, began = random.Random(seed), 0, time.monotonic()
    with fleet(tmp_path, SIDECARS, "segment_entries = 40", "segment_seconds = 1") as running:
        while not faults or time.monotonic() - began < SECONDS:
            faults += one_pass(running, chooser)
        settle(running)
        entries = assert_whole(running)
    took = time.monotonic() - began
    tell(
        pytestconfig,
        f"{faults} faults of {SIDECARS} sidecars, collector, PostgreSQL and S3 on hosts of their own in {took:.0f} s, "
        f"seed {seed}: {running.answered()} decisions answered, 0 missing of {entries} entries, "
        f"{len(running.seen)} checkpoints seen, all extended, 0 alarms",
    )


def one_pass(running: Fleet, chooser: random.Random) -> int:
    """Each kind of host cut off once, and in the middle of that, something killed. How many faults."""
    pods = [pod.host.name for pod in running.pods]
    cuts = [*CUT, chooser.choice(pods)]
    kills = ["collector", "database", chooser.choice(pods), chooser.choice(pods)]
    chooser.shuffle(cuts)
    chooser.shuffle(kills)
    for cut, killed in zip(cuts, kills, strict=True):
        running.wait(chooser.randrange(20, 80), 5)
        running.at[cut].cut()
        running.wait(chooser.randrange(5, 80), 2)
        heal = threading.Timer(chooser.uniform(0.1, 1.5), running.at[cut].heal)
        running.kill(killed, heal.start)
        heal.join()
    return len(cuts) + len(kills)


def settle(running: Fleet) -> None:
    """All goes on for a while, then ends in order."""
    running.wait(100, 10)
    for pod in running.pods:
        pod.end_calls()
        pod.ask_to_stop()
    for pod in running.pods:
        assert pod.stop() == 0
    assert running.stop_collector() == 0


def assert_whole(running: Fleet) -> int:
    """As the top of this file says; how many entries there are."""
    trust = running.place / "trust.json"
    done = running.command("trust", "--out", trust)
    assert done.returncode == 0, done.stderr
    held = running.at["observer"].call(lambda: _held(running))
    done = running.command("verify", "--json")
    assert done.returncode == 0, done.stdout
    verified = {each["chain"]: each["entries"] for each in json.loads(done.stdout)["chains"]}
    done = running.command("status", "--json")
    assert json.loads(done.stdout)["alarms"] == [], done.stdout
    entries = 0
    for pod in running.pods:
        assert pod.answered and set(pod.answered) <= held
        report = verdict(pod.ledger, trust, "--custodian-key", pod.custodian)
        assert report["verdict"] in ("OK", "UNANCHORED"), report["findings"]
        assert all("ended by a crash" in each["reason"] for each in report["findings"]), report["findings"]
        assert list((pod.ledger / "receipts").glob("seal-*"))
        entries += report["entries"]
    assert sum(verified.values()) == entries
    return entries


def _held(running: Fleet) -> set[str]:
    storage = S3Storage(running.bucket)
    with closing(open_postgres(running.base.address)) as index:
        consistent(storage, index, ORIGIN, KEY, running.seen)
    return decisions(storage)
