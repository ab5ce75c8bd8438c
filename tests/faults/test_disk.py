"""The disk fails under a running sidecar: read-only, gone, full. It stops, says so, and goes on after what it told."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.v1 import decision_pb2 as pb
from tests.api.running import request
from tests.faults.load import Load, Told, assert_kept
from tests.faults.mounts import Disk, ext4, tmpfs
from tests.program import Serving, made, serving


def bulky(number: int) -> pb.DecideRequest:
    """A decision whose entry takes some 200 KiB that do not compress."""
    return request(arguments=f'{{"a": "{os.urandom(100_000).hex()}"}}'.encode())


async def broken_under_load(server: Serving, told: Told, fault: Callable[[], None], **kinds: int) -> int:
    """Callers ask while the fault comes; gives the sidecar's exit code once it stopped by itself."""
    async with Load(server.address, told).running(unary=8, **kinds):
        await told.more(200)
        await asyncio.to_thread(fault)
        return await asyncio.to_thread(server.process.wait, 60)


def last_words(server: Serving) -> str:
    """What it wrote after it was ready."""
    assert server.process.stderr is not None
    return server.process.stderr.read()


@pytest.mark.parametrize("fault", [Disk.turn_read_only, Disk.fail], ids=["read-only", "EIO"])
def test_a_disk_that_fails_ends_all_answers(fault: Callable[[Disk], None]) -> None:
    """With EIO the file system is cut off as by a power cut, so what was answered must have been flushed for good."""
    with ext4(48) as disk:
        ledger, key = made(disk.place)
        disk.flush()  # the custodian's key, which nobody promised to have flushed
        told = Told()
        with serving(ledger) as server:
            code = asyncio.run(broken_under_load(server, told, lambda: fault(disk), batches=2))
            said = last_words(server)
        assert code != 0 and told.refused["UNAVAILABLE"]
        assert "the ledger failed" in said and "Traceback" not in said, said
        disk.mount_again()
        assert_kept(ledger, key, told)
        with serving(ledger) as server:
            asyncio.run(answered_again(server, told))
            assert server.stop() == 0
        assert_kept(ledger, key, told)


async def answered_again(server: Serving, told: Told) -> None:
    async with Load(server.address, told).running(unary=2):
        await told.more(10)
        await asyncio.to_thread(server.stop)


def test_a_read_only_disk_is_refused_at_the_start() -> None:
    with ext4(48) as disk:
        ledger, key = made(disk.place)
        disk.flush()  # the custodian's key, which nobody promised to have flushed
        disk.turn_read_only()
        with pytest.raises(AssertionError, match="did not start") as caught, serving(ledger):
            pass
        assert "Traceback" not in str(caught.value)
        disk.mount_again()
        assert_kept(ledger, key, Told())


def test_a_disk_that_fills_up_refuses_and_closes_in_order() -> None:
    with tmpfs(16) as place:
        ledger, key = made(place)
        told = Told()

        async def main() -> int:
            with serving(ledger) as server:
                async with Load(server.address, told, bulky).running(unary=4):
                    await told.more(10)
                    await told.refusals("RESOURCE_EXHAUSTED", 20)
                    return await asyncio.to_thread(server.stop)

        assert asyncio.run(main()) == 0
        assert_kept(ledger, key, told)


def test_a_disk_that_somebody_else_fills_ends_all_answers() -> None:
    with tmpfs(32) as place:
        ledger, key = made(place)
        told, hog = Told(), place / "hog"
        with serving(ledger) as server:
            code = asyncio.run(broken_under_load(server, told, lambda: fill(hog)))
            said = last_words(server)
        assert code != 0 and told.refused.total()
        assert "Traceback" not in said, said
        hog.unlink()
        assert_kept(ledger, key, told)
        with serving(ledger) as server:
            asyncio.run(answered_again(server, told))
        assert_kept(ledger, key, told)


def fill(hog: Path) -> None:
    with hog.open("wb", buffering=0) as file, pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        for size in (1 << 16, 4096):
            while True:
                file.write(bytes(size))
