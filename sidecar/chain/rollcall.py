"""The roll-call: where each chain of the fleet stands, in one entry of fixed size (proto/LOG.md, "Roll-call").

    sidecar/v1/roll-call
    log log.example.org
    time 1795455538123456789
    chains 2
    root 8e02…

``root`` is the RFC 6962 tree hash over one line a chain, in rising order of chain id; a line and its path prove what
was said of one chain without the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from sidecar.chain import hash_lines, lines, merkle
from sidecar.errors import Malformed

KIND = "sidecar/v1/roll-call"
_NAMES = ("log", "time", "chains", "root")
_FIELDS = 7


@dataclass(frozen=True, slots=True)
class Standing:
    """One chain's line: its epoch; the last segment sealed and its seal's hash; the last entry acknowledged, its leaf
    and wall_ns. What there is none of yet is None.

    Raises:
        Malformed: values that stand together, given in part.
    """

    chain_id: bytes
    epoch: int
    sealed: int | None
    seal: bytes | None
    seq: int | None
    leaf: bytes | None
    time: int | None

    def __post_init__(self) -> None:
        head = {self.seq is None, self.leaf is None, self.time is None}
        if (self.sealed is None) != (self.seal is None) or len(head) != 1:
            raise Malformed("roll-call: a line gives its seal or its head in part")

    def line(self) -> str:
        """The line, without a newline: a leaf input of the roll-call's tree."""
        values = (
            self.chain_id.hex(), str(self.epoch), lines.maybe_number(self.sealed), lines.maybe_hex(self.seal),
            lines.maybe_number(self.seq), lines.maybe_hex(self.leaf), lines.maybe_number(self.time),
        )  # fmt: skip
        return " ".join(values)

    @classmethod
    def parse(cls, line: str) -> Standing:
        """Read a line.

        Raises:
            Malformed: not seven values in their one spelling.
        """
        values = line.split(" ")
        if len(values) != _FIELDS:
            raise Malformed(f"roll-call: a line has {_FIELDS} values")
        chain, epoch, sealed, seal, seq, leaf, time = values
        return cls(
            lines.digest(chain, "chain"),
            lines.number(epoch, "epoch", high=2**32 - 1),
            lines.maybe_count(sealed, "sealed"),
            lines.maybe_digest(seal, "seal"),
            lines.maybe_count(seq, "seq"),
            lines.maybe_digest(leaf, "leaf"),
            lines.maybe_signed(time, "time"),
        )


@dataclass(frozen=True, slots=True)
class RollCall:
    """The entry. ``time`` is in ns."""

    log: str
    time: int
    chains: int
    root: bytes

    def text(self) -> str:
        """The entry's text."""
        values = (self.log, str(self.time), str(self.chains), self.root.hex())
        return lines.join(KIND, list(zip(_NAMES, values, strict=True)))

    @classmethod
    def parse(cls, text: str) -> RollCall:
        """Read a text.

        Raises:
            Malformed: any line not in its place and spelling.
        """
        log, time, chains, root = lines.split(text, KIND, _NAMES)
        return cls(log, lines.number(time, "time"), lines.number(chains, "chains"), lines.digest(root, "root"))


@dataclass(frozen=True, slots=True)
class Answer:
    """One chain's line with its path in a roll-call: what a receipt's ``extra`` holds after the entry."""

    index: int
    standing: Standing
    path: tuple[bytes, ...]

    def text(self) -> str:
        """Lines, each ended by a newline."""
        return f"index {self.index}\n{self.standing.line()}\n{hash_lines.join(self.path)}"

    @classmethod
    def parse(cls, text: str) -> Answer:
        """Read the lines.

        Raises:
            Malformed: not of this form.
        """
        rows = text.split("\n")
        if len(rows) < 3 or rows.pop():
            raise Malformed("roll-call: an answer has its index, its line and a path")
        return cls(hash_lines.numbered(rows[0], "index"), Standing.parse(rows[1]), hash_lines.split(rows[2:]))

    def verify(self, of: RollCall) -> None:
        """Check that the line is part of a roll-call.

        Raises:
            Malformed: index and path cannot be right.
            ProofRejected: the path leads elsewhere.
        """
        merkle.verify_inclusion(
            self.index, of.chains, merkle.leaf_hash(self.standing.line().encode()), self.path, of.root
        )


class Roll:
    """A whole roll-call: its entry, and the answer of each chain.

    Raises:
        Malformed: not in rising order of chain id, or a chain twice.
    """

    def __init__(self, log: str, time: int, standings: Sequence[Standing]) -> None:
        ids = [s.chain_id for s in standings]
        if any(a >= b for a, b in pairwise(ids)):
            raise Malformed("roll-call: chains must stand in rising order, each once")
        self.standings = tuple(standings)
        self._roots: dict[merkle.Range, bytes] = {
            (i, i + 1): merkle.leaf_hash(s.line().encode()) for i, s in enumerate(standings)
        }
        root = self._root((0, len(standings))) if standings else merkle.EMPTY_ROOT
        self.call = RollCall(log, time, len(standings), root)

    def _root(self, span: merkle.Range) -> bytes:
        # The paths of all chains share their subtrees: each is hashed once.
        if span not in self._roots:
            start, end = span
            middle = start + merkle.split_at(end - start)
            self._roots[span] = merkle.node_hash(self._root((start, middle)), self._root((middle, end)))
        return self._roots[span]

    def answer(self, index: int) -> Answer:
        """The line of the chain at ``index`` with its path."""
        path = tuple(map(self._root, merkle.inclusion_ranges(index, len(self.standings))))
        return Answer(index, self.standings[index], path)

    def body(self) -> bytes:
        """All lines, each ended by a newline: what is stored beside the log."""
        return "".join(f"{s.line()}\n" for s in self.standings).encode()
