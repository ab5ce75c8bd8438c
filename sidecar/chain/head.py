"""The head: a signed position in a segment; with a decision named it is a caller's receipt.

proto/LEDGER.md, "Head"::

    sidecar/v1/head
    chain 5d1c…
    epoch 3
    segment 41
    seq 90211
    leaf 77aa…
    time 1795455538123456789
    decision 019aaf3c-…
    effect ALLOW
    request 31f0…
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from sidecar.chain import lines
from sidecar.errors import Malformed

KIND = "sidecar/v1/head"
EFFECTS = frozenset({"ALLOW", "DENY", "REQUIRE_APPROVAL"})
_NAMES = ("chain", "epoch", "segment", "seq", "leaf", "time", "decision", "effect", "request")
_UUID = re.compile(r"\A[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z")


@dataclass(frozen=True, slots=True)
class Decided:
    """What a receipt says of its decision: the id, the effect, the 32-byte request digest.

    Raises:
        Malformed: an id that is no UUIDv7 in lower case, or an unknown effect.
    """

    decision_id: str
    effect: str
    request: bytes

    def __post_init__(self) -> None:
        if not _UUID.match(self.decision_id) or self.effect not in EFFECTS:
            raise Malformed("receipt names no proper decision id and effect")


@dataclass(frozen=True, slots=True)
class Head:
    """One head. ``time`` is the wall_ns of the entry at ``seq``."""

    chain_id: bytes
    epoch: int
    segment: int
    seq: int
    leaf: bytes
    time: int
    decided: Decided | None = None

    def text(self) -> str:
        """The note's text, unsigned."""
        d = self.decided  # whose texts were held against their forms: no value here can have a newline
        named = "decision -\neffect -\nrequest -\n"
        if d is not None:
            named = f"decision {d.decision_id}\neffect {d.effect}\nrequest {d.request.hex()}\n"
        return (
            f"{KIND}\nchain {self.chain_id.hex()}\nepoch {self.epoch}\nsegment {self.segment}\nseq {self.seq}\n"
            f"leaf {self.leaf.hex()}\ntime {self.time}\n{named}"
        )

    @classmethod
    def parse(cls, text: str) -> Head:
        """Read a text.

        Raises:
            Malformed: any line not in its place and spelling, or a decision named in part.
        """
        chain, epoch, segment, seq, leaf, time, decision, effect, request = lines.split(text, KIND, _NAMES)
        named = (decision, effect, request)
        decided = None
        if named != (lines.NONE,) * 3:
            decided = Decided(decision, effect, lines.digest(request, "request"))
        return cls(
            lines.digest(chain, "chain"),
            lines.number(epoch, "epoch", high=2**32 - 1),
            lines.number(segment, "segment"),
            lines.number(seq, "seq"),
            lines.digest(leaf, "leaf"),
            lines.signed(time, "time"),
            decided,
        )


def head_hash(text: str) -> bytes:
    """What names a head in a recovery seal."""
    return hashlib.sha256(b"sidecar/v1/head\0" + text.encode()).digest()
