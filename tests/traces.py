"""Where a value can still be had: a search of every byte below a place, in every spelling somebody might have kept."""

from __future__ import annotations

import base64
import contextlib
import json
import zlib
from collections.abc import Iterator
from pathlib import Path


def spellings(value: str) -> Iterator[bytes]:
    """A value as somebody might have kept it."""
    once = json.dumps(value)[1:-1]
    texts = (value, once, json.dumps(once)[1:-1])  # in JSON, and in JSON within JSON
    plain = {each.encode() for each in texts} | {value.encode("utf-16-le"), value.encode("latin-1")}
    for each in plain:
        yield each
        yield each.hex().encode()
        for before in range(3):  # base64 of what holds it; the ends depend on what is around
            yield base64.b64encode(b"\0" * before + each)[4 : (before + len(each)) // 3 * 4]


def packed(data: bytes) -> Iterator[bytes]:
    """What zlib streams in it hold."""
    for head in (
        bytes((cmf, flg)) for cmf in (0x48, 0x58, 0x68, 0x78) for flg in range(256) if (cmf << 8 | flg) % 31 == 0
    ):
        at = -1
        while (at := data.find(head, at + 1)) >= 0:
            with contextlib.suppress(zlib.error):
                yield zlib.decompressobj().decompress(data[at : at + (1 << 17)], 1 << 20)


def traces(place: Path, *values: str) -> list[str]:
    """The files below a place in which a value can be had, free pages, logs and indices and all."""
    assert all(len(value) >= 8 for value in values), "of a short one nothing is left to look for in base64"
    found = []
    for file in sorted(p for p in place.rglob("*") if p.is_file() and not p.is_symlink()):
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            continue  # what a running program was just writing has another name now
        texts = [data, *packed(data)]
        found += [
            f"{file.relative_to(place)}: {value}"
            for value in values
            if any(each in text for text in texts for each in spellings(value))
        ]
    return found
