"""Small file systems of a test's own, for faults that only a real one shows. Taken away again whatever happens."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.needs import cannot_run

_EXT4_IOC_SHUTDOWN: Final = 0x8004587D  # _IOR('X', 125, __u32), <linux/fs.h> of the kernel's ext4
_NO_LOG_FLUSH: Final = 2  # as in a power cut: what the journal has not on disk is lost


@contextlib.contextmanager
def tmpfs(mebibytes: int) -> Iterator[Path]:
    """A tmpfs of that size, not below pytest's own directories: a mount left there would stop its cleaning."""
    _needs_root()
    with _place() as place:
        _mount(["-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(place)])
        with _mounted(place):
            yield place


class Disk:
    """An ext4 file system in a file, which can be broken while it is in use, and mounted again."""

    def __init__(self, image: Path, place: Path) -> None:
        self._image, self.place = image, place

    def mount(self) -> None:
        _mount(["-o", "loop", str(self._image), str(self.place)])

    def flush(self) -> None:
        """Have everything written so far on the disk."""
        _run(["sync", "--file-system", str(self.place)])

    def mount_again(self) -> None:
        """As after a power cut: only what had reached the disk is there."""
        _run(["umount", str(self.place)])
        self.mount()

    def turn_read_only(self) -> None:
        """What the kernel does to an ext4 with ``errors=remount-ro``: writes fail with EROFS, also in open files."""
        _run(["mount", "-o", "remount,abort", str(self.place)])

    def fail(self) -> None:
        """Every read and write fails with EIO."""
        directory = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(directory, _EXT4_IOC_SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(directory)


@contextlib.contextmanager
def ext4(mebibytes: int) -> Iterator[Disk]:
    """A new ext4 of that size."""
    _needs_root()
    with _place() as place, tempfile.NamedTemporaryFile() as image:
        os.truncate(image.name, mebibytes << 20)
        if shutil.which("mkfs.ext4") is None:
            cannot_run("needs mkfs.ext4: install e2fsprogs with the system's package manager")
        _run(["mkfs.ext4", "-q", "-F", image.name])
        disk = Disk(Path(image.name), place)
        disk.mount()
        with _mounted(place):
            yield disk


def _needs_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs the right to mount a file system: run as root")


@contextlib.contextmanager
def _place() -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="sidecar-fault-"))
    try:
        yield place
    finally:
        place.rmdir()


@contextlib.contextmanager
def _mounted(place: Path) -> Iterator[None]:
    try:
        yield
    finally:
        _run(["umount", "--lazy", str(place)])


def _mount(arguments: list[str]) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if done.returncode:
        cannot_run(f"needs the right to mount a file system, which root lacks here: {done.stderr.strip()}")


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
