"""The epoch note: what a run of the process starts from, signed by the sidecar's identity key.

proto/LEDGER.md, "Epoch note"::

    sidecar/v1/epoch
    chain 5d1c…
    epoch 3
    segment 41
    …
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from sidecar.chain import lines
from sidecar.errors import Malformed

KIND = "sidecar/v1/epoch"
ALGORITHMS = "sha256,hmac-sha256,ed25519"
_NAMES = (
    "chain", "epoch", "segment", "seq", "leaf", "seal", "recovered", "custodians", "seeds", "seed_commit", "key",
    "config", "log", "alg", "time",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class EpochNote:
    """One epoch note. ``recovered`` is the segment closed by a recovery seal at this start; ``time`` is in ns."""

    chain_id: bytes
    epoch: int
    segment: int
    seq: int
    leaf: bytes
    seal: bytes
    recovered: int | None
    custodians: bytes
    seeds: bytes
    seed_commit: bytes
    key: bytes
    config: bytes
    log: str | None
    time: int

    def text(self) -> str:
        """The note's text, unsigned."""
        values = (
            self.chain_id.hex(), str(self.epoch), str(self.segment), str(self.seq), self.leaf.hex(),
            self.seal.hex(), lines.maybe_number(self.recovered), self.custodians.hex(), self.seeds.hex(),
            self.seed_commit.hex(), self.key.hex(), self.config.hex(), self.log or lines.NONE, ALGORITHMS,
            str(self.time),
        )  # fmt: skip
        return lines.join(KIND, list(zip(_NAMES, values, strict=True)))

    @classmethod
    def parse(cls, text: str) -> EpochNote:
        """Read a text.

        Raises:
            Malformed: any line not in its place and spelling, or other algorithms.
        """
        v = dict(zip(_NAMES, lines.split(text, KIND, _NAMES), strict=True))
        if v["alg"] != ALGORITHMS:
            raise Malformed("epoch note names unknown algorithms")
        return cls(
            lines.digest(v["chain"], "chain"),
            lines.number(v["epoch"], "epoch", high=2**32 - 1),
            lines.number(v["segment"], "segment"),
            lines.number(v["seq"], "seq"),
            lines.digest(v["leaf"], "leaf"),
            lines.digest(v["seal"], "seal"),
            None if v["recovered"] == lines.NONE else lines.number(v["recovered"], "recovered"),
            lines.digest(v["custodians"], "custodians"),
            lines.digest(v["seeds"], "seeds"),
            lines.digest(v["seed_commit"], "seed_commit"),
            lines.digest(v["key"], "key"),
            lines.digest(v["config"], "config"),
            None if v["log"] == lines.NONE else v["log"],
            lines.number(v["time"], "time"),
        )


def epoch_hash(text: str) -> bytes:
    """What names an epoch note: a hash of its text, never of its signature."""
    return hashlib.sha256(b"sidecar/v1/epoch\0" + text.encode()).digest()
