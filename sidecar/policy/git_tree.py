"""Reading a commit and the policy in its tree (formats: git-cat-file(1), gitformat-signature(5)).

Nothing is written to disk, and the names in a tree go nowhere but into a mapping. The rules are those of `tree`, and
those that a file system sees to by itself: no "." or "..", no name twice, no ".git". A symbolic link is read as the
file it names within the policy's directory; one that leads elsewhere is refused. A submodule is counted and left:
nothing is read for it.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Final

from .findings import refused
from .git_errors import Damaged
from .source import Commit
from .tree import LINK_OUT, LINK_TO_DIRECTORY, LINK_TO_NOTHING, NEITHER, Sieve, TreeLimits, left_out, taken

Read = Callable[[str, str], bytes]
"""``read(id, kind)``: an object's content, checked against its id. Raises `Damaged` where it is absent or another."""

_TREE: Final = 0o040000
_LINK: Final = 0o120000
_GITLINK: Final = 0o160000
_FILE: Final = 0o100000
_MOST_TEXT: Final = 200
_MOST_LINKS: Final = 8
_MOST_PATH: Final = 1000
_MOST_COMMIT: Final = 1 << 20
_MOST_LINK: Final = 4096
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def read_policy(read: Read, tree: str, subdirectory: str, limits: TreeLimits) -> dict[str, bytes]:
    """The files of the policy in ``subdirectory`` of the tree with that id. Raises `Refused` and `Damaged`."""
    for depth, name in enumerate(subdirectory.split("/") if subdirectory else (), 1):
        named = [(mode, id) for mode, entry, id in _entries(read(tree, "tree")) if entry == name]
        if len(named) == 1 and named[0][0] == _TREE:
            tree = named[0][1]
        else:
            at = "/".join(subdirectory.split("/")[:depth])
            raise refused(f"there is no directory {at} in this commit; check the subdirectory and the ref")
    return _Reading(read, limits).run(tree)


class _Reading:
    """One tree, on its way into a `Sieve`."""

    def __init__(self, read: Read, limits: TreeLimits) -> None:
        self._read, self._sieve = read, Sieve(limits)
        self._blobs: dict[str, str] = {}
        self._links: dict[str, str] = {}
        self._others: set[str] = set()

    def run(self, tree: str) -> dict[str, bytes]:
        waiting = [("", tree)]
        while waiting:
            prefix, tree = waiting.pop()
            for mode, name, id in _entries(self._read(tree, "tree")):
                if self._sort(mode, prefix, name, id):
                    waiting.append((f"{prefix}{name}/", id))
        for path, id in sorted(self._blobs.items()):
            self._take(path, id)
        for path in sorted(self._links):
            self._follow(path)
        return self._sieve.files()

    def _sort(self, mode: int, prefix: str, name: str, id: str) -> bool:
        """Put an entry where it belongs; whether it is a directory to go into."""
        path = prefix + name
        if name in ("", ".", "..") or "/" in name or name.casefold() == ".git":
            if self._sieve.admits(path):
                self._sieve.fault(path, "has a name that git gives to no file; somebody made this tree by hand")
            return False
        if len(path) > _MOST_PATH:
            raise refused(f"the path is longer than {_MOST_PATH} characters", path[:300])
        if left_out(name) or not self._sieve.admits(path):
            return False
        if mode == _TREE:
            self._others.add(path)
            return True
        if mode == _LINK:
            self._links[path] = id
        elif mode & 0o170000 == _FILE:
            self._blobs[path] = id
        elif mode == _GITLINK:
            self._others.add(path)
        else:
            self._sieve.fault(path, NEITHER)
        return False

    def _take(self, path: str, id: str) -> None:
        if taken(path):
            self._sieve.add(path, self._read(id, "blob"))

    def _follow(self, link: str) -> None:
        at = link
        for _ in range(_MOST_LINKS):
            to = self._read(self._links[at], "blob")[:_MOST_LINK].decode(errors="surrogateescape")
            target = posixpath.normpath(posixpath.join(posixpath.dirname(at), to))
            if posixpath.isabs(to) or target == ".." or target.startswith("../"):
                self._sieve.fault(link, LINK_OUT)
                return
            if target in self._blobs:
                self._take(link, self._blobs[target])
                return
            if target not in self._links:
                self._sieve.fault(link, LINK_TO_DIRECTORY if target in {*self._others, "."} else LINK_TO_NOTHING)
                return
            at = target
        self._sieve.fault(link, LINK_TO_NOTHING)


def _entries(raw: bytes) -> Iterator[tuple[int, str, str]]:
    """Mode, name and id of each entry; names are as the file system would give them."""
    at = 0
    while at < len(raw):
        space = raw.find(b" ", at, at + 8)
        end = raw.find(b"\0", space)
        if space < 0 or end < 0 or (end + 20 >= len(raw) + 0 and end + 21 > len(raw)):
            raise Damaged("a tree is cut short")
        try:
            mode = int(raw[at:space], 8)
        except ValueError:
            raise Damaged("a tree has an entry without a mode") from None
        yield mode, raw[space + 1 : end].decode(errors="surrogateescape"), raw[end + 1 : end + 21].hex()
        at = end + 21


def parse_commit(id: str, raw: bytes) -> tuple[Commit, str]:
    """A commit and its tree's id. Raises `Damaged` for what is no commit, `Refused` for a huge one or odd dates."""
    if len(raw) > _MOST_COMMIT:
        raise refused(
            f"the commit itself is larger than {_MOST_COMMIT >> 20} MiB; make it again with a shorter message"
        )
    head, _, message = raw.partition(b"\n\n")
    lines = head.split(b"\n")
    after = 1 + len(parents_of(raw))
    author, authored = _person(lines, after, b"author ")
    committer, committed = _person(lines, after + 1, b"committer ")
    subject = _text(message.lstrip(b"\n").split(b"\n", 1)[0])
    return Commit(id, author, committer, authored, committed, subject, raw), _id_of(lines[0], b"tree ")


def parents_of(raw: bytes) -> tuple[str, ...]:
    """The ids of a commit's parents."""
    lines = raw.partition(b"\n\n")[0].split(b"\n")
    return tuple(_id_of(line, b"parent ") for line in takewhile(_is_parent, lines[1:]))


def _is_parent(line: bytes) -> bool:
    return line.startswith(b"parent ")


def _id_of(line: bytes, label: bytes) -> str:
    text = line.removeprefix(label) if line.startswith(label) else b""
    if len(text) != 40 or set(text) - set(b"0123456789abcdef"):
        raise Damaged("a commit is not in git's format")
    return text.decode()


def _person(lines: list[bytes], number: int, label: bytes) -> tuple[str, str]:
    if len(lines) <= number or not lines[number].startswith(label):
        raise Damaged("a commit is not in git's format")
    who, _, when = lines[number].removeprefix(label).rpartition(b"> ")
    try:
        seconds = int(when.split(b" ")[0][:20])
        date = (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError):
        raise refused("the commit has a date that is none; make it again") from None
    return _text(who + b">"), date.rjust(20, "0")


def _text(raw: bytes) -> str:
    return "".join(c if c.isprintable() else "\ufffd" for c in raw[: 4 * _MOST_TEXT].decode(errors="replace"))[
        :_MOST_TEXT
    ]
