"""Bundles by hand: files in, a container out that is right, or wrong in one way. Independent of `sidecar.evidence`."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256

Files = dict[str, bytes]


def bagged(files: Mapping[str, bytes]) -> Files:
    """Files below `data/`, with a bag's own files anew."""
    data = {name: content for name, content in files.items() if name.startswith("data/")}
    tags = {
        "bag-info.txt": files.get("bag-info.txt", b"Bag-Software-Agent: tests\n"),
        "bagit.txt": b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n",
        "manifest-sha256.txt": manifest(data),
    }
    return {**data, **tags, "tagmanifest-sha256.txt": manifest(tags)}


def manifest(files: Mapping[str, bytes]) -> bytes:
    """The lines of a manifest."""
    return "".join(f"{sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files)).encode()


@dataclass(frozen=True)
class Item:
    """One member as it is written: every field of its headers that a container can lie in."""

    name: bytes
    data: bytes
    size: int
    crc: int
    method: int = 0
    made: int = 20
    needed: int = 20
    flags: int = 0
    time: int = 0
    date: int = 33
    extra: bytes = b""
    comment: bytes = b""
    internal: int = 0
    external: int = 0
    before: bytes = b""  # between the member before and this one
    local: Mapping[str, int | bytes] | None = None  # fields that its local header has otherwise
    packed: int | None = None
    offset: int | None = None

    def lies(self, **changed: object) -> Item:
        return replace(self, **changed)  # type: ignore[arg-type]

    def header(self) -> bytes:
        each = self if self.local is None else replace(self, **{**self.local, "local": None})  # type: ignore[arg-type]
        packed = len(each.data) if each.packed is None else each.packed
        fields = (each.needed, each.flags, each.method, each.time, each.date, each.crc, packed, each.size)
        lengths = (len(each.name), len(each.extra))
        return struct.pack("<4s5H3I2H", b"PK\x03\x04", *fields, *lengths) + each.name + each.extra

    def central(self, offset: int) -> bytes:
        packed = len(self.data) if self.packed is None else self.packed
        fields = (self.made, self.needed, self.flags, self.method, self.time, self.date, self.crc, packed, self.size)
        lengths = (len(self.name), len(self.extra), len(self.comment), 0, self.internal, self.external)
        place = offset if self.offset is None else self.offset
        return (
            struct.pack("<4s6H3I5H2I", b"PK\x01\x02", *fields, *lengths, place) + self.name + self.extra + self.comment
        )


def stored(name: str, content: bytes) -> Item:
    """A member as our exporter writes streams."""
    return Item(name.encode(), content, len(content), zlib.crc32(content))


def deflated(name: str, content: bytes, level: int = 9) -> Item:
    """A deflated member."""
    packer = zlib.compressobj(level, zlib.DEFLATED, -15)
    data = packer.compress(content) + packer.flush()
    return Item(name.encode(), data, len(content), zlib.crc32(content), method=8)


def items(files: Mapping[str, bytes]) -> list[Item]:
    """Every file stored, in its order."""
    return [stored(name, content) for name, content in files.items()]


def zipped(members: list[Item], *, end: Callable[[list[int]], list[int]] = lambda f: f, after: bytes = b"") -> bytes:
    """The container. ``end`` may change the end record's numbers; ``after`` follows it."""
    out, central = bytearray(), bytearray()
    for item in members:
        out += item.before
        offset = len(out)
        out += item.header() + item.data
        central += item.central(offset)
    fields = end([0, 0, len(members), len(members), len(central), len(out), 0])
    return bytes(out + central) + struct.pack("<4s4H2IH", b"PK\x05\x06", *fields) + after


def packed(files: Mapping[str, bytes]) -> bytes:
    """A bundle of these files, its bag made anew."""
    return zipped(items(bagged(files)))


def unpacked(bundle: bytes) -> Files:
    """What is in a sound bundle, by name."""
    from io import BytesIO
    from zipfile import ZipFile

    with ZipFile(BytesIO(bundle)) as read:
        return {name: read.read(name) for name in read.namelist()}
