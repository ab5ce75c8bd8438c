"""Permits are taken once by all processes that share a file, and after a restart; what cannot be known is no leave."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sidecar.client.taken import TakenInFile
from sidecar.errors import UsageError
from tests.client.test_permits import MINUTE, NOW, Clock, cause, permit, permits, take

MANY = 200
RACER = f"""
import sys
from pathlib import Path
from sidecar.client.taken import TakenInFile

taken = TakenInFile(Path(sys.argv[1]), 1000)
print("ready", flush=True)
sys.stdin.readline()
print(*(n for n in range({MANY}) if taken.take(str(n), {NOW + MINUTE}, {NOW}) == "taken"), flush=True)
"""


def test_two_processes_take_each_permit_once_between_them(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RACER, str(tmp_path / "taken")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as one, subprocess.Popen(command, **pipes) as other:
        for racer in (one, other):
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        for racer in (one, other):
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        took = [racer.stdout.readline().split() for racer in (one, other) if racer.stdout is not None]
    assert sorted(map(int, took[0] + took[1])) == list(range(MANY))


def test_after_a_restart_it_is_taken_still(tmp_path: Path) -> None:
    store = tmp_path / "taken"
    take(permits(store=store), permit())
    again = permits(store=store)
    assert cause(again, permit()) == "used"
    take(again, permit(1))
    assert stat.S_IMODE(store.stat().st_mode) == 0o600


def test_a_clock_put_back_over_a_restart_brings_nothing_to_life(tmp_path: Path) -> None:
    clock = Clock()
    take(permits(clock, store=tmp_path / "taken"), permit())
    clock.ns = NOW + MINUTE
    assert cause(permits(clock, store=tmp_path / "taken"), permit()) == "expired"
    clock.ns = NOW
    assert cause(permits(clock, store=tmp_path / "taken"), permit()) == "expired"


def test_the_file_is_bounded_and_full_is_no_leave(tmp_path: Path) -> None:
    clock = Clock()
    check = permits(clock, store=tmp_path / "taken", remember=3)
    for n in range(3):
        take(check, permit(n))
    assert cause(check, permit(3)) == "full"
    clock.ns = NOW + MINUTE
    take(check, permit(4, not_after=NOW + 2 * MINUTE))


def test_of_many_threads_one_gets_it_in_a_file_too(tmp_path: Path) -> None:
    taken = TakenInFile(tmp_path / "taken", 100)
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda _: taken.take("one", NOW + MINUTE, NOW), range(32)))
    assert sorted(got) == ["taken"] + ["used"] * 31


def test_after_a_fork_the_child_takes_nothing_a_second_time(tmp_path: Path) -> None:
    taken = TakenInFile(tmp_path / "taken", 100)
    assert taken.take("one", NOW + MINUTE, NOW) == "taken"
    child = os.fork()
    if child == 0:
        os._exit(0 if [taken.take(name, NOW + MINUTE, NOW) for name in ("one", "two")] == ["used", "taken"] else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert taken.take("two", NOW + MINUTE, NOW) == "used"


def test_a_file_that_is_damaged_is_no_leave(tmp_path: Path) -> None:
    store = tmp_path / "taken"
    check = permits(store=store)
    take(check, permit())
    for each in tmp_path.iterdir():
        each.write_bytes(b"\xff" * max(4096, each.stat().st_size))
    assert cause(check, permit(1)) == "store"
    with pytest.raises(UsageError, match="not a file of permits"):
        permits(store=store)
    with pytest.raises(UsageError, match="cannot write"):
        permits(store=tmp_path / "none" / "taken")
