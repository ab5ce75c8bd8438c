"""Reading a policy directory whose contents are not trusted: everything bounded, nothing followed out of it.

What is read is all that any later step sees, so the directory may change meanwhile. Taken are Rego, `data.json`,
`data.yaml`, the bundle's `.manifest`, `expectations.yaml` and, at the top, `registry.json`; other files are counted
and left. `.git` and names that begin with two dots (where Kubernetes keeps the versions of a mounted ConfigMap) are not
looked into. A link to a file within the directory is read as that file: that is what a mounted ConfigMap consists of.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from sidecar.errors import UsageError

from .findings import Finding, Refused, refused

EXPECTATIONS: Final = "expectations.yaml"
REGISTRY: Final = "registry.json"
_TAKEN: Final = {"data.json", "data.yaml", "data.yml", ".manifest", EXPECTATIONS}
NEITHER: Final = "is neither a file nor a directory"
LINK_OUT: Final = "is a link out of the policy directory; put the file itself there"
LINK_TO_NOTHING: Final = "is a link to nothing"
LINK_TO_DIRECTORY: Final = "is a link to something that is not a file; put the directory itself there"
_READING: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class TreeLimits:
    """The most a policy directory may hold: ``entries`` of any kind, ``files`` that belong to the policy, their
    ``bytes`` together, and directories ``depth`` deep."""

    entries: int = 20_000
    files: int = 4_000
    bytes: int = 32 << 20
    depth: int = 32


def read_tree(directory: Path, limits: TreeLimits) -> dict[str, bytes]:
    """The policy's files by path.

    Raises `UsageError` where there is no directory, `Refused` with everything that is wrong with names and sizes.
    """
    if not directory.is_dir():
        raise UsageError(f"{directory} is not a directory; name the one that holds the policy")
    sieve = Sieve(limits)
    for path, inside in _walk(directory, sieve):
        if sieve.admits(path) and inside is not None and taken(path):
            sieve.add(path, _read(inside, path, sieve.left))
    return sieve.files()


class Sieve:
    """What of a tree is the policy's, and what is wrong with the rest: the same for a directory and a git tree."""

    def __init__(self, limits: TreeLimits) -> None:
        self.left = limits.bytes
        self._limits = limits
        self._entries = 0
        self._files: dict[str, bytes] = {}
        self._found: list[Finding] = []
        self._seen: dict[str, str] = {}
        self._paths: set[str] = set()

    def admits(self, path: str) -> bool:
        """Count an entry and judge its name; raises `Refused` at once where there are too many, or it is too deep."""
        self._entries += 1
        if path.count("/") > self._limits.depth:
            raise refused(f"directories are more than {self._limits.depth} deep", _shown(path))
        if self._entries > self._limits.entries:
            raise refused(f"the directory has more than {self._limits.entries} entries; give the policy one of its own")
        fault = "is there twice" if path in self._paths else _name_fault(path, self._seen)
        self._paths.add(path)
        if fault:
            self.fault(path, fault)
        return not fault

    def fault(self, path: str, message: str) -> None:
        """Remember what is wrong with an entry."""
        self._found.append(Finding(_shown(path), 0, message))

    def add(self, path: str, content: bytes) -> None:
        """Take a file of at most ``left`` bytes; raises `Refused` for more, and for one file too many."""
        if len(content) > self.left:
            raise too_large(path)
        self._files[path] = content
        self.left -= len(content)
        if len(self._files) > self._limits.files:
            raise refused(f"the policy has more than {self._limits.files} files")

    def files(self, *, rego: bool = True) -> dict[str, bytes]:
        """What was taken, sorted. Raises `Refused` with every fault, or for a policy without the ``rego`` it needs."""
        if self._found:
            raise Refused(*self._found)
        if rego and not any(path.endswith(".rego") for path in self._files):
            raise refused("there is no .rego file here; name the directory that holds the policy")
        return dict(sorted(self._files.items()))


def taken(path: str) -> bool:
    """Whether a file of this name belongs to the policy."""
    return path.endswith(".rego") or path == REGISTRY or PurePosixPath(path).name in _TAKEN


def left_out(name: str) -> bool:
    """Whether an entry is not looked at, nor anything below it."""
    return name == ".git" or name.startswith("..")


def _name_fault(path: str, seen: dict[str, str]) -> str:
    """Why no file of a policy may be called so; the path is remembered under the name it has where case is ignored."""
    name = PurePosixPath(path).name
    if not name.isprintable() or "\\" in name:
        return "has a name with a backslash or a character that cannot be printed; rename it"
    other = seen.setdefault(unicodedata.normalize("NFC", path.casefold()), path)
    if other != path:
        return f"differs from {other} in case only; where case is ignored one would replace the other"
    return ""


def too_large(path: str) -> Refused:
    """The refusal of a file for which there is no room left."""
    return refused("with this file the policy is larger than the gate takes", path)


def _shown(path: str) -> str:
    return ascii(path)[1:-1][:300]


def _walk(root: Path, sieve: Sieve) -> Iterator[tuple[str, Path | None]]:
    """Each entry's path, and where its content is; None for a directory. What is neither is a fault."""
    top = root.resolve()
    waiting = [("", top)]
    while waiting:
        prefix, place = waiting.pop()
        for entry in _entries(place, prefix):
            path = prefix + entry.name
            if entry.is_symlink():
                inside = _linked(top, Path(entry.path), path, sieve)
            elif entry.is_dir():
                inside = None
                waiting.append((path + "/", Path(entry.path)))
            elif entry.is_file():
                inside = Path(entry.path)
            else:
                sieve.fault(path, NEITHER)
                continue
            yield path, inside


def _entries(place: Path, prefix: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(place) as entries:
            kept = [e for e in entries if not left_out(e.name)]
    except OSError as error:
        raise refused(f"cannot be read: {error.strerror}", prefix) from None
    return sorted(kept, key=lambda entry: entry.name)


def _linked(top: Path, link: Path, path: str, sieve: Sieve) -> Path | None:
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):
        sieve.fault(path, LINK_TO_NOTHING)
        return None
    if target.is_relative_to(top) and target.is_file():
        return target
    sieve.fault(path, LINK_TO_DIRECTORY if target.is_relative_to(top) else LINK_OUT)
    return None


def _read(place: Path, path: str, most: int) -> bytes:
    try:
        descriptor = os.open(place, _READING)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise refused("is not a plain file", path)
            content = file.read(most + 1)
    except OSError as error:
        raise refused(f"cannot be read: {error.strerror}", path) from None
    if len(content) > most:
        raise too_large(path)
    return content
