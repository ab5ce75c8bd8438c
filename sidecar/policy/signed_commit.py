"""A git commit object, taken apart into its signature and what that is over (gitformat-signature(5), git-fsck(1)).

Git takes the signature from the header `gpgsig`, or `gpgsig-sha256` where objects are named by SHA-256, and what is
signed is the object without that header. Whatever could be read in two ways is refused.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from .findings import Refused, refused

MAX_COMMIT: Final = 1 << 20
_SIGNATURE: Final = b"gpgsig"
_HEADERS: Final = re.compile(
    rb"tree [0-9a-f]+\n(?:parent [0-9a-f]+\n)*author [^\n]+\ncommitter [^\n<>]*<[^\n<>]*> (\d{1,11}) [+-]\d{4}\n"
)
_MORE: Final = re.compile(rb"([A-Za-z][A-Za-z0-9:_-]*) [^\n]*\n(?: [^\n]*\n)*")
_ONCE: Final = (b"tree", b"parent", b"author", b"committer")


@dataclass(frozen=True, slots=True)
class SignedCommit:
    """``signature``: the text in armour, None for a commit without; ``payload``: what it should be over; ``time``: the
    committer's, in seconds since 1970, which is no more than the committer's word."""

    signature: bytes | None
    payload: bytes
    time: int


def take_apart(identity: str, raw: bytes) -> SignedCommit:
    """The commit ``identity`` (hex), whose object's content is ``raw``. Raises `Refused`."""
    if len(raw) > MAX_COMMIT:
        raise refused(f"the commit {identity} is larger than {MAX_COMMIT} bytes")
    if b"\0" in raw:
        raise _malformed(identity, "it holds a NUL")
    _judge_identity(identity, raw)
    head, blank, message = raw.partition(b"\n\n")
    first = _HEADERS.match(raw)
    if first is None or not blank:
        raise _malformed(identity, "its headers are not tree, parents, author and committer, in this order")
    head += b"\n"
    if first.end() > len(head):
        raise _malformed(identity, "its headers are cut short")
    found = _signatures(identity, head, first.end())
    name, start, end = found or (b"", len(head), len(head))
    payload = head[:start] + head[end:] + b"\n" + message
    signature = head[start + len(name) + 1 : end - 1].replace(b"\n ", b"\n") if found else None
    return SignedCommit(signature, payload, int(first[1]))


def _judge_identity(identity: str, raw: bytes) -> None:
    content = b"commit %d\0%b" % (len(raw), raw)
    digest = hashlib.sha1(content, usedforsecurity=False) if len(identity) == 40 else hashlib.sha256(content)
    if digest.hexdigest() != identity:
        raise _malformed(identity, "its content has another id")


def _signatures(identity: str, head: bytes, at: int) -> tuple[bytes, int, int] | None:
    """The one signature's header, and where it begins and ends."""
    expected = _SIGNATURE if len(identity) == 40 else _SIGNATURE + b"-sha256"
    found = None
    while at < len(head):
        header = _MORE.match(head, at)
        if header is None or header[1] in _ONCE:
            raise _malformed(identity, "a header is out of place")
        if header[1].lower().startswith(_SIGNATURE):
            if found or header[1] != expected:
                raise _malformed(identity, f"it has a signature besides the one in {expected.decode()}")
            found = (header[1], *header.span())
        at = header.end()
    return found


def _malformed(identity: str, cause: str) -> Refused:
    return refused(f"the commit {identity} is not as git writes it: {cause}; make it anew with git commit")
