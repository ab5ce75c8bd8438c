"""Signed notes: what is written is read, and nothing but exactly that."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.chain import note
from sidecar.errors import Malformed, SignatureInvalid

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
NAME = "example.com/sidecar"
TEXT = "first line\n\nthird line, größer\n"
SIGNED = note.sign(TEXT, NAME, KEY)
BODY, _, LINE = SIGNED.rpartition(b"\n\n")

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=[chr(c) for c in range(32)])).map(
    lambda text: text + "\n"
) | st.sampled_from(["\n", "\n\n\n", "— a b\n", "x\n\n— a b\n"])
names = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"], exclude_characters="+"), min_size=1, max_size=20)
signatures = st.builds(note.Signature, names, st.binary(min_size=4, max_size=4), st.binary(min_size=1, max_size=80))


def signature_line(name: str, raw: bytes) -> bytes:
    return f"— {name} {b64encode(raw).decode()}\n".encode()


def test_the_form_is_that_of_c2sp() -> None:
    key_hash = sha256(NAME.encode() + b"\n\x01" + PUBLIC).digest()[:4]
    assert note.key_hash(NAME, PUBLIC) == key_hash
    assert TEXT.encode() + b"\n" + signature_line(NAME, key_hash + KEY.sign(TEXT.encode())) == SIGNED
    assert note.sign(TEXT, NAME, KEY) == SIGNED


def test_a_key_hash_is_of_a_whole_key() -> None:
    with pytest.raises(Malformed, match="32 bytes"):
        note.key_hash(NAME, PUBLIC[:31])


@given(texts, names)
@example("\n", "a")
def test_what_is_signed_verifies(text: str, name: str) -> None:
    data = note.sign(text, name, KEY)
    assert note.verify_single(data, name, PUBLIC) == text
    assert note.encode(note.parse(data)) == data


@given(texts, st.lists(signatures, min_size=1, max_size=4))
def test_parse_and_encode_are_inverse(text: str, lines: list[note.Signature]) -> None:
    made = note.SignedNote(text, tuple(lines))
    assert note.parse(note.encode(made)) == made


@given(st.integers(0, len(SIGNED) * 8 - 1))
def test_no_flipped_bit_goes_unseen(bit: int) -> None:
    changed = bytearray(SIGNED)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises((Malformed, SignatureInvalid)):
        note.verify_single(bytes(changed), NAME, PUBLIC)


@given(st.integers(0, len(SIGNED)), st.binary(min_size=1, max_size=3))
def test_no_inserted_byte_goes_unseen(at: int, more: bytes) -> None:
    with pytest.raises((Malformed, SignatureInvalid)):
        note.verify_single(SIGNED[:at] + more + SIGNED[at:], NAME, PUBLIC)


@given(st.integers(0, len(SIGNED) - 1), st.integers(1, 80))
def test_no_missing_byte_goes_unseen(at: int, count: int) -> None:
    with pytest.raises((Malformed, SignatureInvalid)):
        note.verify_single(SIGNED[:at] + SIGNED[at + count :], NAME, PUBLIC)


@given(st.binary(max_size=80) | st.text("— a\n+=Ab1\u2028", max_size=60).map(str.encode))
def test_whatever_parses_is_spelt_the_one_way(data: bytes) -> None:
    try:
        read = note.parse(data)
    except Malformed:
        return
    assert note.encode(read) == data


def test_a_wrong_signature_or_key_is_invalid() -> None:
    other_public = OTHER.public_key().public_bytes_raw()
    with pytest.raises(SignatureInvalid, match="another key"):
        note.verify_single(SIGNED, NAME, other_public)
    with pytest.raises(SignatureInvalid, match="another key"):
        note.verify_single(note.sign(TEXT, NAME, OTHER), NAME, PUBLIC)
    forged = signature_line(NAME, note.key_hash(NAME, PUBLIC) + OTHER.sign(TEXT.encode()))
    with pytest.raises(SignatureInvalid, match="does not verify"):
        note.verify_single(TEXT.encode() + b"\n" + forged, NAME, PUBLIC)
    with pytest.raises(SignatureInvalid, match="does not verify"):
        note.verify_single(SIGNED.replace(b"first", b"First"), NAME, PUBLIC)


def test_a_public_key_that_is_no_point_verifies_nothing() -> None:
    nowhere = b"\x02" + b"\x00" * 31
    data = TEXT.encode() + b"\n" + signature_line(NAME, note.key_hash(NAME, nowhere) + b"\x00" * 64)
    with pytest.raises(SignatureInvalid):
        note.verify_single(data, NAME, nowhere)


@pytest.mark.parametrize(
    "more",
    [
        LINE,  # the same line twice
        signature_line(NAME, note.key_hash(NAME, PUBLIC) + b"\x00" * 64),
        signature_line("example.com/witness", b"\x00" * 68),
        signature_line("example.com/witness", b"\x00" * 5),
    ],
)
def test_one_signature_line_too_many_is_malformed(more: bytes) -> None:
    for data in (SIGNED + more, BODY + b"\n\n" + more + LINE):
        note.parse(data)
        with pytest.raises(Malformed, match="exactly one"):
            note.verify_single(data, NAME, PUBLIC)


def test_another_name_or_length_of_signature_is_malformed() -> None:
    with pytest.raises(Malformed, match="another name"):
        note.verify_single(SIGNED, "example.com/other", PUBLIC)
    short = signature_line(NAME, note.key_hash(NAME, PUBLIC) + b"\x00" * 63)
    with pytest.raises(Malformed, match="64 bytes"):
        note.verify_single(TEXT.encode() + b"\n" + short, NAME, PUBLIC)


GOOD = b64encode(b"\x00" * 68)  # ends in one =


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty line"),
        (TEXT.encode(), "signature line"),
        (TEXT.encode() + b"\n", "signature lines"),
        (SIGNED[:-1], "ended by a newline"),
        (SIGNED + b"\n", "signature line"),
        (BODY + b"\n" + LINE, "signature line"),
        (b"\xef\xbb\xbf" + b"\xff" + SIGNED, "UTF-8"),
        (SIGNED.replace(b"\n", b"\r\n"), "empty line"),
        (SIGNED.replace(b"first", b"fi\x00st"), "control character"),
        (SIGNED.replace(b"first", b"fi\tst"), "control character"),
        (SIGNED.replace(b"third", b"\x1fhird"), "control character"),
        (b"a\n\n- k " + GOOD + b"\n", "em dash"),
        ("a\n\n—k ".encode() + GOOD + b"\n", "em dash"),
        ("a\n\n— ".encode() + GOOD + b"\n", "base64"),
        ("a\n\n—  ".encode() + GOOD + b"\n", "key name"),
        ("a\n\n— k  ".encode() + GOOD + b"\n", "base64"),
        ("a\n\n— k ".encode() + GOOD + b" \n", "base64"),
        ("a\n\n— k+ ".encode() + GOOD + b"\n", "key name"),
        ("a\n\n— k\u00a0l ".encode() + GOOD + b"\n", "key name"),
        ("a\n\n— k\u2028 ".encode() + GOOD + b"\n", "key name"),
        ("a\n\n— k\x01 ".encode() + GOOD + b"\n", "key name"),
        ("a\n\n— k ".encode() + GOOD[:-1] + b"\n", "base64"),
        ("a\n\n— k ".encode() + GOOD[:-2] + b"B=\n", "base64"),  # unused bits set
        ("a\n\n— k ".encode() + GOOD[:-4] + b"AA_-\n", "base64"),
        ("a\n\n— k ".encode() + GOOD + b"AAAA\n", "base64"),
        ("a\n\n— k AAAA\n".encode(), "4 bytes"),
        ("a\n\n— k AAAAAA==\n".encode(), "at least one byte more"),
    ],
)
def test_misshaped_notes_are_malformed(data: bytes, reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        note.parse(data)
    with pytest.raises(Malformed, match=reason):
        note.verify_single(data, NAME, PUBLIC)


def test_size_and_number_of_signatures_are_bounded() -> None:
    assert note.parse(SIGNED, max_size=len(SIGNED)).text == TEXT
    with pytest.raises(Malformed, match="larger than"):
        note.parse(SIGNED, max_size=len(SIGNED) - 1)
    with pytest.raises(Malformed, match="larger than 16384"):
        note.parse(b"x" * 16385)
    line = signature_line("k", b"\x00" * 5)
    assert len(note.parse(b"a\n\n" + line * 16).signatures) == 16
    with pytest.raises(Malformed, match="more than 16"):
        note.parse(b"a\n\n" + line * 17)


@pytest.mark.parametrize("text", ["", "no newline", "a\rb\n", "a\x00\n", "\ud800\n"])
def test_a_text_that_no_note_carries_is_not_signed(text: str) -> None:
    with pytest.raises(Malformed):
        note.sign(text, NAME, KEY)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u3000b", "a\nb", "a\x7f\x1fb", "a\u0085", "\udfff"])
def test_a_name_that_no_note_carries_is_not_signed(name: str) -> None:
    with pytest.raises(Malformed):
        note.sign(TEXT, name, KEY)
    with pytest.raises(Malformed):
        note.VerifierKey(name, PUBLIC)


@given(names, st.binary(min_size=32, max_size=32))
def test_a_verifier_key_has_one_spelling(name: str, public: bytes) -> None:
    key = note.VerifierKey(name, public)
    assert note.parse_vkey(str(key)) == key
    assert str(key) == f"{name}+{note.key_hash(name, public).hex()}+{b64encode(bytes([1]) + public).decode()}"


VKEY = str(note.VerifierKey(NAME, PUBLIC))
HASH = note.key_hash(NAME, PUBLIC).hex()


@pytest.mark.parametrize(
    ("vkey", "reason"),
    [
        ("", "joined by"),
        (NAME, "joined by"),
        (VKEY.replace(HASH, HASH.upper()), "lower-case"),
        (VKEY.replace(HASH, "0" + HASH), "8 lower-case"),
        (VKEY.replace(HASH, "00000000"), "its hash"),
        (VKEY.replace("example", "elsewhere"), "its hash"),
        (VKEY.replace("example", "exam ple"), "key name"),
        (VKEY[len(NAME) :], "key name"),
        (VKEY + "\n", "base64"),
        (VKEY + "=", "base64"),
        (f"{NAME}+{HASH}+", "base64"),
        (f"{NAME}+{HASH}+{b64encode(bytes([2]) + PUBLIC).decode()}", "must be of type 1"),
        (f"{NAME}+{HASH}+{b64encode(bytes([1]) + PUBLIC + bytes(3)).decode()}", "32 bytes"),
    ],
)
def test_misspelt_verifier_keys_are_malformed(vkey: str, reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        note.parse_vkey(vkey)
