"""Policies from a local directory or bundle file, watched by asking again and again.

What is read is a snapshot in memory; it is read anew where a file changed meanwhile, and then judged by the gate.
Several files that belong together can still be caught between two writes: the way to change a policy whole is to make
the new directory or file beside the old one and rename it into place, or to turn a symbolic link (rename(2) is atomic).
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterator, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Final

from sidecar.errors import PolicySourceError, UsageError
from sidecar.files import Signature

from .bundle import MAX_BUNDLE_BYTES
from .findings import Refused, refused
from .source import Candidate
from .tree import TreeLimits, left_out, read_tree, taken

_LABEL: Final = b"sidecar/v1/policy-tree\0"
_TRIES: Final = 3
_SETTLED: Final = 2.0  # seconds: a file may change twice in one tick of the file system's clock
_READING: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC

_Seen = tuple[tuple[str, Signature | int], ...]
"""By path the signature of a file that belongs to the policy, and of all else what kind it is of."""


class PathSource:
    """A directory or a bundle file (`.tar.gz`) that is looked at again and again; implements `Source`."""

    def __init__(self, path: Path, limits: TreeLimits | None = None) -> None:
        """``path`` may come, go and be replaced at any time; a symbolic link there is followed anew at each look."""
        self._path, self._limits = path.absolute(), limits or TreeLimits()
        self._known: tuple[_Seen, str] | None = None

    @property
    def place(self) -> str:
        return str(self._path)

    def look(self, seen: str, active: str) -> Candidate | None:
        """What is there now, or None where it is still ``seen``. Blocks; one call at a time.

        The revision is ``sha256:`` and a digest of a bundle file's bytes, or of a directory's files (`tree_digest`).
        Raises `PolicySourceError` where nothing can be read, or never the same twice; `Refused` as `read_tree` does.
        """
        for _ in range(_TRIES):
            now = time.time()
            before = self._signatures()
            if seen and self._known == (before, seen):
                return None
            found, fault = self._read()
            if self._signatures() == before:
                break
        else:
            raise PolicySourceError(f"{self._path} is being written to; put what is ready in its place with one rename")
        if fault is not None:
            raise fault
        settled = all(
            now - max(of.modified, of.changed) / 1e9 > _SETTLED for _, of in before if isinstance(of, Signature)
        )
        self._known = (before, found.revision) if settled else None
        return None if found.revision == seen else found

    def _read(self) -> tuple[Candidate, Refused | None]:
        """What is there, or why it may not be read: that may be due to somebody who is writing."""
        try:
            if self._path.is_dir():
                files = read_tree(self._path, self._limits)
                return Candidate(f"sha256:{tree_digest(files)}", files), None
            packed = self._read_bundle()
            return Candidate(f"sha256:{hashlib.sha256(packed).hexdigest()}", bundle=packed), None
        except Refused as error:
            return Candidate(""), error
        except UsageError:
            raise PolicySourceError(f"{self._path} was taken away just now; it is looked for again") from None
        except OSError as error:
            raise self._unreadable(error) from None

    def _read_bundle(self) -> bytes:
        with os.fdopen(os.open(self._path, _READING), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise refused("is neither a directory nor a plain file; name a policy directory or a bundle")
            packed = file.read(MAX_BUNDLE_BYTES + 1)
        if len(packed) > MAX_BUNDLE_BYTES:
            raise refused(
                f"the bundle is larger than {MAX_BUNDLE_BYTES >> 20} MiB; take out what does not belong to it"
            )
        return packed

    def _signatures(self) -> _Seen:
        """Names and kinds of all entries; and of the policy's own files what changes when their content does."""
        try:
            if not self._path.is_dir():
                return (("", Signature.of(self._path.stat())),)
            return tuple(sorted(self._entries(), key=itemgetter(0)))
        except OSError as error:
            raise self._unreadable(error) from None

    def _entries(self) -> Iterator[tuple[str, Signature | int]]:
        waiting, left = [("", str(self._path))], self._limits.entries
        while waiting and left > 0:
            prefix, place = waiting.pop()
            with os.scandir(place) as entries:
                for entry in entries:
                    left -= 1
                    if left_out(entry.name) or left < 0:
                        continue
                    path = prefix + entry.name
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append((path + "/", entry.path))
                    if taken(path) and entry.is_file():
                        yield path, Signature.of(entry.stat())
                    else:
                        yield path, entry.is_symlink() * 2 + entry.is_file()

    def _unreadable(self, error: OSError) -> PolicySourceError:
        return PolicySourceError(
            f"{self._path} cannot be read: {error.strerror}; put a policy directory or bundle there"
        )


def tree_digest(files: Mapping[str, bytes]) -> str:
    """SHA-256 in hex over a label and, by path, the lengths and bytes of each path and file.

    Lengths are 8 bytes, big-endian; paths are UTF-8 and come in the order of their characters.
    """
    digest = hashlib.sha256(_LABEL)
    for path in sorted(files):
        for part in (path.encode(), files[path]):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()
