"""The seal: closes a segment, commits to its entries and keys, names the next signing key.

proto/LEDGER.md, "Seal"::

    sidecar/v1/seal
    chain 5d1c…
    epoch 3
    segment 41
    first 90001
    count 10000
    root 8e02…
    …
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from sidecar.chain import lines
from sidecar.errors import Malformed

KIND = "sidecar/v1/seal"
REASONS = frozenset({"count", "time", "close", "crash"})
_NAMES = (
    "chain", "epoch", "segment", "first", "count", "root", "last", "prev", "wall_first", "wall_last", "mono_first",
    "mono_last", "mac_key", "tag_key", "next", "policy", "registry", "head", "reason", "time",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Span:
    """Clocks of a segment's first and last entry, ns. Absent when it is empty."""

    wall_first: int
    wall_last: int
    mono_first: int
    mono_last: int


@dataclass(frozen=True, slots=True)
class Seal:
    """One seal. Which of the optional lines are present follows from ``reason`` and ``count``.

    Raises:
        Malformed: lines that do not go together.
    """

    chain_id: bytes
    epoch: int
    segment: int
    first: int
    count: int
    root: bytes
    last: bytes
    prev: bytes
    span: Span | None
    mac_key: bytes | None
    tag_key: bytes | None
    next: bytes | None
    policy: bytes
    registry: bytes
    head: bytes | None
    reason: str
    time: int

    def __post_init__(self) -> None:
        crash = self.reason == "crash"
        if self.reason not in REASONS:
            raise Malformed("seal has an unknown reason")
        if (self.span is None) != (self.count == 0):
            raise Malformed("seal gives clocks for no entries, or none for some")
        if (self.mac_key is None) != crash or (self.tag_key is None) != crash:
            raise Malformed("key commitments do not go with the seal's reason")
        if (self.next is None) != (self.reason in ("close", "crash")):
            raise Malformed("next key does not go with the seal's reason")
        if (self.head is not None) != (crash and self.count > 0):
            raise Malformed("recovered head does not go with the seal's reason and count")

    def text(self) -> str:
        """The note's text, unsigned."""
        s = self.span
        clocks = (None,) * 4 if s is None else (s.wall_first, s.wall_last, s.mono_first, s.mono_last)
        values = (
            self.chain_id.hex(), str(self.epoch), str(self.segment), str(self.first), str(self.count),
            self.root.hex(), self.last.hex(), self.prev.hex(), *map(lines.maybe_number, clocks),
            lines.maybe_hex(self.mac_key), lines.maybe_hex(self.tag_key), lines.maybe_hex(self.next),
            self.policy.hex(), self.registry.hex(), lines.maybe_hex(self.head), self.reason, str(self.time),
        )  # fmt: skip
        return lines.join(KIND, list(zip(_NAMES, values, strict=True)))

    @classmethod
    def parse(cls, text: str) -> Seal:
        """Read a text.

        Raises:
            Malformed: any line not in its place and spelling, or lines that do not go together.
        """
        v = dict(zip(_NAMES, lines.split(text, KIND, _NAMES), strict=True))
        return cls(
            lines.digest(v["chain"], "chain"),
            lines.number(v["epoch"], "epoch", high=2**32 - 1),
            lines.number(v["segment"], "segment"),
            lines.number(v["first"], "first"),
            lines.number(v["count"], "count"),
            lines.digest(v["root"], "root"),
            lines.digest(v["last"], "last"),
            lines.digest(v["prev"], "prev"),
            _span(v),
            lines.maybe_digest(v["mac_key"], "mac_key"),
            lines.maybe_digest(v["tag_key"], "tag_key"),
            lines.maybe_digest(v["next"], "next"),
            lines.digest(v["policy"], "policy"),
            lines.digest(v["registry"], "registry"),
            lines.maybe_digest(v["head"], "head"),
            v["reason"],
            lines.number(v["time"], "time"),
        )


def _span(v: dict[str, str]) -> Span | None:
    clocks = [lines.maybe_signed(v[n], n) for n in ("wall_first", "wall_last")]
    clocks += [None if v[n] == lines.NONE else lines.number(v[n], n) for n in ("mono_first", "mono_last")]
    given = [c for c in clocks if c is not None]
    if not given:
        return None
    if len(given) != 4:
        raise Malformed("seal gives its clocks in part")
    return Span(*given)


def seal_hash(text: str) -> bytes:
    """What names a seal: a hash of its text, never of its signature."""
    return hashlib.sha256(b"sidecar/v1/seal\0" + text.encode()).digest()
