"""An archived policy in a bundle: its `.wasm` is the one in its `.tar.gz` (proto/EVIDENCE.md, "Files")."""

from __future__ import annotations

import re
import zlib
from typing import Final

from sidecar.errors import Malformed

MAX_TAR: Final = 64 * 1024 * 1024
WASM: Final = ("policy.wasm", "/policy.wasm")
_BLOCK: Final = 512
_OCTAL = re.compile(rb"[ \0]*([0-7]{1,11})[ \0]*")


def wasm_of(packed: bytes) -> bytes | None:
    """The one `policy.wasm` of a gzipped tar, or None.

    Raises:
        Malformed: it cannot be read, is over the limit, or has several.
    """
    found: bytes | None = None
    tar, at = _unzipped(packed), 0
    while at + _BLOCK <= len(tar) and any(tar[at : at + _BLOCK]):
        header = tar[at : at + _BLOCK]
        size = _OCTAL.fullmatch(header[124:136])
        if size is None:
            raise Malformed("archived policy: a size in its tar is no number")
        at += _BLOCK
        content = tar[at : at + int(size[1], 8)]
        name = header[:100].split(b"\0", 1)[0].decode("utf-8", "replace")
        if name in WASM and header[156:157] in (b"0", b"\0") and not any(header[345:500]):
            if found is not None or len(content) != int(size[1], 8):
                raise Malformed("archived policy: policy.wasm is there twice, or cut short")
            found = content
        at += -(-int(size[1], 8) // _BLOCK) * _BLOCK
    return found


def _unzipped(packed: bytes) -> bytes:
    stream = zlib.decompressobj(31)
    try:
        tar = stream.decompress(packed, MAX_TAR + 1)
    except zlib.error as error:
        raise Malformed(f"archived policy: {error}") from None
    if not stream.eof or stream.unused_data or len(tar) > MAX_TAR:
        raise Malformed("archived policy: cut short, over the limit, or with something after it")
    return tar
