"""A timestamp on a checkpoint, as it is kept beside receipts (proto/LOG.md, "Receipt")::

{"format": "sidecar/v1/timestamp", "checkpoint": "log.example.org\\n7\\n…\\n", "nonce": "8154", "response": "MIIG…"}
"""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.chain import note, strictjson
from sidecar.chain.checkpoint import Checkpoint
from sidecar.errors import Malformed

FORMAT = "sidecar/v1/timestamp"
MAX_BYTES = 131_072
_MOST_DIGITS = 50  # of a nonce; authorities' are 64 bits, RFC 3161 sets no bound


@dataclass(frozen=True, slots=True)
class Timestamp:
    """``checkpoint`` is the text that was stamped, ``response`` the authority's TimeStampResp in DER; nothing of it is
    verified."""

    checkpoint: str
    nonce: int
    response: bytes

    def encode(self) -> bytes:
        """The file's bytes."""
        value = {"checkpoint": self.checkpoint, "nonce": str(self.nonce), "response": note.to_base64(self.response)}
        return strictjson.dumps({"format": FORMAT, **value})

    @classmethod
    def parse(cls, data: bytes) -> Timestamp:
        """Read a file.

        Raises:
            Malformed: too long, not strict JSON, not of this shape.
        """
        if len(data) > MAX_BYTES:
            raise Malformed(f"timestamp: longer than {MAX_BYTES} bytes")
        value = strictjson.parse_object(data)
        if value.keys() != {"format", "checkpoint", "nonce", "response"} or value["format"] != FORMAT:
            raise Malformed(f"timestamp: an object with format {FORMAT!r}, checkpoint, nonce and response is required")
        text, nonce, response = value["checkpoint"], value["nonce"], value["response"]
        if not isinstance(text, str) or not isinstance(nonce, str) or not isinstance(response, str):
            raise Malformed("timestamp: checkpoint, nonce and response are strings")
        if not 0 < len(nonce) <= _MOST_DIGITS or not nonce.isascii() or not nonce.isdigit() or str(int(nonce)) != nonce:
            raise Malformed("timestamp: its nonce is not a number in its one spelling")
        Checkpoint.parse(text)
        return cls(text, int(nonce), note.from_base64(response))
