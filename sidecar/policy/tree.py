"""Reading a policy directory whose contents are not trusted: everything bounded, nothing followed out of it.

What is read is all that any later step sees, so the directory may change meanwhile. Taken are Rego, `data.json`,
`data.yaml`, the bundle's `.manifest` and `expectations.yaml`; other files are counted and left. `.git` and names that
begin with two dots (where Kubernetes keeps the versions of a mounted ConfigMap) are not looked into. A link to a file
within the directory is read as that file: that is what a mounted ConfigMap consists of.
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
_TAKEN: Final = {"data.json", "data.yaml", "data.yml", ".manifest", EXPECTATIONS}
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
    found: list[Finding] = []
    files: dict[str, bytes] = {}
    seen: dict[str, str] = {}
    left = limits.bytes
    for count, (path, inside) in enumerate(_walk(directory, limits.depth, found), 1):
        if count > limits.entries:
            raise refused(f"the directory has more than {limits.entries} entries; give the policy one of its own")
        if fault := _name_fault(path, seen):
            found.append(Finding(ascii(path)[1:-1][:300], 0, fault))
        elif inside is not None and _taken(path):
            files[path] = _read(inside, path, left)
            left -= len(files[path])
        if len(files) > limits.files:
            raise refused(f"the policy has more than {limits.files} files")
    if found:
        raise Refused(*found)
    if not any(path.endswith(".rego") for path in files):
        raise refused("there is no .rego file here; name the directory that holds the policy")
    return dict(sorted(files.items()))


def _taken(path: str) -> bool:
    return path.endswith(".rego") or PurePosixPath(path).name in _TAKEN


def _walk(root: Path, depth: int, found: list[Finding]) -> Iterator[tuple[str, Path | None]]:
    """Each entry's path, and where its content is; None for a directory. What is neither goes to ``found``."""
    top = root.resolve()
    waiting = [("", top)]
    while waiting:
        prefix, place = waiting.pop()
        for entry in _entries(place, prefix):
            path = prefix + entry.name
            if entry.is_symlink():
                inside = _linked(top, Path(entry.path), path, found)
            elif entry.is_dir():
                inside = None
                waiting.append((path + "/", Path(entry.path)))
            elif entry.is_file():
                inside = Path(entry.path)
            else:
                found.append(Finding(path, 0, "is neither a file nor a directory"))
                continue
            if path.count("/") > depth:
                raise refused(f"directories are more than {depth} deep", path[:300])
            yield path, inside


def _entries(place: Path, prefix: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(place) as entries:
            kept = [e for e in entries if e.name != ".git" and not e.name.startswith("..")]
    except OSError as error:
        raise refused(f"cannot be read: {error.strerror}", prefix) from None
    return sorted(kept, key=lambda entry: entry.name)


def _linked(top: Path, link: Path, path: str, found: list[Finding]) -> Path | None:
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):
        found.append(Finding(path, 0, "is a link to nothing"))
        return None
    if not target.is_relative_to(top):
        found.append(Finding(path, 0, "is a link out of the policy directory; put the file itself there"))
    elif not target.is_file():
        found.append(Finding(path, 0, "is a link to something that is not a file; put the directory itself there"))
    else:
        return target
    return None


def _name_fault(path: str, seen: dict[str, str]) -> str:
    """Why no file of a policy may be called so; the path is remembered under the name it has where case is ignored."""
    name = PurePosixPath(path).name
    if not name.isprintable() or "\\" in name:
        return "has a name with a backslash or a character that cannot be printed; rename it"
    other = seen.setdefault(unicodedata.normalize("NFC", path.casefold()), path)
    if other != path:
        return f"differs from {other} in case only; where case is ignored one would replace the other"
    return ""


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
        raise refused("with this file the policy is larger than the gate takes", path)
    return content
