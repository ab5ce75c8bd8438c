"""Lines of base64 hashes, as tlog-proof and tlog-witness write proofs: one 32-byte hash a line."""

from __future__ import annotations

from collections.abc import Sequence

from sidecar.chain import lines, note
from sidecar.chain.merkle import HASH_BYTES
from sidecar.errors import Malformed

MOST = 63
"""As many hashes as the proof of the largest tree has."""


def join(hashes: Sequence[bytes]) -> str:
    """Each hash and a newline."""
    return "".join(f"{note.to_base64(each)}\n" for each in hashes)


def split(rows: Sequence[str]) -> tuple[bytes, ...]:
    """The hashes of some rows.

    Raises:
        Malformed: too many, or one that is not 32 bytes in canonical base64.
    """
    hashes = tuple(note.from_base64(row) for row in rows)
    if len(hashes) > MOST or any(len(each) != HASH_BYTES for each in hashes):
        raise Malformed(f"proof: at most {MOST} hashes of {HASH_BYTES} bytes are allowed")
    return hashes


def numbered(row: str, name: str) -> int:
    """The number in a line ``name SP decimal``.

    Raises:
        Malformed: another line, or another spelling.
    """
    found, _, value = row.partition(" ")
    if found != name:
        raise Malformed(f"proof: a line {name!r} is required here")
    return lines.number(value, name, high=2**63 - 1)


def decoded(data: bytes, most: int) -> str:
    """The text of a proof file.

    Raises:
        Malformed: longer than ``most`` bytes, or not UTF-8.
    """
    if len(data) > most:
        raise Malformed(f"proof: longer than {most} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Malformed("proof: not valid UTF-8") from None
