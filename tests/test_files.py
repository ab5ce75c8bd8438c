"""Files that are written so that they last, and files that are seen to change."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar import files


def test_a_new_file_has_its_mode_whatever_the_umask_is_and_replaces_nothing(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        files.write_new(tmp_path / "a", b"one", 0o644)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644
    with pytest.raises(FileExistsError):
        files.write_new(tmp_path / "a", b"two")
    assert (tmp_path / "a").read_bytes() == b"one"


def test_what_is_put_takes_the_place_of_what_was_there_and_of_what_a_crash_left(tmp_path: Path) -> None:
    (tmp_path / "a.new").write_bytes(b"half")
    files.put(tmp_path / "a", b"one")
    files.put(tmp_path / "a", b"two")
    assert [(p.name, p.read_bytes(), stat.S_IMODE(p.stat().st_mode)) for p in tmp_path.iterdir()] == [
        ("a", b"two", 0o600)
    ]


def test_what_cannot_be_written_leaves_the_one_before_and_no_draft(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    program = """
import resource, sys
from pathlib import Path
from sidecar import files
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    files.put(Path(sys.argv[1]), bytes(8192))
except OSError as error:
    sys.exit(error.strerror)
"""
    run = subprocess.run([sys.executable, "-c", program, tmp_path / "a"], capture_output=True, text=True, check=False)
    assert run.stderr == "File too large\n"
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a", b"one")]


def test_as_many_may_be_open_as_the_system_allows() -> None:
    program = """
import resource
from sidecar import files
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 80))
files.allow_many()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "80 80\n"


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(b"another length"),
        lambda path: path.chmod(0o640),
        lambda path: os.utime(path, ns=(1, 1)),
        lambda path: path.with_name("b").replace(path),
        lambda path: path.unlink(),
    ],
    ids=["content", "rights", "times", "replaced", "gone"],
)
def test_a_signature_differs_once_a_file_changed(tmp_path: Path, change: Callable[[Path], object]) -> None:
    path = tmp_path / "a"
    for each in (path, path.with_name("b")):  # alike but for the inode and when it changed
        each.write_bytes(b"one")
        os.utime(each, ns=(0, 0))
    before = files.signature(path)
    assert before is not None and files.signature(path) == before
    change(path)
    assert files.signature(path) != before
