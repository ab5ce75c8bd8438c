"""Tiles and entry bundles: the log as a set of files that never change (C2SP tlog-tiles; proto/LOG.md).

A tile at level L holds up to 256 hashes, each the root over 256^L entries; the tile's own root is one hash of the
level above. A tile that the tree does not fill is partial, and named by its width. Proofs need only hashes of tiles.

    Tile(0, 1234067, 256).path()          # tile/0/x001/x234/067
    Tile(0, 1234067, 12).path()           # tile/0/x001/x234/067.p/12
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sidecar.chain import lines
from sidecar.chain.merkle import HASH_BYTES, Range, Tree, node_hash, split_at
from sidecar.errors import Malformed

WIDTH = 256
_HEIGHT = 8
MAX_ENTRY = 16_384
MOST_LEVEL = 63
_GROUPS = re.compile(r"\A(?:x[0-9]{3}/)*[0-9]{3}\Z")


def number_path(number: int) -> str:
    """``number`` in groups of three digits, all but the last marked with an x."""
    digits = f"{number:03d}"
    digits = digits.rjust(-(-len(digits) // 3) * 3, "0")
    groups = [digits[i : i + 3] for i in range(0, len(digits), 3)]
    return "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])


def parse_number_path(text: str) -> int:
    """The number that :func:`number_path` writes so.

    Raises:
        Malformed: another spelling, or 2^63 and beyond.
    """
    if len(text) > 40 or not _GROUPS.match(text):
        raise Malformed("tile: its number is not in groups of three digits")
    number = int(text.replace("x", "").replace("/", ""))
    if number_path(number) != text or number >= 2**63:
        raise Malformed("tile: its number is not in its one spelling")
    return number


@dataclass(frozen=True, slots=True)
class Tile:
    """Which tile: its level (None: the bundle of entries beside level 0), its number in it, its width, 1 to 256.

    Raises:
        Malformed: out of range.
    """

    level: int | None
    number: int
    width: int = WIDTH

    def __post_init__(self) -> None:
        if not 0 <= (self.level or 0) <= MOST_LEVEL or not 0 <= self.number < 2**63 or not 1 <= self.width <= WIDTH:
            raise Malformed("tile: level, number or width out of range")

    def path(self) -> str:
        """Its path below the log's prefix."""
        level = "entries" if self.level is None else str(self.level)
        partial = "" if self.width == WIDTH else f".p/{self.width}"
        return f"tile/{level}/{number_path(self.number)}{partial}"

    @classmethod
    def parse(cls, path: str) -> Tile:
        """Read a path.

        Raises:
            Malformed: not a tile's or bundle's path in its one spelling.
        """
        start, _, rest = path.removeprefix("tile/").partition("/")
        number, dot, width = rest.partition(".p/")
        level = None if start == "entries" else lines.number(start, "level", high=MOST_LEVEL)
        read = cls(
            level, parse_number_path(number), lines.number(width, "width", low=1, high=WIDTH - 1) if dot else WIDTH
        )
        if read.path() != path:
            raise Malformed("tile: its path is not in its one spelling")
        return read


def width_at(level: int, number: int, size: int) -> int:
    """How many hashes of a tile a tree of ``size`` entries has: 0 to 256."""
    return max(0, min(WIDTH, (size >> (_HEIGHT * level)) - number * WIDTH))


def filled_by(number: int) -> list[Tile]:
    """The bundle and the tiles that are full once the tile ``number`` of level 0 is, the lowest first."""
    full, level = [Tile(None, number)], 0
    while (number + 1) % WIDTH**level == 0 and level <= MOST_LEVEL:
        full.append(Tile(level, (number + 1) // WIDTH**level - 1))
        level += 1
    return full


def split_hashes(data: bytes, width: int) -> list[bytes]:
    """The hashes of a tile.

    Raises:
        Malformed: another length than ``width`` hashes have.
    """
    if len(data) != width * HASH_BYTES:
        raise Malformed(f"tile: {width} hashes of {HASH_BYTES} bytes are required")
    return [data[i : i + HASH_BYTES] for i in range(0, len(data), HASH_BYTES)]


def join_entries(entries: Sequence[bytes]) -> bytes:
    """An entry bundle.

    Raises:
        Malformed: an entry that is empty or longer than :data:`MAX_ENTRY`.
    """
    if any(not 0 < len(each) <= MAX_ENTRY for each in entries):
        raise Malformed(f"bundle: an entry has 1 to {MAX_ENTRY} bytes")
    return b"".join(len(each).to_bytes(2, "big") + each for each in entries)


def split_entries(data: bytes) -> list[bytes]:
    """The entries of a bundle.

    Raises:
        Malformed: cut short, or an entry of a length that none has.
    """
    entries, at = [], 0
    while at < len(data):
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        if not at + 2 < end <= len(data) or end - at - 2 > MAX_ENTRY:
            raise Malformed("bundle: cut short, or an entry of a wrong length")
        entries.append(data[at + 2 : end])
        at = end
    return entries


ReadTile = Callable[[int, int], Sequence[bytes]]
"""``(level, number) -> hashes``: a tile as wide as the tree has it, or wider."""


def range_root(span: Range, read: ReadTile) -> bytes:
    """The root over a range of leaves as proofs have them, from the hashes in tiles.

    Raises what ``read`` raises; `Malformed` where a tile is narrower than it must be.
    """
    start, end = span
    size = end - start
    if size & (size - 1) == 0:
        return _perfect(start, size.bit_length() - 1, read)
    middle = start + split_at(size)
    return node_hash(range_root((start, middle), read), range_root((middle, end), read))


def peaks(size: int, read: ReadTile) -> list[bytes]:
    """The roots of the perfect subtrees of a tree of ``size`` leaves, largest first; see `Tree`."""
    found, start = [], 0
    for bit in reversed(range(size.bit_length())):
        if size >> bit & 1:
            found.append(_perfect(start, bit, read))
            start += 1 << bit
    return found


def _perfect(start: int, height: int, read: ReadTile) -> bytes:
    """The root over the 2^height leaves from ``start``, a multiple of that."""
    level, above = divmod(height, _HEIGHT)
    first = start >> (_HEIGHT * level)
    number, offset = divmod(first, WIDTH)
    hashes = read(level, number)[offset : offset + (1 << above)]
    if len(hashes) != 1 << above:
        raise Malformed("tile: narrower than the tree it belongs to")
    return subtree_root(hashes)


def subtree_root(hashes: Sequence[bytes]) -> bytes:
    """The root over hashes of one level."""
    tree = Tree()
    for each in hashes:
        tree.append(each)
    return tree.root()


class Edge:
    """The hashes of a growing tree that its partial tiles hold, a list a level: all that new tiles need."""

    __slots__ = ("levels", "size")

    def __init__(self, size: int, read: ReadTile) -> None:
        self.size = size
        self.levels: list[list[bytes]] = []
        level = 0
        while size >> (_HEIGHT * level):
            width = (size >> (_HEIGHT * level)) % WIDTH
            number = (size >> (_HEIGHT * level)) // WIDTH
            self.levels.append(list(read(level, number)[:width]) if width else [])
            level += 1

    def grow(self, leaf_hashes: Sequence[bytes]) -> list[tuple[Tile, bytes]]:
        """Append leaves; the tiles that came to be, full ones and for each level the partial one if it changed."""
        made: list[tuple[Tile, bytes]] = []
        level, coming = 0, list(leaf_hashes)
        before = self.size
        self.size += len(coming)
        while coming:
            if level == len(self.levels):
                self.levels.append([])
            first = (before >> (_HEIGHT * level)) // WIDTH
            coming = self._fill(level, first, coming, made)
            level += 1
        return made

    def _fill(self, level: int, first: int, coming: list[bytes], made: list[tuple[Tile, bytes]]) -> list[bytes]:
        held = self.levels[level] + coming
        whole = len(held) // WIDTH * WIDTH
        roots = []
        for at in range(0, whole, WIDTH):
            hashes = held[at : at + WIDTH]
            made.append((Tile(level, first + at // WIDTH), b"".join(hashes)))
            roots.append(subtree_root(hashes))
        self.levels[level] = held[whole:]
        if held[whole:]:
            made.append((Tile(level, first + whole // WIDTH, len(held) - whole), b"".join(held[whole:])))
        return roots
