"""The pruning certificate: what a collector says it pruned, and by whose leave (proto/SHIPPING.md, "Pruning")::

sidecar/v1/pruned
chain 5d1c…
authority 8e02…
note 77aa…
segments 0-41,43-43
seal 31f0…
payloads 10000
bytes 2000000
entries 10230
leaf 5d1c…
time 1795455538123456789
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.chain import authority_note, lines, note
from sidecar.chain.acts import Prune
from sidecar.chain.authority_note import Grant
from sidecar.chain.note import VerifierKey
from sidecar.errors import Malformed

KIND: Final = "sidecar/v1/pruned"
_NAMES: Final = (
    "chain", "authority", "note", "segments", "seal", "payloads", "bytes", "entries", "leaf", "time",
)  # fmt: skip
_SEGMENTS: Final = re.compile(r"\A[0-9]+-[0-9]+(?:,[0-9]+-[0-9]+)*\Z")


@dataclass(frozen=True, slots=True)
class Certificate:
    """``authority``: the key that GENESIS names; ``note``: the hash of its note; ``segments``: the runs of it;
    ``seal``: the hash of the seal of the last of them; ``payloads`` and ``size``: how many went, and how many bytes;
    ``entries`` and ``leaf``: how many the chain had then, all of which remain, and the leaf of the last; ``time``: ns
    since 1970.
    """

    chain_id: bytes
    authority: bytes
    note: bytes
    segments: str
    seal: bytes
    payloads: int
    size: int
    entries: int
    leaf: bytes
    time: int

    def __post_init__(self) -> None:
        if not _SEGMENTS.match(self.segments):
            raise Malformed("pruning certificate: segments are no runs")

    def text(self) -> str:
        """The note's text, unsigned."""
        values = (
            self.chain_id.hex(), self.authority.hex(), self.note.hex(), self.segments, self.seal.hex(),
            str(self.payloads), str(self.size), str(self.entries), self.leaf.hex(), str(self.time),
        )  # fmt: skip
        return lines.join(KIND, list(zip(_NAMES, values, strict=True)))

    @classmethod
    def parse(cls, text: str) -> Certificate:
        """Read a text. Raises Malformed: any line not in its place and spelling."""
        chain, authority, named, segments, seal, payloads, size, entries, leaf, time = lines.split(text, KIND, _NAMES)
        return cls(
            lines.digest(chain, "chain"), lines.digest(authority, "authority"), lines.digest(named, "note"), segments,
            lines.digest(seal, "seal"), lines.number(payloads, "payloads"), lines.number(size, "bytes"),
            lines.number(entries, "entries"), lines.digest(leaf, "leaf"), lines.number(time, "time"),
        )  # fmt: skip


def segments_of(act: Prune) -> str:
    """The runs of an act, as a certificate spells them."""
    return ",".join(f"{run.first}-{run.last}" for run in act.runs)


def certify(certificate: Certificate, grant: bytes, origin: str, key: Ed25519PrivateKey) -> bytes:
    """The signed certificate with the grant that it rests on."""
    return authority_note.join(note.sign(certificate.text(), origin, key), grant)


def verify(data: bytes, log: VerifierKey, authority: bytes) -> tuple[Certificate, Grant]:
    """A certificate by this log's key, of what this authority (32 bytes, as GENESIS names it) allowed; and its grant.

    Raises:
        Malformed: not of this form, or its lines are not those of the grant. SignatureInvalid: by other keys.
    """
    signed, grant = authority_note.split(data, longest=authority_note.MAX_GRANT + 4 + note.MAX_SIZE)
    read = Certificate.parse(note.verify_single(signed, log.name, log.public_key))
    found = authority_note.verify(grant, read.chain_id, authority)
    if not isinstance(found.act, Prune):
        raise Malformed("pruning certificate: it rests on a note that allows no pruning")
    told = (read.authority, read.note, read.segments, read.seal)
    if told != (authority, found.hash, segments_of(found.act), found.act.runs[-1].seal):
        raise Malformed("pruning certificate: it says something else than the note that it rests on")
    return read, found
