"""Our Merkle tree against that of transparency-dev/merkle: the same roots and proofs, and the same verdict on each
proof that is right or nearly right.

The corruptions are those of that project's own test cases, for every leaf and every pair of sizes of small trees, not
only for its six trees. Where ours refuses what theirs accepts stands in :func:`stricter`, and nowhere else.
"""

from __future__ import annotations

import json
import os
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from sidecar.chain import merkle
from sidecar.errors import Malformed, ProofRejected
from tests.outside import Oracle, oracle

DATA = [bytes([n]) * n for n in range(41)]
LEAVES = [merkle.leaf_hash(data) for data in DATA]
BIG = [merkle.leaf_hash(n.to_bytes(4, "big")) for n in range(1025)]
OTHER = sha256(b"a hash of nothing in any tree").digest()

# The whole of that project's case files, where somebody has put them (tests/vectors/external/SOURCES.md).
SHARED = Path(os.environ.get("SIDECAR_SHARED_VECTORS") or Path(__file__).resolve().parents[3] / "shared" / "vectors")
UPSTREAM = SHARED / "merkle" / "testdata"


@dataclass(frozen=True, slots=True)
class Inclusion:
    """A claim that ``leaf`` is leaf ``index`` of a tree."""

    what: str
    index: int
    size: int
    leaf: bytes
    root: bytes
    proof: list[bytes]

    def check(self) -> None:
        merkle.verify_inclusion(self.index, self.size, self.leaf, self.proof, self.root)

    def question(self) -> dict[str, Any]:
        return {
            "Ask": "inclusion",
            "Index": self.index,
            "Size": self.size,
            "Leaf": _text(self.leaf),
            "Root": _text(self.root),
            "Proof": [_text(each) for each in self.proof],
        }


@dataclass(frozen=True, slots=True)
class Consistency:
    """A claim that one tree is a prefix of another."""

    what: str
    size1: int
    size2: int
    root1: bytes
    root2: bytes
    proof: list[bytes]

    def check(self) -> None:
        merkle.verify_consistency(self.size1, self.size2, self.root1, self.root2, self.proof)

    def question(self) -> dict[str, Any]:
        return {
            "Ask": "consistency",
            "Size1": self.size1,
            "Size2": self.size2,
            "Root1": _text(self.root1),
            "Root2": _text(self.root2),
            "Proof": [_text(each) for each in self.proof],
        }


Case = Inclusion | Consistency


def stricter(case: Case) -> str:
    """Why ours refuses a case whatever theirs says; empty where both must agree."""
    sizes = (case.size,) if isinstance(case, Inclusion) else (case.size1, case.size2)
    ends = (case.leaf, case.root) if isinstance(case, Inclusion) else (case.root1, case.root2)
    if any(len(each) != merkle.HASH_BYTES for each in ends):
        return "a root that is not 32 bytes: theirs only compares it"
    if any(len(each) != merkle.HASH_BYTES for each in case.proof):
        return "a hash in the proof that is not 32 bytes: theirs hashes whatever is there"
    if isinstance(case, Consistency) and case.size1 == 0:
        return "from size 0: version 0.0.2 accepts the empty proof and compares no root; later versions refuse it"
    if max(sizes) >= 2**63:
        return "a size over 63 bits: theirs has 64"
    return ""


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    return oracle("merkle", tmp_path_factory.mktemp("oracle"))


def test_both_grow_the_same_trees(theirs: Oracle) -> None:
    forests = [DATA[:size] for size in range(len(DATA) + 1)]
    forests += [[n.to_bytes(4, "big") for n in range(size)] for size in (63, 64, 65, 255, 256, 257, 1025)]
    asked = [{"Ask": "tree", "Leaves": [_text(data) for data in leaves]} for leaves in forests]
    for leaves, grown in zip(forests, theirs.answers(asked), strict=True):
        hashes = [merkle.leaf_hash(data) for data in leaves]
        assert _root(hashes) == b64decode(grown["root"])
        for index in range(len(hashes)):
            assert merkle.inclusion_path(hashes, index) == _hashes(grown["inclusion"][index])
            assert merkle.consistency_proof(hashes, index + 1) == _hashes(grown["consistency"][index])


@pytest.mark.parametrize("size", [*range(1, len(DATA) + 1)])
def test_inclusion_in_a_small_tree(theirs: Oracle, size: int) -> None:
    root = _root(LEAVES[:size])
    cases: list[Case] = []
    for index in range(size):
        right = Inclusion("right", index, size, LEAVES[index], root, merkle.inclusion_path(LEAVES[:size], index))
        cases += [right, *corrupt_inclusion(right)]
    assert sum(agree(theirs, cases)) >= size


@pytest.mark.parametrize("size2", [*range(1, len(DATA) + 1)])
def test_consistency_of_small_trees(theirs: Oracle, size2: int) -> None:
    root2 = _root(LEAVES[:size2])
    cases: list[Case] = []
    for size1 in range(1, size2 + 1):
        proof = merkle.consistency_proof(LEAVES[:size2], size1)
        right = Consistency("right", size1, size2, _root(LEAVES[:size1]), root2, proof)
        cases += [right, *corrupt_consistency(right)]
    assert sum(agree(theirs, cases)) >= size2


def test_a_large_tree(theirs: Oracle) -> None:
    cases: list[Case] = []
    for size in (511, 512, 513, 1000, 1024, 1025):
        root = _root(BIG[:size])
        for index in (0, 1, 255, 256, size // 2, size - 2, size - 1):
            member = Inclusion("right", index, size, BIG[index], root, merkle.inclusion_path(BIG[:size], index))
            proof = merkle.consistency_proof(BIG[:size], index + 1)
            prefix = Consistency("right", index + 1, size, _root(BIG[: index + 1]), root, proof)
            cases += [member, *corrupt_inclusion(member), prefix, *corrupt_consistency(prefix)]
    assert sum(agree(theirs, cases)) >= 6 * 7 * 2


@pytest.mark.parametrize("size", [2**32 + 1, 2**53 + 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1])
def test_sizes_that_no_test_could_grow(theirs: Oracle, size: int) -> None:
    """Any hashes are a proof of some root; theirs says of which."""
    cases: list[Case] = []
    for index in (0, 1, size // 3, size // 2, size - 2, size - 1):
        proof = [sha256(b"%d/%d" % (index, level)).digest() for level in range(_height(index, size))]
        member = Inclusion("right", index, size, LEAVES[0], OTHER, proof)
        (climbed,) = theirs.answers([member.question() | {"Ask": "climb"}])
        assert climbed["accepted"]
        right = replace(member, root=b64decode(climbed["root"]))
        cases += [right, *corrupt_inclusion(right)]
    assert sum(agree(theirs, cases)) >= (6 if size < 2**63 else 0)


def test_claims_about_next_to_nothing(theirs: Oracle) -> None:
    """Zero sizes, no hash, one leaf, the past, two roots for one size."""
    hashes = [b"", b"WrongRoot", LEAVES[0], LEAVES[1], merkle.EMPTY_ROOT]
    proofs: list[list[bytes]] = [[], [b""], [LEAVES[1]], [merkle.EMPTY_ROOT]]
    cases: list[Case] = []
    for small in range(4):
        for large in range(4):
            for one in hashes:
                for two in hashes:
                    for proof in proofs:
                        cases.append(Inclusion("next to nothing", small, large, one, two, proof))
                        cases.append(Consistency("next to nothing", small, large, one, two, proof))
    verdicts = agree(theirs, cases)
    assert 0 < sum(verdicts) < len(verdicts)


@pytest.mark.parametrize(
    ("why", "case"),
    [
        ("root", Consistency("the same text for both", 1, 1, b"root", b"root", [])),
        (
            "proof",
            Inclusion("a long sibling", 0, 2, LEAVES[0], merkle.node_hash(LEAVES[0], b"long" * 9), [b"long" * 9]),
        ),
        ("proof", Inclusion("no sibling", 0, 2, LEAVES[0], merkle.node_hash(LEAVES[0], b""), [b""])),
        ("size 0", Consistency("from nothing to anything", 0, 7, LEAVES[0], LEAVES[1], [])),
        ("size 0", Consistency("from nothing to nothing", 0, 0, merkle.EMPTY_ROOT, merkle.EMPTY_ROOT, [])),
        ("63 bits", Consistency("a size as large as theirs go", 2**64 - 1, 2**64 - 1, OTHER, OTHER, [])),
    ],
    ids=lambda value: value.what if isinstance(value, Inclusion | Consistency) else value,
)
def test_ours_refuses_what_theirs_accepts(theirs: Oracle, why: str, case: Case) -> None:
    assert why in stricter(case)
    (answer,) = theirs.answers([case.question()])
    assert answer["accepted"]
    with pytest.raises(Malformed):
        case.check()


if UPSTREAM.is_dir():

    @pytest.mark.parametrize("kind", ["inclusion", "consistency"])
    def test_the_case_files_of_that_project(kind: str) -> None:
        files = sorted((UPSTREAM / kind).rglob("*.json"))
        assert len(files) > 50
        for file in files:
            told = json.loads(file.read_bytes())
            case = _of_file(kind, told)
            expected = not told["wantErr"] and not stricter(case)
            assert _accepted(case.check) == expected, f"{file.relative_to(UPSTREAM)}: {told['desc']}"


def agree(theirs: Oracle, cases: list[Case]) -> list[bool]:
    """Our verdicts on the cases, each held against theirs."""
    answers = theirs.answers(case.question() for case in cases)
    verdicts = [_accepted(case.check) for case in cases]
    for case, ours, answer in zip(cases, verdicts, answers, strict=True):
        assert ours == (answer["accepted"] and not stricter(case)), case
    return verdicts


def corrupt_inclusion(right: Inclusion) -> Iterator[Inclusion]:
    """`corruptInclusionProof` of that project's `proof/verify_test.go`, and a little more."""
    index, size, proof = right.index, right.size, right.proof
    for what, wrong in (("index - 1", index - 1), ("index + 1", index + 1), ("index ^ 2", index ^ 2), ("index", size)):
        yield replace(right, what=what, index=wrong % 2**64)
    for what, other in (("* 2", size * 2), ("/ 2", size // 2), ("- 1", size - 1), ("+ 1", size + 1), ("0", 0)):
        yield replace(right, what=f"size {what}", size=other % 2**64)
    for leaf in (b"WrongLeaf", b"", OTHER, right.root):
        yield replace(right, what="wrong leaf", leaf=leaf)
    for root in (b"WrongRoot", b"", OTHER, merkle.EMPTY_ROOT, right.root[:-1], right.root + b"\x00"):
        yield replace(right, what="wrong root", root=root)
    yield replace(right, what="leaf and root swapped", leaf=right.root, root=right.leaf)
    for corrupted in corrupt(proof, [b"", right.root, right.leaf], bit=8):
        yield replace(right, what="wrong proof", proof=corrupted)


def corrupt_consistency(right: Consistency) -> Iterator[Consistency]:
    """`corruptConsistencyProof` of that project's `proof/verify_test.go`, and a little more."""
    size1, size2 = right.size1, right.size2
    for what, wrong in (("- 1", size1 - 1), ("+ 1", size1 + 1), ("^ 2", size1 ^ 2), ("= 0", 0), ("= size2", size2)):
        yield replace(right, what=f"size1 {what}", size1=wrong)
    for what, wrong in (("* 2", size2 * 2), ("/ 2", size2 // 2), ("- 1", size2 - 1), ("+ 1", size2 + 1)):
        yield replace(right, what=f"size2 {what}", size2=wrong)
    yield replace(right, what="sizes swapped", size1=size2, size2=size1)
    for root in (b"WrongRoot", b"", OTHER, merkle.EMPTY_ROOT):
        yield replace(right, what="wrong root1", root1=root)
        yield replace(right, what="wrong root2", root2=root)
    yield replace(right, what="swapped roots", root1=right.root2, root2=right.root1)
    for corrupted in corrupt(right.proof, [b"", right.root1, right.root2, *right.proof[:1]], bit=16):
        yield replace(right, what="wrong proof", proof=corrupted)


def corrupt(proof: list[bytes], garbage: list[bytes], bit: int) -> Iterator[list[bytes]]:
    """Proofs near this one: nothing of it, too short, too long, out of order, or one bit of one hash turned."""
    yield []
    for what in garbage:
        yield [*proof, what]
        yield [what, *proof]
    for place, value in enumerate(proof):
        yield [*proof[:place], bytes([value[0] ^ bit]) + value[1:], *proof[place + 1 :]]
    if proof:
        yield proof[:-1]
        yield proof[1:]
        yield [*proof[:-1], proof[-1][:-1]]
        yield [proof[0], OTHER, *proof[1:]]
        yield proof[::-1]


def _accepted(check: Callable[[], None]) -> bool:
    try:
        check()
    except (Malformed, ProofRejected):
        return False
    return True


def _height(index: int, size: int) -> int:
    """How many hashes a path has: one a level below where the paths to this leaf and to the last part, and above it
    one for each left sibling."""
    shared = (index ^ (size - 1)).bit_length()
    return shared + (index >> shared).bit_count()


def _of_file(kind: str, told: dict[str, Any]) -> Case:
    proof = _hashes(told["proof"])
    if kind == "inclusion":
        leaf, root = _hashes([told["leafHash"] or "", told["root"] or ""])
        return Inclusion(told["desc"], told["leafIdx"], told["treeSize"], leaf, root, proof)
    root1, root2 = _hashes([told["root1"] or "", told["root2"] or ""])
    return Consistency(told["desc"], told["size1"], told["size2"], root1, root2, proof)


def _root(leaves: list[bytes]) -> bytes:
    tree = merkle.Tree()
    for leaf in leaves:
        tree.append(leaf)
    return tree.root()


def _text(data: bytes) -> str:
    return b64encode(data).decode()


def _hashes(values: list[str] | None) -> list[bytes]:
    return [b64decode(value) for value in values or []]
