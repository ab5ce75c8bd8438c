"""The Merkle tree of RFC 6962 section 2.1 over SHA-256: roots, inclusion proofs, consistency proofs.

Leaves and inner nodes are hashed under different first bytes, so that no node passes for a leaf. The tree
over n leaves splits at k, the largest power of two below n. Proving needs the leaf hashes; verifying needs
only the proof.

    verify_inclusion(index, size, leaf_hash, path, root)        # returns or raises
    verify_consistency(size1, size2, root1, root2, proof)       # returns or raises

A path of the wrong length or with a hash of the wrong length is :class:`Malformed`: for one index and size
there is exactly one right shape. A path of the right shape that leads elsewhere is :class:`ProofRejected`.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from sidecar.errors import Malformed, ProofRejected

HASH_BYTES: Final = 32

EMPTY_ROOT: Final = sha256(b"").digest()
"""The root of the tree without leaves."""

_MAX_SIZE: Final = 2**63 - 1


def leaf_hash(data: bytes) -> bytes:
    """The hash of one leaf's input: ``SHA256(0x00 ‖ data)``."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node: ``SHA256(0x01 ‖ left ‖ right)``."""
    return sha256(b"\x01" + left + right).digest()


class Tree:
    """A tree that grows by leaf hashes and keeps only the roots of its perfect subtrees: at most one a bit
    of its size."""

    __slots__ = ("_peaks", "_size")

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        """An empty tree, or one of ``size`` leaves that goes on from the roots of its perfect subtrees, largest
        first. Raises :class:`Malformed` where their number is not that of the size's one bits."""
        if len(peaks) != size.bit_count():
            raise Malformed("tree: one peak for each one bit of its size is required")
        self._peaks = list(peaks)
        self._size = size

    @property
    def size(self) -> int:
        """How many leaves were appended."""
        return self._size

    @property
    def peaks(self) -> tuple[bytes, ...]:
        """The roots of its perfect subtrees, largest first: what another tree goes on from."""
        return tuple(self._peaks)

    def append(self, leaf: bytes) -> None:
        """Add one leaf by its hash (32 bytes, of :func:`leaf_hash`). Raises :class:`Malformed` on another
        length."""
        _check_hash(leaf, "leaf hash")
        # As in a binary counter: each trailing one bit of the size is a peak to merge with.
        carried, bits, pop = leaf, self._size, self._peaks.pop
        while bits & 1:
            carried = sha256(b"\x01" + pop() + carried).digest()  # node_hash, which is called for every entry
            bits >>= 1
        self._peaks.append(carried)
        self._size += 1

    def extend(self, leaves: Sequence[bytes]) -> None:
        """Add leaves by their hashes, as :meth:`append` each of them. Raises :class:`Malformed`.

        Level by level, which takes a quarter of the time less: a verifier adds every entry.
        """
        for leaf in leaves:
            _check_hash(leaf, "leaf hash")
        nodes, bits, odd = list(leaves), self._size, []
        self._size += len(nodes)
        while nodes:
            if bits & 1:
                nodes.insert(0, self._peaks.pop())
            if len(nodes) & 1:
                odd.append(nodes.pop())
            pairs = iter(nodes)
            nodes = [sha256(b"\x01" + left + right).digest() for left, right in zip(pairs, pairs, strict=True)]
            bits >>= 1
        self._peaks += reversed(odd)

    def root(self) -> bytes:
        """The root over all leaves so far; :data:`EMPTY_ROOT` when there is none."""
        if not self._peaks:
            return EMPTY_ROOT
        root = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            root = node_hash(peak, root)
        return root


Range = tuple[int, int]
"""Leaves from the first number up to the second, which is excluded: one subtree."""


def inclusion_ranges(index: int, size: int) -> list[Range]:
    """The subtrees whose roots are the audit path of leaf ``index`` in a tree of ``size`` leaves (RFC 6962 section
    2.1.1), nearest sibling first.

    Raises ``IndexError`` when there is no such leaf.
    """
    if not 0 <= index < size:
        raise IndexError(f"no leaf {index} in a tree of {size}")
    path: list[Range] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + split_at(end - start)
        if index < middle:
            path.append((middle, end))
            end = middle
        else:
            path.append((start, middle))
            start = middle
    path.reverse()
    return path


def inclusion_path(leaf_hashes: Sequence[bytes], index: int) -> list[bytes]:
    """The audit path of leaf ``index`` in the tree over ``leaf_hashes``, nearest sibling first.

    Raises ``IndexError`` when there is no such leaf. Takes time linear in the number of leaves.
    """
    return [_root_of(leaf_hashes, *each) for each in inclusion_ranges(index, len(leaf_hashes))]


def consistency_ranges(size1: int, size2: int) -> list[Range]:
    """The subtrees whose roots prove that the tree of ``size1`` leaves is a prefix of that of ``size2`` (RFC 6962
    section 2.1.2).

    Raises ``ValueError`` unless ``1 <= size1 <= size2``. Empty when both are the same tree.
    """
    if not 1 <= size1 <= size2:
        raise ValueError(f"no proof from size {size1} to size {size2}")
    proof: list[Range] = []
    start, end, whole = 0, size2, True
    while size1 != end:
        middle = start + split_at(end - start)
        if size1 <= middle:
            proof.append((middle, end))
            end = middle
        else:
            proof.append((start, middle))
            start, whole = middle, False
    if not whole:
        # The old tree's last subtree is not the old tree itself, so the verifier needs to be told it.
        proof.append((start, end))
    proof.reverse()
    return proof


def consistency_proof(leaf_hashes: Sequence[bytes], size1: int) -> list[bytes]:
    """The proof that the tree over the first ``size1`` leaves is a prefix of the whole.

    Raises ``ValueError`` unless ``1 <= size1 <= len(leaf_hashes)``. Empty when both are the same tree.
    """
    return [_root_of(leaf_hashes, *each) for each in consistency_ranges(size1, len(leaf_hashes))]


def verify_inclusion(index: int, size: int, leaf_hash: bytes, path: Sequence[bytes], root: bytes) -> None:
    """Check that ``leaf_hash`` is leaf ``index`` of the tree of ``size`` leaves with this ``root`` (RFC
    9162 2.1.3.2).

    Raises :class:`Malformed` when index, size, path or a hash cannot be right, :class:`ProofRejected` when
    the path leads to another root.
    """
    if not 0 <= index < size <= _MAX_SIZE:
        raise Malformed("inclusion proof: the index is not in a tree of that size")
    _check_hashes(path, leaf_hash, root)
    if _climb(index, size - 1, leaf_hash, path) != root:
        raise ProofRejected("inclusion proof: it does not lead to the root")


def verify_consistency(size1: int, size2: int, root1: bytes, root2: bytes, proof: Sequence[bytes]) -> None:
    """Check that the tree (size1, root1) is a prefix of the tree (size2, root2) (RFC 9162 section 2.1.4.2).

    Needs ``1 <= size1 <= size2``: every tree extends the empty one, so a proof from size 0 says nothing and
    is refused. Raises :class:`Malformed` when sizes, proof or a hash cannot be right,
    :class:`ProofRejected` when the trees do not agree.
    """
    if not 1 <= size1 <= size2 <= _MAX_SIZE:
        raise Malformed("consistency proof: sizes must be 1 or more and must not fall")
    _check_hashes(proof, root1, root2)
    if size1 == size2:
        if proof:
            raise Malformed("consistency proof: two trees of one size need no proof")
        if root1 != root2:
            raise ProofRejected("consistency proof: two roots for one size")
        return
    # Where the old tree is one perfect subtree, its root starts both climbs; else the proof's first hash
    # does.
    seed, rest = (root1, proof) if size1 & (size1 - 1) == 0 else (_first(proof), proof[1:])
    place, last = size1 - 1, size2 - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    old = _climb(place, last, seed, rest, left_only=True)
    new = _climb(place, last, seed, rest)
    if old != root1:
        raise ProofRejected("consistency proof: it does not lead to the old root")
    if new != root2:
        raise ProofRejected("consistency proof: it does not lead to the new root")


def _climb(place: int, last: int, node: bytes, path: Sequence[bytes], *, left_only: bool = False) -> bytes:
    """From the node at ``place`` on its level (whose last node is ``last``) to the root.

    ``left_only`` leaves out right siblings: the climb within the tree that ended at ``place``.
    """
    for sibling in path:
        if last == 0:
            raise Malformed("proof: longer than the tree is high")
        # A last node without a right sibling moves up unchanged until it is a right child.
        while place == last and not place & 1:
            place, last = place >> 1, last >> 1
        if place & 1:
            node = node_hash(sibling, node)
        elif not left_only:
            node = node_hash(node, sibling)
        place, last = place >> 1, last >> 1
    if last != 0:
        raise Malformed("proof: shorter than the tree is high")
    return node


def _root_of(leaf_hashes: Sequence[bytes], start: int, end: int) -> bytes:
    tree = Tree()
    for index in range(start, end):
        tree.append(leaf_hashes[index])
    return tree.root()


def split_at(size: int) -> int:
    """The largest power of two below ``size`` (2 or more)."""
    return 1 << (size - 1).bit_length() - 1


def _first(proof: Sequence[bytes]) -> bytes:
    if not proof:
        raise Malformed("proof: shorter than the tree is high")
    return proof[0]


def _check_hash(value: bytes, what: str) -> None:
    if len(value) != HASH_BYTES:
        raise Malformed(f"{what}: {HASH_BYTES} bytes are required")


def _check_hashes(proof: Sequence[bytes], *others: bytes) -> None:
    for value in (*others, *proof):
        _check_hash(value, "proof")
