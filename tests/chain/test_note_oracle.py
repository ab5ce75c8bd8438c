"""Our signed notes against golang.org/x/mod/sumdb/note, the code that the C2SP signed-note format comes from.

What either signs the other verifies, byte for byte the same, and both give one verdict on notes and keys that are
nearly right. Where ours refuses what theirs accepts stands in :func:`stricter` and :func:`stricter_key`, and nowhere
else.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.chain import note
from sidecar.errors import Malformed, SignatureInvalid
from tests.outside import Oracle, go_module, oracle

NAME = "sidecar.example/a"
SEED = sha256(b"a key for this test").digest()
PRIVATE = Ed25519PrivateKey.from_private_bytes(SEED)
KEY = note.VerifierKey(NAME, PRIVATE.public_key().public_bytes_raw())
SKEY = f"PRIVATE+KEY+{NAME}+{note.key_hash(NAME, KEY.public_key).hex()}+" + b64encode(b"\x01" + SEED).decode()
OTHER = Ed25519PrivateKey.from_private_bytes(sha256(b"another key").digest())

TEXTS = [
    "\n",
    "one line\n",
    "\n\n\n",
    "a line\n\nafter an empty one\n",
    "\u2014 sidecar.example/a looks like a signature\n",
    "naïve \u2028 \u0085 \x7f \ufffd \ufeff \U0001f512 \uffff\n",
    "trailing space \n",
    "x" * 8000 + "\n",
]

BODY = "a line\n\nanother\n"
GOOD = note.sign(BODY, NAME, PRIVATE)
TEXT, _, LINE = GOOD.rpartition(b"\n\n")  # without the newlines between them
RAW = b64decode(LINE.rpartition(b" ")[2])  # the key hash and the signature
ORDER = 2**252 + 27742317777372353535851937790883648493  # of Ed25519's group (RFC 8032 section 5.1)


def over(*lines: bytes) -> bytes:
    """The good note's text over other lines."""
    return b"\n".join([TEXT, b"", *lines, b""])


def line(raw: bytes, name: str = NAME) -> bytes:
    """A signature line with whatever bytes behind whatever name."""
    return f"\u2014 {name} {_text(raw)}".encode()


def by(key: Ed25519PrivateKey, name: str = NAME, text: str = BODY) -> bytes:
    """The signature line of a key."""
    return note.sign(text, name, key).rpartition(b"\n\n")[2][:-1]


def truly_signed(text: bytes) -> bytes:
    """A note over any bytes at all, whose signature is right: only its shape can be wrong."""
    return text + b"\n" + line(RAW[:4] + PRIVATE.sign(text)) + b"\n"


def _text(data: bytes) -> str:
    return b64encode(data).decode()


def stricter(data: bytes) -> str:
    """Why ours refuses a note whatever theirs says; empty where both must agree."""
    if len(data) > note.MAX_SIZE:
        return "larger than our limit: theirs has none"
    lines = data.rpartition(b"\n\n")[2].removesuffix(b"\n").split(b"\n")
    if len(lines) != 1:
        return "not exactly one signature: theirs skips lines of unknown keys and repeated ones"
    if _spare_bits(lines[0].rpartition(b" ")[2].decode(errors="replace")):
        return "base64 with unused bits set: theirs reads two spellings as one"
    return ""


def stricter_key(vkey: str) -> str:
    """Why ours refuses a verifier key whatever theirs says; empty where both must agree."""
    name, _, rest = vkey.partition("+")
    if re.search("[\x00-\x1f]", name):
        return "a control character in the name, which no note could carry"
    if re.match("[0-9A-Fa-f]*[A-F]", rest):
        return "upper-case hex: theirs reads two spellings as one"
    if "\n" in rest or "\r" in rest:
        return "a line break within base64: theirs skips it"
    return ""


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    return oracle("note", tmp_path_factory.mktemp("oracle"))


def test_the_example_of_the_format() -> None:
    """As the reference implementation prints it: we sign the same bytes and verify them."""
    source = Path(go_module("golang.org/x/mod"), "sumdb", "note", "example_test.go").read_text("utf-8")
    skey, vkey = _one(r'skey := "(.*)"', source), note.parse_vkey(_one(r'vkey := "(.*)"', source))
    printed = _one(r"func ExampleSign\(\)(?:.*\n)+?\t// Output:\n((?:\t//.*\n)+)", source)
    signed = re.sub(r"^\t// ?", "", printed, flags=re.MULTILINE)
    seed = b64decode(skey.split("+", 4)[4])[1:]
    text = note.verify_single(signed.encode(), vkey.name, vkey.public_key)
    assert text.startswith("If you think cryptography is the answer to your problem,\n")
    assert note.sign(text, vkey.name, Ed25519PrivateKey.from_private_bytes(seed)) == signed.encode()
    assert str(vkey) in source


def test_both_sign_the_same_bytes_and_verify_each_other(theirs: Oracle) -> None:
    signed = theirs.answers({"Ask": "sign", "Key": SKEY, "Text": text} for text in TEXTS)
    ours = [note.sign(text, NAME, PRIVATE) for text in TEXTS]
    opened = theirs.answers({"Ask": "open", "Key": str(KEY), "Note": _text(data)} for data in ours)
    for text, data, made, read in zip(TEXTS, ours, signed, opened, strict=True):
        assert b64decode(made["note"]) == data
        assert read == {"accepted": True, "text": text}
        assert note.verify_single(b64decode(made["note"]), NAME, KEY.public_key) == text


@pytest.mark.parametrize("text", ["", "no newline", "a line\nno newline"])
def test_neither_signs_a_text_without_its_newline(theirs: Oracle, text: str) -> None:
    assert theirs.answers([{"Ask": "sign", "Key": SKEY, "Text": text}]) == [{"accepted": False}]
    with pytest.raises(Malformed):
        note.sign(text, NAME, PRIVATE)


def test_every_note_one_bit_or_byte_away(theirs: Oracle) -> None:
    near = [*_one_away(GOOD)]
    accepted = agree(theirs, near)
    assert len(near) > 1000
    # None of them is the note that was signed.
    assert not any(accepted)


NEAR = {
    "as signed": GOOD,
    "nothing": b"",
    "an empty text": b"\n" + LINE,
    "the text alone": TEXT + b"\n",
    "the text and an empty line": TEXT + b"\n\n",
    "no empty line": TEXT + b"\n" + LINE,
    "two empty lines": TEXT + b"\n\n\n" + LINE,
    "no newline at the end": GOOD[:-1],
    "an empty line at the end": GOOD + b"\n",
    "text at the end": GOOD + b"more\n",
    "CRLF": GOOD.replace(b"\n", b"\r\n"),
    "CRLF at the end": GOOD[:-1] + b"\r\n",
    "a byte order mark": b"\xef\xbb\xbf" + GOOD,
    "NUL": b"\x00" + GOOD,
    "a tab": b"\t" + GOOD,
    "not UTF-8": b"\xff" + GOOD,
    "a surrogate": b"\xed\xa0\x80" + GOOD,
    "an overlong slash": b"\xc0\xaf" + GOOD,
    "past Unicode": b"\xf4\x90\x80\x80" + GOOD,
    "a hyphen for the dash": GOOD.replace("\u2014".encode(), b"-"),
    "an en dash for the dash": GOOD.replace("\u2014".encode(), "\u2013".encode()),
    "no dash": GOOD.replace("\u2014 ".encode(), b""),
    "no space after the dash": GOOD.replace("\u2014 ".encode(), "\u2014".encode()),
    "two spaces after the dash": GOOD.replace("\u2014 ".encode(), "\u2014  ".encode()),
    "a space before the line": over(b" " + LINE[:-1]),
    "a space after the line": over(LINE[:-1] + b" "),
    "no base64": over(f"\u2014 {NAME} ".encode()),
    "URL-safe base64": over(f"\u2014 {NAME} {_text(RAW).translate(str.maketrans('+/', '-_'))}".encode()),
    "base64 without padding": over(LINE[:-1].rstrip(b"=")),
    "base64 with more padding": over(LINE[:-1] + b"="),
    "base64 with a space in it": over(LINE[:-9] + b" " + LINE[-9:-1]),
    "three bytes": over(line(RAW[:3])),
    "a key hash alone": over(line(RAW[:4])),
    "one byte of signature": over(line(RAW[:5])),
    "63 bytes of signature": over(line(RAW[:-1])),
    "65 bytes of signature": over(line(RAW + b"\x00")),
    "the signature twice in a line": over(line(RAW + RAW[4:])),
    "a signature of zeros": over(line(RAW[:4] + bytes(64))),
    "the signature's second spelling": over(
        line(RAW[:36] + (int.from_bytes(RAW[36:], "little") + ORDER).to_bytes(32, "little"))
    ),
    "another key hash": over(line(bytes(4) + RAW[4:])),
    "another key": over(by(OTHER)),
    "another key with our key's hash": over(line(RAW[:4] + OTHER.sign(BODY.encode()))),
    "another name": over(by(PRIVATE, "sidecar.example/b")),
    "another name with our name's hash": over(line(RAW, "sidecar.example/b")),
    "the name in capitals": over(line(RAW, NAME.upper())),
    "no name": over(line(RAW, "")),
    "a plus in the name": over(line(RAW, "sidecar.example+a")),
    "a no-break space in the name": over(line(RAW, "sidecar.example\u00a0a")),
    "a next-line character in the name": over(line(RAW, "sidecar.example\u0085a")),
    "another text's signature": over(by(PRIVATE, text="another text\n")),
    "the signature of the text without its newline": over(line(RAW[:4] + PRIVATE.sign(TEXT))),
    "the signature of the text and the empty line": over(line(RAW[:4] + PRIVATE.sign(TEXT + b"\n\n"))),
    "another key's line only in the text": over(by(OTHER), b"", LINE[:-1]),
    "two lines, none ours": over(by(OTHER), by(OTHER, "b")),
    "two lines, ours wrong": over(by(OTHER), line(RAW[:-1] + b"\x00")),
    "two lines, one misshapen": over(LINE[:-1], b"nothing"),
}


def test_nearly_right_notes(theirs: Oracle) -> None:
    verdicts = dict(zip(NEAR, agree(theirs, NEAR.values()), strict=True))
    assert [what for what, accepted in verdicts.items() if accepted] == ["as signed"]


def test_which_texts_a_note_may_carry(theirs: Oracle) -> None:
    """Under right signatures, so that it is the text that is taken or not."""
    characters = (*range(0x100), 0x2014, 0x2028, 0xFEFF, 0xFFFD, 0xFFFF, 0x1F512, 0x10FFFF)
    notes = [truly_signed(f"a{chr(point)}b\n".encode()) for point in characters]
    verdicts = dict(zip(characters, agree(theirs, notes), strict=True))
    assert [point for point, taken in verdicts.items() if not taken] == [*range(0x0A), *range(0x0B, 0x20)]
    misshapen = [b"no newline", b"CRLF\r\n", b"\xff\n", b"\xc0\xaf\n", b"\xed\xa0\x80\n", b"\xf4\x90\x80\x80\n", b""]
    assert not any(agree(theirs, map(truly_signed, misshapen)))


STRICTER = {
    "another key's line before": over(by(OTHER), LINE[:-1]),
    "another key's line behind": over(LINE[:-1], by(OTHER)),
    "another name's line behind": over(LINE[:-1], by(PRIVATE, "sidecar.example/b")),
    "the line twice": over(LINE[:-1], LINE[:-1]),
    "a wrong line of ours behind the right one": over(LINE[:-1], line(RAW[:4] + bytes(64))),
    "seventeen lines": over(LINE[:-1], *(by(OTHER, f"witness{n}") for n in range(16))),
    "unused bits of base64": over(LINE[:-3] + bytes([LINE[-3] + 1]) + b"="),
    "a large note": note.sign("x" * note.MAX_SIZE + "\n", NAME, PRIVATE),
}


@pytest.mark.parametrize("what", STRICTER)
def test_ours_refuses_what_theirs_accepts(theirs: Oracle, what: str) -> None:
    data = STRICTER[what]
    assert stricter(data)
    (read,) = theirs.answers([{"Ask": "open", "Key": str(KEY), "Note": _text(data)}])
    assert read["accepted"]
    with pytest.raises(Malformed):
        note.verify_single(data, NAME, KEY.public_key)


def test_verifier_keys(theirs: Oracle) -> None:
    keys = [*_keys()]
    answers = theirs.answers({"Ask": "key", "Key": key} for key in keys)
    taken = [_takes_key(key) for key in keys]
    for key, ours, answer in zip(keys, taken, answers, strict=True):
        assert ours == (answer["accepted"] and not stricter_key(key)), ascii(key)
    assert taken[0] and 5 < sum(taken) < len(keys) // 2
    # Each way of being stricter was met.
    reasons = [stricter_key(key) for key, answer in zip(keys, answers, strict=True) if answer["accepted"]]
    assert len({*reasons} - {""}) == 3


def agree(theirs: Oracle, notes: Iterable[bytes]) -> list[bool]:
    """Our verdicts on notes that are to be under :data:`KEY`, each held against theirs."""
    given = [*notes]
    answers = theirs.answers({"Ask": "open", "Key": str(KEY), "Note": _text(data)} for data in given)
    verdicts = [_accepts(data) for data in given]
    for data, ours, answer in zip(given, verdicts, answers, strict=True):
        assert ours == (answer["accepted"] and not stricter(data)), data
    return verdicts


def _accepts(data: bytes) -> bool:
    try:
        note.verify_single(data, NAME, KEY.public_key)
    except (Malformed, SignatureInvalid):
        return False
    return True


def _takes_key(vkey: str) -> bool:
    try:
        note.parse_vkey(vkey)
    except Malformed:
        return False
    return True


def _one_away(data: bytes) -> Iterator[bytes]:
    """Each bit turned, each byte left out, each byte twice."""
    for place, value in enumerate(data):
        for bit in range(8):
            yield data[:place] + bytes([value ^ 1 << bit]) + data[place + 1 :]
        yield data[:place] + data[place + 1 :]
        yield data[:place] + data[place : place + 1] + data[place:]


def _keys() -> Iterator[str]:
    """The key's text, then texts near it, then names with each character that someone might take for a space."""
    right = str(KEY)
    hashed, encoded = right.split("+", 2)[1:]
    yield right
    yield from (data.decode("utf-8", "replace") for data in _one_away(right.encode()))
    yield from ("", "+", "++", NAME, f"{NAME}+{hashed}", f"{NAME}+{hashed}+", f"+{hashed}+{encoded}")
    yield from (right + "\n", right + "\r\n", right[:-4] + "\n" + right[-4:], " " + right, right + " ", right + "+")
    yield from (right.replace(hashed, hashed.upper()), right.replace(hashed, "0x" + hashed[2:]), right + "====")
    for kind in (0, 2, 4, 255):
        yield _key(NAME, bytes([kind]) + KEY.public_key)
    for material in (b"", b"\x01", b"\x01" + KEY.public_key[:-1], b"\x01" + KEY.public_key + b"\x00"):
        yield _key(NAME, material)
    odd = [chr(point) for point in range(0x110000) if chr(point).isspace()]
    odd += [chr(point) for point in (*range(0x21), 0x2B, 0x7F, 0xAD, 0x180E, 0x200B, 0x2060, 0xFEFF, 0x1F512)]
    for character in odd:
        yield _key(f"a{character}b", b"\x01" + KEY.public_key)


def _key(name: str, material: bytes) -> str:
    """A verifier key whose hash is right, whatever the name and the material are."""
    hashed = sha256(name.encode() + b"\n" + material).hexdigest()[:8]
    return f"{name}+{hashed}+{_text(material)}"


def _spare_bits(encoded: str) -> bool:
    """Whether this is base64 whose last character says more than the bytes do."""
    try:
        return _text(b64decode(encoded, validate=True)) != encoded
    except ValueError:
        return False


def _one(pattern: str, source: str) -> str:
    """What the first match of ``pattern`` has in its group."""
    found = re.search(pattern, source)
    assert found is not None, pattern
    return found.group(1)
