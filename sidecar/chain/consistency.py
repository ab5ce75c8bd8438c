"""That one checkpoint extends another: the body of a C2SP tlog-witness request, and a file beside receipts.

old 20852014
PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
…

example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDe…
"""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.chain import hash_lines
from sidecar.errors import Malformed

MAX_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Consistency:
    """``old`` is the smaller tree's size, ``checkpoint`` the newer one's signed note as it is."""

    old: int
    proof: tuple[bytes, ...]
    checkpoint: bytes

    def encode(self) -> bytes:
        """The bytes; the only ones that :meth:`parse` reads as this."""
        return f"old {self.old}\n{hash_lines.join(self.proof)}\n".encode() + self.checkpoint

    @classmethod
    def parse(cls, data: bytes) -> Consistency:
        """Read one; nothing is verified, the checkpoint not even read.

        Raises:
            Malformed: not of this form.
        """
        head, separator, signed = hash_lines.decoded(data, MAX_BYTES).partition("\n\n")
        if not separator:
            raise Malformed("consistency: an empty line must stand before the checkpoint")
        rows = head.split("\n")
        return cls(hash_lines.numbered(rows[0], "old"), hash_lines.split(rows[1:]), signed.encode())
