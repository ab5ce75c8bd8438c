"""Signed notes (C2SP signed-note, https://c2sp.org/signed-note) with Ed25519 signatures.

    This is the text, any number of lines.

    — example.com/key SGFzaCBhbmQgc2lnbmF0dXJl...

A text that ends in a newline, an empty line, then signature lines: em dash, space, key name, space, base64
of the key's 4-byte hash and the signature. :func:`parse` reads any such note; the specification lets a
reader ignore signatures by unknown keys. Our own notes carry exactly one signature, and
:func:`verify_single` takes no other: a line that a verifier skips is a place to hide things.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sidecar.errors import Malformed, SignatureInvalid

MAX_SIZE: Final = 16384
"""The largest note, in bytes, that :func:`parse` reads unless told otherwise."""

MAX_SIGNATURES: Final = 16
"""The most signatures in one note: as many as every reader of the format must accept."""

ED25519: Final = b"\x01"
"""The key type of signatures over a note's text; others have other messages."""

_KEY_BYTES: Final = 32
_HASH_BYTES: Final = 4
_SIGNATURE_BYTES: Final = 64

_FIELD: Final = 2**255 - 19
# The y of the points of order 1, 2, 4 and 8 (RFC 7748's curve as Edwards): a signature by such a key says nothing.
_SMALL: Final = frozenset(
    {
        *(0, 1, _FIELD - 1),
        int.from_bytes(bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little"),
        int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"),
    }
)

_DASH: Final = "\u2014 "
_CONTROL: Final = re.compile("[\x00-\x09\x0b-\x1f]")
# \s of a str pattern is str.isspace(): White_Space of Unicode and four ASCII separators, which are control
# characters anyway.
_NAME: Final = re.compile(r"[^\s+]+")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_HEX: Final = re.compile(r"[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line: who claims to have signed, the first 4 bytes of its key's hash, and the signature
    itself."""

    name: str
    key_hash: bytes
    signature: bytes

    def __post_init__(self) -> None:
        _check_name(self.name)
        if len(self.key_hash) != _HASH_BYTES or not self.signature:
            raise Malformed("note: a signature needs a key hash of 4 bytes and at least one byte more")


@dataclass(frozen=True, slots=True)
class SignedNote:
    """A note taken apart. Nothing in it is to be believed before a signature was verified."""

    text: str
    signatures: tuple[Signature, ...]

    def __post_init__(self) -> None:
        _check_text(self.text)
        if not 1 <= len(self.signatures) <= MAX_SIGNATURES:
            raise Malformed(f"note: 1 to {MAX_SIGNATURES} signatures are required")


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """An Ed25519 key with its name, as a verifier pins it: ``<name>+<hash>+<base64 of its type and the 32-byte
    key>``."""

    name: str
    public_key: bytes
    kind: bytes = ED25519

    def __post_init__(self) -> None:
        _check_name(self.name)
        if len(self.public_key) != _KEY_BYTES:
            raise Malformed("verifier key: an Ed25519 public key has 32 bytes")

    def __str__(self) -> str:
        return f"{self.name}+{self.hash.hex()}+{to_base64(self.kind + self.public_key)}"

    @property
    def hash(self) -> bytes:
        """The 4 bytes that its signature lines start with."""
        return key_hash(self.name, self.public_key, self.kind)


def parse(data: bytes, *, max_size: int = MAX_SIZE) -> SignedNote:
    """Take a note of at most ``max_size`` bytes apart, verifying nothing. Raises :class:`Malformed`."""
    if len(data) > max_size:
        raise Malformed(f"note: larger than {max_size} bytes")
    # The last empty line parts text and signatures, so the text itself may have empty lines.
    text, separator, block = _decode(data).rpartition("\n\n")
    if not separator or not block.endswith("\n"):
        raise Malformed("note: it must be a text, an empty line and signature lines, each ended by a newline")
    lines = block[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise Malformed(f"note: more than {MAX_SIGNATURES} signatures")
    return SignedNote(text + "\n", tuple(_signature(line) for line in lines))


def encode(note: SignedNote) -> bytes:
    """The bytes of a note; the only ones that :func:`parse` reads as it."""
    lines = (f"{_DASH}{s.name} {to_base64(s.key_hash + s.signature)}\n" for s in note.signatures)
    return f"{note.text}\n{''.join(lines)}".encode()


def key_hash(name: str, public_key: bytes, kind: bytes = ED25519) -> bytes:
    """The 4-byte identifier of an Ed25519 key: ``SHA256(name ‖ "\\n" ‖ kind ‖ key)[:4]``. No protection,
    only a hint."""
    if len(public_key) != _KEY_BYTES:
        raise Malformed("note: an Ed25519 public key has 32 bytes")
    return sha256(name.encode() + b"\n" + kind + public_key).digest()[:_HASH_BYTES]


class Signer:
    """Signs notes with one key under one name. Raises :class:`Malformed` on a name that no note can carry."""

    __slots__ = ("_before", "_hash", "_private")

    def __init__(self, name: str, private: Ed25519PrivateKey) -> None:
        _check_name(name)
        self._before = f"\n{_DASH}{name} ".encode()
        self._hash = key_hash(name, private.public_key().public_bytes_raw())
        self._private = private

    def sign(self, text: str) -> bytes:
        """The note over ``text`` (ends in a newline) with one signature.

        The same arguments give the same bytes: Ed25519 (RFC 8032) takes no randomness. Raises
        :class:`Malformed` on a text that no note can carry.
        """
        _check_text(text)
        signed = text.encode()
        return b"%b%b%b\n" % (signed, self._before, b64encode(self._hash + self._private.sign(signed)))


def sign(text: str, name: str, private: Ed25519PrivateKey) -> bytes:
    """As :meth:`Signer.sign`, for a key that signs once."""
    return Signer(name, private).sign(text)


def verify_single(data: bytes, name: str, public_key: bytes) -> str:
    """The text of a note whose one and only signature is that of ``public_key`` (32 bytes) under ``name``.

    Raises :class:`Malformed` when the note is misshaped or carries any other or further signature line, and
    :class:`SignatureInvalid` when the line names this key but its key hash or signature is wrong.
    """
    expected_hash = key_hash(name, public_key)
    note = parse(data)
    if len(note.signatures) != 1:
        raise Malformed("note: exactly one signature is required")
    (signature,) = note.signatures
    if signature.name != name:
        raise Malformed("note: signed under another name than the expected one")
    if len(signature.signature) != _SIGNATURE_BYTES:
        raise Malformed("note: an Ed25519 signature has 64 bytes")
    if signature.key_hash != expected_hash:
        raise SignatureInvalid("note: signed by another key than the expected one")
    verify_signature(public_key, signature.signature, note.text.encode())
    return note.text


def by_key(note: SignedNote, key: VerifierKey) -> list[bytes]:
    """The signatures on the lines that name ``key`` and carry its hash; nothing is verified."""
    return [s.signature for s in note.signatures if (s.name, s.key_hash) == (key.name, key.hash)]


def parse_vkey(vkey: str, kind: bytes = ED25519) -> VerifierKey:
    """A verifier key of type ``kind`` from its text. Raises :class:`Malformed`, also when its hash is not
    that of the key."""
    parts = vkey.split("+", 2)
    if len(parts) != 3 or not _HEX.fullmatch(parts[1]):
        raise Malformed("verifier key: it must be name, 8 lower-case hex digits and base64, joined by +")
    material = from_base64(parts[2])
    if material[:1] != kind:
        raise Malformed(f"verifier key: it must be of type {kind[0]}")
    key = VerifierKey(parts[0], material[1:], kind)
    if key.hash.hex() != parts[1]:
        raise Malformed("verifier key: its hash is not that of its name and key")
    return key


def verify_signature(public_key: bytes, signature: bytes, message: bytes) -> None:
    """One Ed25519 signature. Raises :class:`SignatureInvalid`, also for a key that binds nobody (`binds`)."""
    if not binds(public_key):
        raise SignatureInvalid("the key is of small order, or not in its one spelling: signatures by it bind nobody")
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise SignatureInvalid("the signature does not verify") from None


def binds(public_key: bytes) -> bool:
    """Whether an Ed25519 key, 32 bytes, is in its one spelling and not of small order, by which anybody could sign."""
    y = int.from_bytes(public_key, "little") & ((1 << 255) - 1)
    return y < _FIELD and y not in _SMALL


def _signature(line: str) -> Signature:
    if not line.startswith(_DASH):
        raise Malformed("note: a signature line must start with an em dash and a space")
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    raw = from_base64(encoded)
    return Signature(name, raw[:_HASH_BYTES], raw[_HASH_BYTES:])


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("note: not valid UTF-8") from None


def _check_text(text: str) -> None:
    if not text.endswith("\n"):
        raise Malformed("note: the text must end in a newline")
    if _CONTROL.search(text):
        raise Malformed("note: a control character other than newline")
    _check_encodable(text)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or _CONTROL.search(name):
        raise Malformed("note: a key name is not empty and has no spaces, plus signs or control characters")
    _check_encodable(name)


def _check_encodable(text: str) -> None:
    # A str can hold lone surrogates, which no UTF-8 has.
    if not text.isascii() and re.search("[\ud800-\udfff]", text):
        raise Malformed("note: not valid Unicode")


def to_base64(data: bytes) -> str:
    """Base64 in its one spelling."""
    return b64encode(data).decode("ascii")


def from_base64(text: str) -> bytes:
    """The bytes of canonical base64 (RFC 4648 section 4): padded, nothing else in it, unused bits zero."""
    if len(text) % 4 or not _BASE64.fullmatch(text) or to_base64(data := b64decode(text)) != text:
        raise Malformed("note: not canonical base64")
    return data
