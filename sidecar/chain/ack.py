"""The acknowledgement: what a collector holds of a chain, signed by the log's key (proto/LOG.md, "Acknowledgement").

sidecar/v1/ack
chain 5d1c…
epoch 3
segment 41
seq 90211
leaf 77aa…
time 1795455538123456789
"""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.chain import lines
from sidecar.errors import Malformed

KIND = "sidecar/v1/ack"
_NAMES = ("chain", "epoch", "segment", "seq", "leaf", "time")


@dataclass(frozen=True, slots=True)
class Ack:
    """``seq`` and ``leaf`` are of the last entry held, both None before the first; ``time`` is in ns.

    Raises:
        Malformed: one of seq and leaf without the other.
    """

    chain_id: bytes
    epoch: int
    segment: int
    seq: int | None
    leaf: bytes | None
    time: int

    def __post_init__(self) -> None:
        if (self.seq is None) != (self.leaf is None):
            raise Malformed("acknowledgement gives one of seq and leaf")

    def text(self) -> str:
        """The note's text, unsigned."""
        values = (
            self.chain_id.hex(), str(self.epoch), str(self.segment), lines.maybe_number(self.seq),
            lines.maybe_hex(self.leaf), str(self.time),
        )  # fmt: skip
        return lines.join(KIND, list(zip(_NAMES, values, strict=True)))

    @classmethod
    def parse(cls, text: str) -> Ack:
        """Read a text.

        Raises:
            Malformed: any line not in its place and spelling.
        """
        chain, epoch, segment, seq, leaf, time = lines.split(text, KIND, _NAMES)
        return cls(
            lines.digest(chain, "chain"),
            lines.number(epoch, "epoch", high=2**32 - 1),
            lines.number(segment, "segment"),
            lines.maybe_count(seq, "seq"),
            lines.maybe_digest(leaf, "leaf"),
            lines.number(time, "time"),
        )
