"""Tiles: their paths, what they hold, and proofs made out of them alone, against the tree made of all leaves."""

from __future__ import annotations

import pytest

from sidecar.chain import merkle, tile
from sidecar.chain.merkle import Tree
from sidecar.chain.tile import Edge, Tile
from sidecar.errors import Malformed

LEAVES = [merkle.leaf_hash(n.to_bytes(4, "big")) for n in range(70_000)]


@pytest.mark.parametrize(
    ("number", "path"),
    [(0, "000"), (5, "005"), (999, "999"), (1000, "x001/000"), (1234067, "x001/x234/067"), (2**63 - 1, None)],
)
def test_numbers_in_paths(number: int, path: str | None) -> None:
    assert path in (None, tile.number_path(number))
    assert tile.parse_number_path(tile.number_path(number)) == number


@pytest.mark.parametrize(
    "text",
    ["", "0", "00", "0000", "x000/001", "001/002", "x01/002", "x001/x002", "x001/002/", "١٢٣", "x999/" * 9 + "1"],
)
def test_no_number_in_a_path(text: str) -> None:
    with pytest.raises(Malformed):
        tile.parse_number_path(text)


@pytest.mark.parametrize("each", [Tile(0, 1234067), Tile(3, 0, 1), Tile(None, 12, 255), Tile(63, 2**63 - 1)])
def test_paths_there_and_back(each: Tile) -> None:
    assert Tile.parse(each.path()) == each


@pytest.mark.parametrize(
    "path",
    [
        "tile/64/000",
        "tile/00/000",
        "tile/-1/000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000.p/",
        "tile/entry/000",
        "0/000",
        "tile/0/../000",
        "tile/0/000/",
        "",
    ],
)
def test_no_path(path: str) -> None:
    with pytest.raises(Malformed):
        Tile.parse(path)


@pytest.mark.parametrize(
    ("number", "paths"),
    [
        (0, ["tile/entries/000", "tile/0/000"]),
        (255, ["tile/entries/255", "tile/0/255", "tile/1/000"]),
        (511, ["tile/entries/511", "tile/0/511", "tile/1/001"]),
        (65_535, ["tile/entries/x065/535", "tile/0/x065/535", "tile/1/255", "tile/2/000"]),
    ],
)
def test_what_is_full_once_a_tile_of_hashes_is(number: int, paths: list[str]) -> None:
    assert [each.path() for each in tile.filled_by(number)] == paths


def test_the_example_of_the_format() -> None:
    """A tree of 70,000 entries: 273 full tiles and one of 112 at level 0; 1 and 17; 0 and 1."""
    made = dict(Edge(0, nothing).grow(LEAVES))
    names = {(t.level, t.number): t.width for t in made}
    assert sum(level == 0 and width == 256 for (level, _), width in names.items()) == 273
    assert names[0, 273] == 112 and names[1, 0] == 256 and names[1, 1] == 17 and names[2, 0] == 1
    assert len(made) == 277
    for each, data in made.items():
        assert each.level is not None and tile.width_at(each.level, each.number, 70_000) == each.width
        assert len(tile.split_hashes(data, each.width)) == each.width


def nothing(level: int, number: int) -> list[bytes]:
    raise AssertionError("an empty tree has no tile")


class Files:
    """Tiles as a log would keep them, by path."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.size = 0

    def put(self, made: list[tuple[Tile, bytes]], size: int) -> None:
        for each, data in made:
            assert self.held.setdefault(each.path(), data) == data
        self.size = size

    def read(self, level: int, number: int) -> list[bytes]:
        width = tile.width_at(level, number, self.size)
        return tile.split_hashes(self.held[Tile(level, number, width).path()], width)


def root(size: int) -> bytes:
    tree = Tree()
    for each in LEAVES[:size]:
        tree.append(each)
    return tree.root()


SIZES = [1, 2, 3, 255, 256, 257, 300, 511, 512, 513, 1000, 65_535, 65_536, 65_537, 65_800]


def test_growing_in_steps_gives_the_same_tree_as_all_at_once() -> None:
    files, edge, before = Files(), Edge(0, nothing), 0
    for size in SIZES:
        files.put(edge.grow(LEAVES[before:size]), size)
        assert Tree(size, tile.peaks(size, files.read)).root() == root(size)
        again = Edge(size, files.read)
        assert (again.levels, again.size) == (edge.levels, edge.size)
        before = size


def test_proofs_from_tiles() -> None:
    files, edge, size = Files(), Edge(0, nothing), 65_800
    files.put(edge.grow(LEAVES[:size]), size)
    roots = {s: root(s) for s in SIZES}
    for s in SIZES:
        for index in {0, 1, 254, 255, 256, 257, s // 2, s - 1} & set(range(s)):
            path = [tile.range_root(r, files.read) for r in merkle.inclusion_ranges(index, s)]
            merkle.verify_inclusion(index, s, LEAVES[index], path, roots[s])
        for old in SIZES:
            if old <= s:
                proof = [tile.range_root(r, files.read) for r in merkle.consistency_ranges(old, s)]
                merkle.verify_consistency(old, s, roots[old], roots[s], proof)


def test_small_trees_prove_as_the_tree_of_all_leaves_does() -> None:
    for size in range(1, 40):
        files = Files()
        files.put(Edge(0, nothing).grow(LEAVES[:size]), size)
        for index in range(size):
            path = [tile.range_root(r, files.read) for r in merkle.inclusion_ranges(index, size)]
            assert path == merkle.inclusion_path(LEAVES[:size], index)
            proof = [tile.range_root(r, files.read) for r in merkle.consistency_ranges(index + 1, size)]
            assert proof == merkle.consistency_proof(LEAVES[:size], index + 1)


def test_a_tile_that_is_too_narrow() -> None:
    with pytest.raises(Malformed):
        tile.range_root((0, 256), lambda level, number: [])
    with pytest.raises(Malformed):
        tile.split_hashes(bytes(33), 1)
    with pytest.raises(Malformed):
        Tree(3, [bytes(32)])


@pytest.mark.parametrize("entries", [[b"a"], [b"a", b"bc" * 8192], []])
def test_bundles_there_and_back(entries: list[bytes]) -> None:
    assert tile.split_entries(tile.join_entries(entries)) == entries


@pytest.mark.parametrize("data", [b"\0", b"\0\0", b"\0\1", b"\0\2a", b"\0\1ab", b"\xff\xff" + bytes(65_535)])
def test_no_bundle(data: bytes) -> None:
    with pytest.raises(Malformed):
        tile.split_entries(data)


@pytest.mark.parametrize("entry", [b"", bytes(16_385)])
def test_entries_no_bundle_holds(entry: bytes) -> None:
    with pytest.raises(Malformed):
        tile.join_entries([entry])
