"""Our removal of OAEP's padding against the cryptography library's: same messages, same refusals."""

from __future__ import annotations

import os
from functools import cache
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from sidecar.custody import oaep

SIZE = 256
OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
LABEL = sha256(b"").digest()


@cache
def _key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=SIZE * 8)


def _raw(sealed: bytes) -> bytes:
    numbers = _key().private_numbers()
    n = numbers.public_numbers.n
    return pow(int.from_bytes(sealed, "big"), numbers.d, n).to_bytes(SIZE, "big")


def _peer(encoded: bytes) -> bytes | None:
    """What the cryptography library makes of an encoded message; the message must be below the modulus."""
    numbers = _key().public_key().public_numbers()
    sealed = pow(int.from_bytes(encoded, "big"), numbers.e, numbers.n).to_bytes(SIZE, "big")
    try:
        return _key().decrypt(sealed, OAEP)
    except ValueError:
        return None


def _mask(seed: bytes, length: int) -> bytes:
    return b"".join(sha256(seed + i.to_bytes(4, "big")).digest() for i in range(length // 32 + 1))[:length]


def _encoded(block: bytes, first: int = 0) -> bytes:
    """EM with any data block, right or wrong (RFC 8017 section 7.1.1, step 2)."""
    seed = os.urandom(32)
    masked = bytes(a ^ b for a, b in zip(block, _mask(seed, len(block)), strict=True))
    masked_seed = bytes(a ^ b for a, b in zip(seed, _mask(masked, 32), strict=True))
    return bytes((first,)) + masked_seed + masked


REST = SIZE - 1 - 32 - 32  # bytes of the data block after the label's hash


@pytest.mark.parametrize("length", [0, 1, 32, 64, 189, 190])
def test_it_opens_what_the_library_seals(length: int) -> None:
    message = os.urandom(length)
    assert oaep.unpad(_raw(_key().public_key().encrypt(message, OAEP))) == message


def test_a_message_of_zeros_and_ones_keeps_them() -> None:
    message = b"\x00\x01\x00\x01\x02\x01\x00"
    assert oaep.unpad(_raw(_key().public_key().encrypt(message, OAEP))) == message


def test_any_byte_changed_is_refused_by_both() -> None:
    encoded = _encoded(LABEL + bytes(REST - 65) + b"\x01" + bytes(range(64)))
    assert oaep.unpad(encoded) == _peer(encoded) == bytes(range(64))
    for place in range(1, SIZE):
        broken = bytearray(encoded)
        broken[place] ^= 1 + place % 255
        assert oaep.unpad(bytes(broken)) is None
        assert _peer(bytes(broken)) is None


@pytest.mark.parametrize(
    "encoded",
    [
        _encoded(LABEL + bytes(REST)),
        _encoded(LABEL + bytes(REST - 2) + b"\x02\x01"),
        _encoded(LABEL + b"\xff" + bytes(REST - 2) + b"\x01"),
        _encoded(LABEL + bytes(REST - 1) + b"\x03"),
        _encoded(sha256(b"label").digest() + bytes(REST - 1) + b"\x01"),
        _encoded(LABEL[:-1] + bytes((LABEL[-1] ^ 0x80,)) + b"\x01" + bytes(REST - 1)),
        bytes(SIZE),
    ],
    ids=["no-separator", "stray-before", "stray-first", "other-separator", "a-label", "one-bit", "zeros"],
)
def test_a_wrong_block_is_refused_by_both(encoded: bytes) -> None:
    assert oaep.unpad(encoded) is None
    assert _peer(encoded) is None


def test_the_edges_of_a_right_block_are_taken_by_both() -> None:
    for block, message in ((b"\x01" + bytes(REST - 1), bytes(REST - 1)), (bytes(REST - 1) + b"\x01", b"")):
        encoded = _encoded(LABEL + block)
        assert oaep.unpad(encoded) == _peer(encoded) == message


@pytest.mark.parametrize("first", [1, 2, 0x80, 0xFF])
def test_a_first_byte_other_than_zero_is_refused(first: int) -> None:
    # Manger's case: all else right.
    block = LABEL + bytes(REST - 65) + b"\x01" + bytes(64)
    assert oaep.unpad(_encoded(block)) == bytes(64)
    assert oaep.unpad(_encoded(block, first)) is None


@pytest.mark.parametrize("length", [0, 1, 33, 65])
def test_what_is_too_short_is_refused(length: int) -> None:
    assert oaep.unpad(bytes(length)) is None
