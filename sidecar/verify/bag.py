"""The BagIt bag in a bundle: which files are listed, and under which digest (proto/EVIDENCE.md, "Bag")."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from sidecar.errors import Malformed

DECLARATION: Final = b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
BAGIT, INFO = "bagit.txt", "bag-info.txt"
MANIFEST, TAGS = "manifest-sha256.txt", "tagmanifest-sha256.txt"
TAGGED: Final = (INFO, BAGIT, MANIFEST)
PAYLOAD: Final = "data/"
_LINE = re.compile(r"([0-9a-f]{64})  ([^\n]+)\n")


def write_manifest(digests: Mapping[str, str]) -> bytes:
    """A manifest of these digests (hex, by name)."""
    return "".join(f"{digests[name]}  {name}\n" for name in sorted(digests)).encode()


def read_manifest(data: bytes, name: str) -> dict[str, str]:
    """Digests by name.

    Raises:
        Malformed: a line that is none, out of order, or twice.
    """
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        raise Malformed(f"{name}: not ASCII") from None
    found: dict[str, str] = {}
    at, last = 0, ""
    while at < len(text):
        line = _LINE.match(text, at)
        if line is None or line[2] <= last:
            raise Malformed(f"{name}: a line that is none, or not in its order")
        last, at = line[2], line.end()
        found[last] = line[1]
    return found


def missing(listed: Iterable[str], present: Iterable[str], name: str) -> str | None:
    """What is wrong between the names of a manifest and those that must be in it, or None."""
    wrong = sorted(set(listed) ^ set(present))
    if not wrong:
        return None
    what = "is listed and not there" if wrong[0] in set(listed) else "is there and not listed"
    return f"{name}: {wrong[0]} {what}"
