"""The Merkle tree: against RFC 6962's recursive definition, and against every proof that is nearly right."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.chain import merkle
from sidecar.errors import Malformed, ProofRejected

REFUSED = (Malformed, ProofRejected)
LEAVES = [merkle.leaf_hash(bytes([i])) for i in range(70)]


def defined_root(leaves: list[bytes]) -> bytes:
    """MTH(D[n]) of RFC 6962 section 2.1, word for word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return sha256(b"\x01" + defined_root(leaves[:k]) + defined_root(leaves[k:])).digest()


def grown(leaves: list[bytes]) -> merkle.Tree:
    tree = merkle.Tree()
    for leaf in leaves:
        tree.append(leaf)
    return tree


def test_hashes_are_those_of_the_rfc() -> None:
    assert sha256(b"").digest() == merkle.EMPTY_ROOT
    assert merkle.leaf_hash(b"") == sha256(b"\x00").digest()
    assert merkle.leaf_hash(b"ab") == sha256(b"\x00ab").digest()
    assert merkle.node_hash(LEAVES[0], LEAVES[1]) == sha256(b"\x01" + LEAVES[0] + LEAVES[1]).digest()


def test_a_growing_tree_has_the_defined_root_at_every_size() -> None:
    tree = merkle.Tree()
    for size, leaf in enumerate([*LEAVES, b"\x00" * 32]):
        assert tree.size == size
        assert tree.root() == defined_root(LEAVES[:size])
        tree.append(leaf)


@pytest.mark.parametrize("first", [0, 1, 2, 3, 4, 5, 7, 8, 31, 32, 33])
def test_leaves_added_together_are_as_added_one_by_one(first: int) -> None:
    for more in (0, 1, 2, 3, 4, 5, 8, 63, 64, 65):
        one, together = merkle.Tree(), merkle.Tree()
        leaves = [merkle.leaf_hash(bytes([n])) for n in range(first + more)]
        for leaf in leaves:
            one.append(leaf)
        together.extend(leaves[:first])
        together.extend(leaves[first:])
        assert (together.size, together.peaks, together.root()) == (one.size, one.peaks, one.root())


@pytest.mark.parametrize("leaf", [b"", bytes(31), bytes(33)])
def test_leaves_added_together_have_their_length(leaf: bytes) -> None:
    tree = merkle.Tree()
    with pytest.raises(Malformed):
        tree.extend([bytes(32), leaf, bytes(32)])
    assert tree.size == 0 and tree.root() == merkle.EMPTY_ROOT


def test_a_tree_keeps_one_hash_a_bit() -> None:
    assert len(grown(LEAVES[:63])._peaks) == 6
    assert len(grown(LEAVES[:64])._peaks) == 1


@pytest.mark.parametrize("leaf", [b"", b"\x00" * 31, b"\x00" * 33])
def test_a_leaf_hash_of_another_length_is_refused(leaf: bytes) -> None:
    with pytest.raises(Malformed, match="32 bytes"):
        merkle.Tree().append(leaf)


@pytest.mark.parametrize("size", [*range(1, 20), 31, 32, 33, 64, 65, 70])
def test_every_inclusion_proof_verifies_and_only_for_its_leaf_and_place(size: int) -> None:
    leaves = LEAVES[:size]
    root = grown(leaves).root()
    for index in range(size):
        path = merkle.inclusion_path(leaves, index)
        merkle.verify_inclusion(index, size, leaves[index], path, root)
        for other in range(size):
            if other != index:
                with pytest.raises(REFUSED):
                    merkle.verify_inclusion(other, size, leaves[index], path, root)
                with pytest.raises(REFUSED):
                    merkle.verify_inclusion(index, size, leaves[other], path, root)


@pytest.mark.parametrize("size2", [*range(1, 20), 31, 32, 33, 64, 65, 70])
def test_every_consistency_proof_verifies_and_only_for_its_sizes(size2: int) -> None:
    root2 = grown(LEAVES[:size2]).root()
    for size1 in range(1, size2 + 1):
        root1 = grown(LEAVES[:size1]).root()
        proof = merkle.consistency_proof(LEAVES[:size2], size1)
        merkle.verify_consistency(size1, size2, root1, root2, proof)
        for wrong in {size1 - 1, size1 + 1} - {size2}:
            with pytest.raises(REFUSED):
                merkle.verify_consistency(wrong, size2, root1, root2, proof)
        if size1 < size2:
            for first, second in ((root2, root1), (root1, root1), (root2, root2)):
                with pytest.raises(REFUSED):
                    merkle.verify_consistency(size1, size2, first, second, proof)


sizes = st.integers(1, len(LEAVES))


@given(sizes, st.data())
def test_an_inclusion_proof_changed_anywhere_is_refused(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    root = grown(LEAVES[:size]).root()
    path = merkle.inclusion_path(LEAVES[:size], index)
    with pytest.raises(REFUSED):
        merkle.verify_inclusion(index, size, LEAVES[index], path, damaged(root, data))
    with pytest.raises(REFUSED):
        merkle.verify_inclusion(index, size, damaged(LEAVES[index], data), path, root)
    for wrong in reshaped(path):
        with pytest.raises(Malformed):
            merkle.verify_inclusion(index, size, LEAVES[index], wrong, root)
    for at in range(len(path)):
        with pytest.raises(ProofRejected):
            merkle.verify_inclusion(index, size, LEAVES[index], replaced(path, at, data), root)


@given(sizes, sizes, st.data())
def test_a_consistency_proof_changed_anywhere_is_refused(one: int, two: int, data: st.DataObject) -> None:
    size1, size2 = sorted((one, two))
    root1, root2 = grown(LEAVES[:size1]).root(), grown(LEAVES[:size2]).root()
    proof = merkle.consistency_proof(LEAVES[:size2], size1)
    with pytest.raises(ProofRejected):
        merkle.verify_consistency(size1, size2, damaged(root1, data), root2, proof)
    with pytest.raises(ProofRejected):
        merkle.verify_consistency(size1, size2, root1, damaged(root2, data), proof)
    for wrong in reshaped(proof):
        with pytest.raises(Malformed):
            merkle.verify_consistency(size1, size2, root1, root2, wrong)
    for at in range(len(proof)):
        with pytest.raises(ProofRejected):
            merkle.verify_consistency(size1, size2, root1, root2, replaced(proof, at, data))


def damaged(value: bytes, data: st.DataObject) -> bytes:
    bit = data.draw(st.integers(0, 255))
    return (int.from_bytes(value, "big") ^ 1 << bit).to_bytes(32, "big")


def replaced(proof: list[bytes], at: int, data: st.DataObject) -> list[bytes]:
    return [*proof[:at], damaged(proof[at], data), *proof[at + 1 :]]


def reshaped(proof: list[bytes]) -> list[list[bytes]]:
    wrong = [[*proof, b""], [b"", *proof], [*proof, LEAVES[0]], [LEAVES[0], *proof]]
    if proof:
        wrong += [proof[:-1], proof[1:], [proof[0][:31], *proof[1:]], [*proof[:-1], proof[-1] + b"\x00"]]
    return wrong


def test_a_rewritten_prefix_is_not_consistent() -> None:
    rewritten = [LEAVES[69], *LEAVES[1:40]]
    for size1 in range(1, 40):
        # Where the old tree is perfect its root starts the climb, so it is the new root that is missed.
        perfect = size1 & (size1 - 1) == 0
        proof = merkle.consistency_proof(rewritten, size1)
        old, new = grown(LEAVES[:size1]).root(), grown(rewritten).root()
        with pytest.raises(ProofRejected, match="new root" if perfect else "old root"):
            merkle.verify_consistency(size1, 40, old, new, proof)


@pytest.mark.parametrize("size1", [0, -1])
def test_the_empty_tree_proves_nothing(size1: int) -> None:
    for size2, root2 in ((0, merkle.EMPTY_ROOT), (1, LEAVES[0]), (5, grown(LEAVES[:5]).root())):
        with pytest.raises(Malformed, match="sizes"):
            merkle.verify_consistency(size1, size2, merkle.EMPTY_ROOT, root2, [])


def test_a_proof_is_not_replaced_by_empty_hashes() -> None:
    with pytest.raises(Malformed, match="32 bytes"):
        merkle.verify_consistency(1, 1, b"", b"", [])
    with pytest.raises(Malformed, match="32 bytes"):
        merkle.verify_inclusion(0, 1, b"", [], b"")
    with pytest.raises(ProofRejected):
        merkle.verify_inclusion(0, 1, LEAVES[0], [], merkle.EMPTY_ROOT)


@pytest.mark.parametrize(("index", "size"), [(0, 0), (1, 1), (-1, 1), (2**64 - 1, 1), (0, 2**63), (0, -1)])
def test_an_index_outside_the_tree_is_refused(index: int, size: int) -> None:
    with pytest.raises(Malformed, match="not in a tree"):
        merkle.verify_inclusion(index, size, LEAVES[0], [], LEAVES[0])


def test_no_proof_is_made_for_what_is_not_there() -> None:
    for index in (-1, 3):
        with pytest.raises(IndexError):
            merkle.inclusion_path(LEAVES[:3], index)
    for size1 in (0, 4):
        with pytest.raises(ValueError, match="no proof"):
            merkle.consistency_proof(LEAVES[:3], size1)
