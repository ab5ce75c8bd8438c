"""A signed note by the key that must have signed it, where that key is known."""

from __future__ import annotations

from sidecar.chain import note
from sidecar.errors import Malformed, SignatureInvalid


def signer(data: bytes) -> tuple[str, str]:
    """Text of a note and name on its one signature line; nothing is verified.

    Raises:
        Malformed: no note, or not exactly one signature.
    """
    parsed = note.parse(data)
    if len(parsed.signatures) != 1:
        raise Malformed("note: exactly one signature is required")
    return parsed.text, parsed.signatures[0].name


def is_signed(data: bytes, name: str, key: bytes | None) -> bool | None:
    """Whether the note is signed by ``key`` under ``name``; None where the key is not known.

    Raises:
        Malformed: another or a further signature line.
    """
    if key is None:
        if signer(data)[1] != name:
            raise Malformed("note: signed under another name than the expected one")
        return None
    try:
        note.verify_single(data, name, key)
    except SignatureInvalid:
        return False
    return True
