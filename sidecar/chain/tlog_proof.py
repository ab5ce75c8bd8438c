"""The proof that an entry is in a log, to be checked offline (C2SP tlog-proof; proto/LOG.md, "Receipt").

c2sp.org/tlog-proof@v1
extra c2lkZWNhci92MS9zZWFsCmNoYWluIDVkMWM…
index 73894
gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=
…

example.com/fancylog
109482
sFodV/vSp5O8n9a8QpW6PRY97tfOSW5bsc2Xl/EQi08=

— example.com/fancylog hI2DJw…
"""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.chain import hash_lines, merkle, note
from sidecar.chain.checkpoint import Checkpoint
from sidecar.errors import Malformed

KIND = "c2sp.org/tlog-proof@v1"
MAX_BYTES = 65_536
_EXTRA = "extra "


@dataclass(frozen=True, slots=True)
class TlogProof:
    """A proof taken apart. ``checkpoint`` is the signed note as it is; ``extra``, which is not empty, is vouched for by
    nothing."""

    extra: bytes | None
    index: int
    path: tuple[bytes, ...]
    checkpoint: bytes

    def encode(self) -> bytes:
        """The bytes; the only ones that :meth:`parse` reads as this proof."""
        extra = "" if self.extra is None else f"{_EXTRA}{note.to_base64(self.extra)}\n"
        head = f"{KIND}\n{extra}index {self.index}\n{hash_lines.join(self.path)}\n"
        return head.encode() + self.checkpoint

    @classmethod
    def parse(cls, data: bytes) -> TlogProof:
        """Read a proof; nothing is verified, the checkpoint not even read.

        Raises:
            Malformed: not of this form.
        """
        head, separator, signed = hash_lines.decoded(data, MAX_BYTES).partition("\n\n")
        rows = head.split("\n")
        if not separator or rows.pop(0) != KIND:
            raise Malformed(f"proof: it must start with {KIND} and hold an empty line before its checkpoint")
        extra = None
        if rows and rows[0].startswith(_EXTRA):
            extra = note.from_base64(rows.pop(0).removeprefix(_EXTRA))
        if not rows:
            raise Malformed("proof: a line 'index' is required")
        return cls(extra, hash_lines.numbered(rows[0], "index"), hash_lines.split(rows[1:]), signed.encode())

    def verify(self, leaf_hash: bytes, checkpoint: Checkpoint) -> None:
        """Check that it leads from a leaf to this checkpoint's root; who signed that, the caller checks.

        Raises:
            Malformed: a path of the wrong length.
            ProofRejected: it leads elsewhere.
        """
        merkle.verify_inclusion(self.index, checkpoint.size, leaf_hash, self.path, checkpoint.root)
