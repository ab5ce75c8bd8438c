"""A policy directory or bundle file that is looked at again and again."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest

from sidecar.errors import PolicySourceError
from sidecar.policy.bundle import MAX_BUNDLE_BYTES
from sidecar.policy.findings import Refused
from sidecar.policy.path_source import PathSource
from sidecar.policy.source import Candidate
from sidecar.policy.tree import TreeLimits

POLICY = b"package p\n"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    place = tmp_path / "policy"
    (place / "sub").mkdir(parents=True)
    (place / "p.rego").write_bytes(POLICY)
    (place / "sub" / "data.json").write_bytes(b"{}")
    return place


def found(source: PathSource, seen: str = "") -> Candidate:
    candidate = source.look(seen, "")
    assert candidate is not None
    return candidate


def settled(place: Path) -> None:
    """As if nobody had touched it for a minute; what cannot be set back is the time of the change of the inode."""
    for file in place.rglob("*"):
        os.utime(file, (1_700_000_000, 1_700_000_000))


def test_a_directorys_revision_is_the_digest_of_its_files(place: Path) -> None:
    source = PathSource(place)
    candidate = found(source)
    assert source.place == str(place) and candidate.files == {"p.rego": POLICY, "sub/data.json": b"{}"}
    assert (candidate.bundle, candidate.commit, candidate.follows) == (None, None, None)
    canonical = b"sidecar/v1/policy-tree\0"
    for part in (b"p.rego", POLICY, b"sub/data.json", b"{}"):
        canonical += len(part).to_bytes(8, "big") + part
    assert candidate.revision == "sha256:" + hashlib.sha256(canonical).hexdigest()


def test_a_directory_is_watched(place: Path) -> None:
    source = PathSource(place)
    first = found(source).revision
    assert source.look(first, first) is None
    (place / "README.md").write_text("not the policy's")
    assert source.look(first, first) is None
    (place / "p.rego").write_bytes(b"package q\n")
    second = found(source, first)
    assert second.files["p.rego"] == b"package q\n"
    (place / "sub" / "data.json").unlink()
    third = found(source, second.revision)
    assert list(third.files) == ["p.rego"]
    (place / "p.rego").rename(place / "r.rego")
    fourth = found(source, third.revision)
    assert list(fourth.files) == ["r.rego"] and fourth.revision != third.revision
    (place / "r.rego").rename(place / "p.rego")
    (place / "p.rego").write_bytes(POLICY)
    (place / "sub" / "data.json").write_bytes(b"{}")
    assert found(source, fourth.revision).revision == first
    assert found(PathSource(place)).revision == first, "another process names it alike"
    (place / "p.rego").write_bytes(b"package x\n")
    settled(place)
    assert found(source, first).files["p.rego"] == b"package x\n", "of the same length and an old date"


def test_a_change_within_one_tick_of_the_clock_is_seen(place: Path) -> None:
    source, seen = PathSource(place), ""
    for number in range(200):
        (place / "p.rego").write_bytes(b"package p%03d\n" % number)
        candidate = found(source, seen)
        assert candidate.files["p.rego"] == b"package p%03d\n" % number
        seen = candidate.revision


def test_a_directory_behind_a_link_that_turns(place: Path, tmp_path: Path) -> None:
    other, link = tmp_path / "other", tmp_path / "link"
    other.mkdir()
    (other / "o.rego").write_bytes(POLICY)
    link.symlink_to(place)
    source = PathSource(link)
    first = found(source).revision
    (tmp_path / "new").symlink_to(other)
    (tmp_path / "new").rename(link)
    assert list(found(source, first).files) == ["o.rego"]


def test_a_directory_that_is_refused_or_gone(place: Path) -> None:
    source = PathSource(place, TreeLimits(bytes=100))
    first = found(source).revision
    (place / "x.rego").symlink_to("/etc/passwd")
    (place / "y.rego").write_bytes(bytes(101))
    for _ in range(2):
        with pytest.raises(Refused, match="larger than the gate takes"):
            source.look(first, first)
    (place / "y.rego").unlink()
    with pytest.raises(Refused, match="link out of the policy directory"):
        source.look(first, first)
    (place / "x.rego").unlink()
    assert source.look(first, first) is None
    place.rename(place.with_name("away"))
    with pytest.raises(PolicySourceError, match="cannot be read: No such file or directory; put"):
        source.look(first, first)
    place.with_name("away").rename(place)
    assert source.look(first, first) is None


def test_a_bundle_file(tmp_path: Path) -> None:
    file = tmp_path / "bundle.tar.gz"
    source = PathSource(file)
    with pytest.raises(PolicySourceError, match="No such file"):
        source.look("", "")
    file.write_bytes(b"some bytes that the gate will judge")
    first = found(source)
    assert first.bundle == file.read_bytes() and first.files == {}
    assert first.revision == "sha256:" + hashlib.sha256(first.bundle).hexdigest()
    assert source.look(first.revision, "") is None
    file.write_bytes(b"other bytes")
    assert found(source, first.revision).bundle == b"other bytes"
    with file.open("wb") as stream:
        stream.truncate(MAX_BUNDLE_BYTES + 1)
    with pytest.raises(Refused, match="larger than 16 MiB"):
        source.look("", "")
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(Refused, match="neither a directory nor a plain file"):
        source.look("", "")


def test_a_directory_that_is_always_written_to_gives_only_what_was_there(place: Path) -> None:
    """With the rename that the docstring asks for, each look finds a whole file, or says that it could not."""
    over, source = threading.Event(), PathSource(place)
    versions = [b"package p\n# %d\n" % number + b"#" * 20_000 for number in range(2)]

    def write() -> None:
        number = 0
        while not over.is_set():
            number += 1
            new = place / "new"
            new.write_bytes(versions[number % 2])
            new.rename(place / "p.rego")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(100):
            try:
                assert found(source).files["p.rego"] in (*versions, POLICY)
            except PolicySourceError as error:
                assert "is being written to" in str(error)
    finally:
        over.set()
        thread.join()
    assert found(source).files["p.rego"] in versions
