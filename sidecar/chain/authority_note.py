"""The authority note: what the offline key that GENESIS names allows (proto/LEDGER.md, "Authority note").

A note::

    sidecar/v1/authority
    chain 5d1c…
    act prune
    body 8e02…
    time 1795455538123456789

and beside it the act's body, strict JSON whose SHA-256 the note names. Both go together as one **grant**:
``u32 length of the note ‖ note ‖ body``. A grant is believed only once :func:`verify` has checked its signature.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.chain import acts, lines, note
from sidecar.errors import Malformed

KIND: Final = "sidecar/v1/authority"
MAX_BODY: Final = 65_536
MAX_GRANT: Final = 4 + note.MAX_SIZE + MAX_BODY
RESERVED: Final = frozenset({"custodians", "successor", "identity"})
"""Acts that no reader of this version knows the body of."""

_NAMES: Final = ("chain", "act", "body", "time")
_LENGTH: Final = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class AuthorityNote:
    """One note. ``act``: its name; ``body``: SHA-256 of the act's body; ``time``: ns since 1970.

    Raises:
        Malformed: an unknown act.
    """

    chain_id: bytes
    act: str
    body: bytes
    time: int

    def __post_init__(self) -> None:
        if self.act not in acts.BODIES and self.act not in RESERVED:
            raise Malformed("authority note names an unknown act")

    def text(self) -> str:
        """The note's text, unsigned."""
        values = (self.chain_id.hex(), self.act, self.body.hex(), str(self.time))
        return lines.join(KIND, list(zip(_NAMES, values, strict=True)))

    @classmethod
    def parse(cls, text: str) -> AuthorityNote:
        """Read a text.

        Raises:
            Malformed: any line not in its place and spelling, or an unknown act.
        """
        chain, act, body, time = lines.split(text, KIND, _NAMES)
        return cls(lines.digest(chain, "chain"), act, lines.digest(body, "body"), lines.number(time, "time"))


@dataclass(frozen=True, slots=True)
class Grant:
    """A grant whose signature was verified. ``act``: what it allows, None where its act is reserved; ``record``: its
    bytes, as they came."""

    note: AuthorityNote
    act: acts.Act | None
    record: bytes

    @property
    def hash(self) -> bytes:
        """What names it: see :func:`grant_hash`."""
        return grant_hash(self.note.text())


def authority_name(chain_id: bytes) -> str:
    """Key name of the authority of a chain."""
    return f"sidecar.v1/{chain_id.hex()}/authority"


def grant_hash(text: str) -> bytes:
    """What names an authority note: a hash of its text, never of its signature."""
    return hashlib.sha256(b"sidecar/v1/authority\0" + text.encode()).digest()


def compose(act: acts.Act, time: int, private: Ed25519PrivateKey) -> bytes:
    """The signed grant of ``act`` for the chain that it names. ``time``: ns since 1970, at least 0.

    Raises:
        Malformed: a body over the limit.
    """
    body = act.encode()
    if len(body) > MAX_BODY:
        raise Malformed(f"authority note: a body over {MAX_BODY} bytes")
    written = AuthorityNote(act.chain_id, act.ACT, hashlib.sha256(body).digest(), time)
    return join(note.sign(written.text(), authority_name(act.chain_id), private), body)


def join(signed: bytes, body: bytes) -> bytes:
    """A signed note and its body as one grant."""
    return _LENGTH.pack(len(signed)) + signed + body


def split(record: bytes, longest: int = MAX_GRANT) -> tuple[bytes, bytes]:
    """The signed note and the body of a grant of at most ``longest`` bytes; nothing is verified.

    Raises:
        Malformed: over the limit, or cut short.
    """
    if not _LENGTH.size < len(record) <= longest:
        raise Malformed("authority note: longer than allowed, or cut short")
    end = _LENGTH.size + _LENGTH.unpack_from(record)[0]
    if not _LENGTH.size < end <= min(len(record), _LENGTH.size + note.MAX_SIZE):
        raise Malformed("authority note: its length is not that of a note in it")
    return record[_LENGTH.size : end], record[end:]


def read(record: bytes) -> Grant:
    """Take a grant apart, strictly. **Nothing is verified**: see :func:`verify`.

    Raises:
        Malformed: any part not as proto/LEDGER.md has it, a body that the note does not name or of another chain.
    """
    signed, body = split(record)
    return _grant(note.parse(signed).text, body, record)


def verify(record: bytes, chain_id: bytes, authority: bytes) -> Grant:
    """A grant for this chain by its authority key (32 bytes).

    Raises:
        Malformed: as :func:`read`; another or a further signature line, as one for another chain has.
        SignatureInvalid: signed under the authority's name by another key, or altered since.
    """
    signed, body = split(record)
    return _grant(note.verify_single(signed, authority_name(chain_id), authority), body, record, chain_id)


def _grant(text: str, body: bytes, record: bytes, chain_id: bytes | None = None) -> Grant:
    written = AuthorityNote.parse(text)
    if chain_id is not None and written.chain_id != chain_id:
        raise Malformed("authority note: of another chain")
    if len(body) > MAX_BODY:
        raise Malformed(f"authority note: a body over {MAX_BODY} bytes")
    if hashlib.sha256(body).digest() != written.body:
        raise Malformed("authority note: the body beside it is not the one that it names")
    if written.act in RESERVED:
        return Grant(written, None, record)
    act = acts.parse(body)
    if written.act != act.ACT or act.chain_id != written.chain_id:
        raise Malformed("authority note: its body is of another act or chain")
    return Grant(written, act, record)
