"""What `verify.html` computes with its own code, held against others' figures and this project's other code."""

from __future__ import annotations

import hashlib
import hmac
import json
import random
import zlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from sidecar.chain import strictjson
from sidecar.errors import Malformed
from sidecar.wasm import gofmt, rego_value
from tests import outside
from tests.page.core import REFUSED, answers

_RANDOM = random.Random(7)
_ORDER_8 = bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa")  # a point of that order


def _bytes(size: int) -> bytes:
    return _RANDOM.randbytes(size)


def test_hashes() -> None:
    texts = [_bytes(n) for n in (*range(130), 1_000, 4_096, 65_472, 65_536, 140_001)]  # its memory holds 65,472
    keys = [_bytes(n) for n in (0, 1, 32, 63, 64, 65, 200)]
    cuts = [[], [1], [63, 1], [64], [5, 70, 1]]
    asked: list[dict[str, Any]] = [
        {"ask": "sha256", "data": t.hex(), "pieces": cuts[n % 5], "wasm": wasm}
        for wasm in (True, False)
        for n, t in enumerate(texts)
    ]
    asked += [{"ask": "hmac", "key": k.hex(), "data": t.hex()} for k in keys for t in texts[:70:7]]
    asked += [{"ask": "sha512", "data": t.hex()} for t in texts[:130:9]]
    due = 2 * [hashlib.sha256(t).hexdigest() for t in texts]
    due += [hmac.digest(k, t, "sha256").hex() for k in keys for t in texts[:70:7]]
    due += [hashlib.sha512(t).hexdigest() for t in texts[:130:9]]
    assert answers([{"ask": "wasm"}, *asked]) == [[True, False], *due]


def test_hmac_wycheproof() -> None:
    groups = json.loads(outside.wycheproof_hmac_sha256())["testGroups"]
    cases = [case for group in groups if group["tagSize"] == 256 for case in group["tests"]]
    got = answers({"ask": "hmac", "key": case["key"], "data": case["msg"]} for case in cases)
    assert [(tag == case["tag"]) for tag, case in zip(got, cases, strict=True)] == [
        case["result"] == "valid" for case in cases
    ]


def _packed(data: bytes, level: int, bits: int, strategy: int) -> bytes:
    stream = zlib.compressobj(level, zlib.DEFLATED, bits, 8, strategy)
    return stream.compress(data) + stream.flush()


def test_inflating_as_zlib_does() -> None:
    words = [b"amount", b'"id":', b"\0", b"0123456789", b"payments.refund"]
    plain = [b"", b"a", b"a" * 40_000, _bytes(3_000), b"".join(_RANDOM.choices(words, k=9_000))]
    ways = [(level, bits, way) for level in (0, 1, 6, 9) for bits in (9, 12, 15) for way in (0, 2, 3, 4)]
    packed = [(each, _packed(each, *way)) for each in plain for way in ways]
    asked = [{"ask": "inflate", "data": p.hex(), "limit": len(each)} for each, p in packed]
    assert answers(asked) == [each.hex() for each, _ in packed]


def test_inflating_damage_as_zlib_does() -> None:
    """Flipped bits, cut ends, more after the end, too much: refused where zlib refuses, else the same bytes."""
    plain = b"".join(_RANDOM.choices([b"one ", b"two ", b"three", b"\xff\0"], k=120)) + _bytes(60)
    cases: list[bytes] = []
    for way in ((1, 15, 0), (6, 15, 4), (9, 12, 0), (0, 15, 0)):
        whole = _packed(plain, *way)
        cases += [whole[:n] for n in range(0, len(whole), 37)] + [whole + b"\0", whole]
        for _ in range(300):
            damaged = bytearray(whole)
            damaged[_RANDOM.randrange(len(damaged))] ^= 1 << _RANDOM.randrange(8)
            cases.append(bytes(damaged))
    got = answers({"ask": "inflate", "data": case.hex(), "limit": len(plain)} for case in cases)
    for case, each in zip(cases, got, strict=True):
        assert each == _inflated(case, len(plain)), case.hex()


def _inflated(data: bytes, limit: int) -> object:
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(data, limit + 1)
    except zlib.error:
        return _Refused()
    sound = stream.eof and not stream.unused_data and not stream.unconsumed_tail and len(found) <= limit
    return found.hex() if sound else _Refused()


class _Refused:
    """Equal to any refusal of a malformed thing."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, list | tuple) and other[0] == REFUSED and str(other[1]).startswith("Malformed")

    def __hash__(self) -> int:
        return 0


_TEXTS = [
    b'{"a":1}',
    b' { "a" : [ ] } ',
    b'{"a":1,"a":2}',
    b'{"a":1,"\\u0061":2}',
    b'{"a":01}',
    b'{"a":1.0}',
    b'{"a":-0}',
    b'{"a":1e400}',
    b'{"a":1e-400}',
    b'{"a":9007199254740991}',
    b'{"a":9007199254740992}',
    b'{"a":-9007199254740992}',
    b'{"a":12345678901234567890}',
    b'{"a":1e3}',
    b'{"a":NaN}',
    b'{"a":Infinity}',
    b'{"a":"\\ud800"}',
    b'{"a":"\\ud83d\\ude00"}',
    b'{"a":"\\ude00\\ud83d"}',
    b'{"a":"\xed\xa0\x80"}',
    b'{"a":"\xef\xbf\xbf"}',
    b'{"a":"\\uffff"}',
    b'{"a":"\xef\xb7\x90"}',
    b'{"a":"\xf0\x9f\xbf\xbe"}',
    b'{"a":"\\ud83f\\udffe"}',
    b'{"a":"\xf0\x9f\x98\x80"}',
    b'{"\xf4\x8f\xbf\xbf":1}',
    b"\xef\xbb\xbf{}",
    b'{"a":"\x01"}',
    b'{"a":"\x7f"}',
    b'{"a":"\\x"}',
    b'{"a":1}x',
    b'{"a":1,}',
    b"{,}",
    b"[1]",
    b"1",
    b"",
    b'{"a":tru}',
    b'{"__proto__":1,"a":{"__proto__":[]}}',
    b'{"__proto__":1,"__proto__":2}',
    b'{"a":"\xff"}',
    b'{"a":' + b"[" * 63 + b"]" * 63 + b"}",
    b'{"a":' + b"[" * 64 + b"]" * 64 + b"}",
    b'{"a":"' + b"[{" * 99 + b'"}',
    b'{"2":1,"1":2}',
    b"{'a':1}",
    b'{"a":"\\/"}',
    b'{"a":+1}',
    b'{"a":.5}',
    b'{"a":1.}',
    b'{"a":0.1}',
    b'{"a":1E+2}',
    b'{"a":-}',
    b'{"a":\x0c1}',
    b'{"a":"\xc3\xa9"}',
    b'{"a":"e\xcc\x81"}',
    b"\xff\xfe{\x00}\x00",
    b'{"a":"\\u00e9"}',
]


def test_strict_json_as_the_package_reads_it() -> None:
    for text, got in zip(_TEXTS, answers({"ask": "json", "data": t.hex()} for t in _TEXTS), strict=True):
        try:
            due: Any = strictjson.parse_object(text)
        except Malformed:
            assert got == _Refused(), text
            continue
        assert isinstance(got, str) and json.loads(got) == due, text


@pytest.mark.parametrize("native", [True, False])
def test_ed25519_wycheproof(native: bool) -> None:
    """WebCrypto's, and the page's own for a browser that lacks it."""
    groups = json.loads(outside.wycheproof_of_pycryptodome("Signature/wycheproof/ed25519_test.json"))["testGroups"]
    cases = [(group["publicKey"]["pk"], case) for group in groups for case in group["tests"]]
    asked = [
        {"ask": "ed25519", "key": key, "signature": case["sig"], "message": case["msg"], "native": native}
        for key, case in cases
    ]
    has, *said = answers([{"ask": "webcrypto"}, *asked])
    assert has is True and agrees(said, [case for _, case in cases])


def agrees(said: list[object], cases: list[dict[str, Any]]) -> bool:
    """ "acceptable" (keys of mixed order, which libraries judge differently) may go either way."""
    due = {"valid": (True,), "invalid": (False,)}
    return all(got in due.get(case["result"], (True, False)) for got, case in zip(said, cases, strict=True))


def test_ed25519_reference_vectors() -> None:
    """Some of the 1024 of Bernstein et al., RFC 8032's among them, by the page's own code."""
    lines = outside.cryptography_vectors("asymmetric/Ed25519/sign.input").decode().split("\n")
    cases = [line.split(":") for line in (*lines[:3], *lines[40:1024:64], lines[1023])]
    asked = [
        {"ask": "ed25519", "key": key, "signature": signed[:128], "message": message, "native": False}
        for _, key, message, signed, _ in cases
    ]
    assert answers(asked) == [True] * len(cases)


@pytest.mark.parametrize("native", [True, False])
def test_p256_wycheproof(native: bool) -> None:
    file = "Signature/wycheproof/ecdsa_secp256r1_sha256_p1363_test.json"
    groups = json.loads(outside.wycheproof_of_pycryptodome(file))["testGroups"]
    cases = [(group["publicKeyDer"], case) for group in groups for case in group["tests"]]
    if not native:
        cases = [each for n, each in enumerate(cases) if n % 4 == 0 or each[1]["result"] != "valid"]
    asked = [
        {"ask": "p256", "spki": spki, "signature": case["sig"], "message": case["msg"], "native": native}
        for spki, case in cases
    ]
    assert agrees(answers(asked), [case for _, case in cases])


def test_keys_of_principals() -> None:
    """SPKI in its one spelling, no point of small order, none off the curve."""
    ed = bytes.fromhex("302a300506032b6570032100")
    p256 = load_der_public_key(
        ec.derive_private_key(5, ec.SECP256R1())
        .public_key()
        .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    good = [ed + bytes.fromhex("58" + "66" * 31), p256]
    bad = [
        ed + bytes(32),
        ed + b"\x01" + bytes(31),
        ed + b"\xee" + b"\xff" * 30 + b"\x7f",
        ed + b"\xff" * 32,
        ed[:-1],
        p256[:-1],
        p256[:-1] + bytes((p256[-1] ^ 1,)),
        ed + _ORDER_8,
    ]
    got = answers({"ask": "key", "spki": each.hex()} for each in (*good, *bad))
    assert got[:2] == [hashlib.sha256(each).hexdigest() for each in good]
    assert got[2:] == [_Refused()] * len(bad)


_FORMS = [
    '["%v", [{"b", "a", 2, [1], {"k": null}}]]',
    '["%s and %d of %x", ["x", 12, 255]]',
    '["%5d|%-5d|%05d|%05d", [1, 2, 3, -4]]',
    '["%v %v %v", [1.5, 1000000.0, 0.00001]]',
    '["%d", ["a"]]',
    '["%s", [3]]',
    '["%v", []]',
    '["plain", [1, "x"]]',
    '["%.2f %.0f %f %.1f", [1.005, 2.5, 12345.678, -0.25]]',
    '["%q", ["a\\"b\\u00e9"]]',
    '["100%%", []]',
    '["%v", [set()]]',
    '["%v", [{"a": {"b": [true, null]}}]]',
    '["%v", [12345678901234567890123]]',
    '["%.3s|%6s", ["abcdef", "x"]]',
    '["%*d", [1, 2]]',
    '["%", []]',
    '["%+d", [1]]',
    '["%X", [171]]',
    '["%v", [1e21]]',
    '["%g", [-0.5]]',
]


def test_sprintf_as_the_package_writes_it() -> None:
    got = answers({"ask": "sprintf", "values": form} for form in _FORMS)
    for form, each in zip(_FORMS, got, strict=True):
        values = rego_value.parse(form)
        assert isinstance(values, tuple)
        try:
            due = gofmt.sprintf(str(values[0]), values[1])  # type: ignore[arg-type]
        except gofmt.Unsupported:
            assert each[0] == REFUSED, form
            continue
        assert each == due, form


def test_strange_texts_are_shown_as_what_they_are() -> None:
    texts = ["plain é 漢", "a\u202eb", "a\u0000\n", "\u200bx", "z" + "\u0301" * 50, "y" * 1_000, "\ufeff", "<script>"]
    got = answers({"ask": "shown", "value": text} for text in texts)
    assert got[:4] == ["plain é 漢", "a\\u{202e}b", "a\\u{0}\\u{a}", "\\u{200b}x"]
    assert got[4].count("\u0301") == 3 and got[5].endswith("(1,000 characters)") and len(got[5]) < 500
    assert got[6:] == ["\\u{feff}", "<script>"]
