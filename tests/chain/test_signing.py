"""proto/SIGNING.md: `tests/vectors/signing/` fresh, computed again by other code; Wycheproof; bad spellings."""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from sidecar.chain import signing
from sidecar.chain.delegation import Delegation, check_chain, name_of, opened, parse
from sidecar.chain.permit import Permit
from sidecar.chain.request import Given
from sidecar.chain.signing import PublicKey
from sidecar.chain.statement import Statement
from sidecar.errors import Malformed, NotPermitted, SignatureInvalid
from tests import outside
from tests.vectors import signing as made

FOLDER = Path(__file__).parent.parent / "vectors" / "signing"
AT = "2025-11-25T12:00:00.000000000Z"
ASKED = [("payments.refund", "account", "acme-42")]


def load(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_bytes())


def framed(label: str, *fields: bytes) -> str:
    body = b"".join(len(f).to_bytes(4, "big") + f for f in fields)
    return hashlib.sha256(label.encode() + b"\0" + body).hexdigest()


def u32(items: list[Any]) -> bytes:
    return len(items).to_bytes(4, "big")


def test_files_are_fresh() -> None:
    on_disk = {p.name: p.read_bytes() for p in FOLDER.iterdir()}
    assert on_disk == made.files(), "run `.venv/bin/python -m tests.vectors.make`"


def option(o: dict[str, str]) -> list[bytes]:
    return [o[name].encode() for name in ("action", "type", "id", "arguments")]


def test_request_and_action_digests() -> None:
    for v in load("digests")["request"]:
        texts = {n: x.encode() for n, x in v.items() if isinstance(x, str)}
        fields = [texts["agent"], *option(v["wanted"]), texts["context"], texts["purpose"], texts["trace_parent"]]
        fields += [texts["idempotency_key"], bytes.fromhex(v["last_receipt"]), u32(v["alternatives"])]
        fields += [part for o in v["alternatives"] for part in option(o)]
        fields += [texts["executor"], texts["approval_of"], u32(v["delegations"])]
        for d in v["delegations"]:
            fields += [d["text"].encode(), bytes.fromhex(d["key"]), bytes.fromhex(d["signature"])]
        assert framed("sidecar/v1/request", *fields) == v["digest"]
        action = [texts["agent"], *option(v["wanted"]), texts["context"], texts["purpose"], texts["executor"]]
        action += [u32(v["delegations"]), *(d["text"].encode() for d in v["delegations"])]
        assert framed("sidecar/v1/action", *action) == v["action_digest"]


def test_other_digests() -> None:
    found = load("digests")
    for v in found["outcome"]:
        numbers = [str(v[n]).encode() if v[n] else b"" for n in ("started_ns", "duration_ns")]
        given = [bytes.fromhex(v[n]) for n in ("response", "response_digest", "permit", "arguments_digest")]
        texts = [v[n].encode() for n in ("by", "decision_id", "status")]
        downstream = v["downstream_status"].encode()
        assert framed("sidecar/v1/outcome", *texts, *given, downstream, *numbers) == v["digest"]
    for v in found["approval"]:
        texts = [v[n].encode() for n in ("by", "decision_id", "verdict")]
        bound = [bytes.fromhex(v[n]) for n in ("action_digest", "arguments_digest")]
        rest = [v[n].encode() for n in ("bundle_digest", "policy_revision", "comment")]
        assert framed("sidecar/v1/approval", *texts, *bound, *rest) == v["digest"]
    for v in found["read"]:
        assert framed("sidecar/v1/read", *(v[n].encode() for n in ("by", "what", "parameter"))) == v["digest"]
    for v in found["arguments"]:
        text = v["arguments"].encode() or b"{}"
        assert hashlib.sha256(b"sidecar/v1/arguments\0" + text).hexdigest() == v["digest"]
    v = found["target"]
    assert (
        framed("sidecar/v1/target", *(v[n].encode() for n in ("action", "resource_type", "resource_id")))
        == (v["digest"])
    )


def verify_elsewhere(spki: bytes, message: bytes, signature: bytes) -> None:
    """With `cryptography` alone."""
    key = load_der_public_key(spki)
    if isinstance(key, Ed25519PublicKey):
        key.verify(signature, message)
        return
    assert isinstance(key, ec.EllipticCurvePublicKey)
    r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
    key.verify(encode_dss_signature(r, s), message, ec.ECDSA(SHA256()))


def test_statements_keys_and_signatures() -> None:
    keys = {v["type"]: v for v in load("keys")}
    digests = load("digests")
    for v in load("statements"):
        spki, text = b64decode(keys[v["key"]]["spki"]), v["statement"].encode()
        assert hashlib.sha256(spki).hexdigest() == keys[v["key"]]["id"]
        verify_elsewhere(spki, text, bytes.fromhex(v["signature"]))
        lines = text.decode().splitlines()
        assert lines[0] == "sidecar/v1/statement" and text.endswith(b"\n")
        names = [line.split(" ")[0] for line in lines[1:]]
        assert names == ["kind", "audience", "epoch", "by", "key", "digest", "time", "nonce"]
        assert f"key {keys[v['key']]['id']}" in lines
        of = [d["digest"] for d in digests[v["kind"]]]
        assert lines[6].removeprefix("digest ") in of
        assert Statement.parse(text).encode() == text
        PublicKey(spki).verify(bytes.fromhex(v["signature"]), text)


def test_permit() -> None:
    v = load("permit")
    text, _, signed = v["permit"].rpartition("\n\n")
    signature = b64decode(signed.split(" ")[2])
    Ed25519PublicKey.from_public_bytes(bytes.fromhex(v["identity"])).verify(signature[4:], (text + "\n").encode())
    permit = Permit.open(v["permit"].encode(), bytes.fromhex(v["chain"]), bytes.fromhex(v["identity"]))
    assert (permit.executor, permit.seq, permit.not_after) == ("payments-gateway", 17, made.NOW)
    with pytest.raises(SignatureInvalid):
        Permit.open(
            v["permit"].replace("seq 17", "seq 18").encode(), bytes.fromhex(v["chain"]), bytes.fromhex(v["identity"])
        )
    with pytest.raises(Malformed):  # another chain's identity signs under another name
        Permit.open(v["permit"].encode(), bytes(32), bytes.fromhex(v["identity"]))


STATEMENT = made.statements()[0]["statement"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("kind request", "kind grant"),
        ("kind request", "kind  request"),
        ("epoch 3", "epoch 03"),
        ("epoch 3", "epoch -1"),
        ("epoch 3", "epoch 4294967296"),
        ("by billing-agent", "by  billing-agent"),
        ("by billing-agent", "by billing-agent "),
        ("by billing-agent", "by billing\tagent"),
        ("by billing-agent", "by " + "a" * 257),
        ("by billing-agent", "by \u00e9"),
        ("nonce ", "nonce 00"),
        ("\nepoch 3", "\nepoch 3\nepoch 3"),
        ("\nepoch 3", ""),
        ("sidecar/v1/statement", "sidecar/v2/statement"),
        ("key ", "key A"),
        ("nonce", "NONCE"),
    ],
)
def test_statements_have_one_spelling(old: str, new: str) -> None:
    assert old in STATEMENT
    with pytest.raises(Malformed):
        Statement.parse(STATEMENT.replace(old, new, 1).encode())


@pytest.mark.parametrize("changed", [STATEMENT[:-1], STATEMENT + "\n", STATEMENT.upper(), "\ufeff" + STATEMENT, ""])
def test_nothing_before_or_after_a_statement(changed: str) -> None:
    with pytest.raises(Malformed):
        Statement.parse(changed.encode())


# --- keys


ED25519, P256 = (signing.public_spki(key) for key in made.KEYS.values())
POINT_AT_NOWHERE = P256[:-1] + bytes([P256[-1] ^ 1])
COMPRESSED = made.KEYS["p256"].public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
OTHER_CURVE = ec.derive_private_key(7, ec.SECP384R1()).public_key()


@pytest.mark.parametrize(
    "spki",
    [
        b"",
        ED25519[:-1],
        ED25519 + b"\0",
        P256 + b"\0",
        POINT_AT_NOWHERE,
        bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200") + COMPRESSED,
        OTHER_CURVE.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        bytes.fromhex("302c300706032b65700500032100") + ED25519[12:],  # with parameters NULL
    ],
)
def test_keys_have_one_spelling(spki: bytes) -> None:
    with pytest.raises(Malformed):
        PublicKey(spki)


SMALL_ORDER = [
    "00" * 32, "00" * 31 + "80", "01" + "00" * 31, "01" + "00" * 30 + "80", "ec" + "ff" * 30 + "7f",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "ed" + "ff" * 30 + "7f", "ee" + "ff" * 30 + "7f", "ff" * 32,
]  # fmt: skip


@pytest.mark.parametrize("raw", SMALL_ORDER)
def test_keys_that_bind_nobody_are_refused(raw: str) -> None:
    with pytest.raises(Malformed, match="small order"):
        PublicKey(ED25519[:12] + bytes.fromhex(raw))


@pytest.mark.parametrize("name", made.KEYS)
def test_any_changed_bit_of_a_signature_is_refused(name: str) -> None:
    key = made.KEYS[name]
    public, signature = PublicKey(signing.public_spki(key)), signing.sign(key, b"message")
    public.verify(signature, b"message")
    for bit in range(0, 512, 7):
        changed = (int.from_bytes(signature, "big") ^ 1 << bit).to_bytes(64, "big")
        with pytest.raises(SignatureInvalid):
            public.verify(changed, b"message")
    for wrong in (signature[:-1], signature + b"\0", b""):
        with pytest.raises(SignatureInvalid):
            public.verify(wrong, b"message")


def test_an_ed25519_signature_has_one_s() -> None:
    order = 2**252 + 27742317777372353535851937790883648493
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    signature = signing.sign(key, b"m")
    more = (int.from_bytes(signature[32:], "little") + order).to_bytes(32, "little")
    with pytest.raises(SignatureInvalid):
        PublicKey(signing.public_spki(key)).verify(signature[:32] + more, b"m")


def accepted(spki: bytes, signature: bytes, message: bytes) -> bool:
    try:
        PublicKey(spki).verify(signature, message)
    except (SignatureInvalid, Malformed):
        return False
    return True


@pytest.mark.parametrize("file", ["ed25519_test.json", "ecdsa_secp256r1_sha256_p1363_test.json"])
def test_wycheproof(file: str) -> None:
    """Every case. "acceptable" (Ed25519 keys of mixed order, which libraries judge differently) may go either way."""
    document = json.loads(outside.wycheproof_of_pycryptodome(f"Signature/wycheproof/{file}"))
    count = 0
    for group in document["testGroups"]:
        spki = bytes.fromhex(group.get("publicKeyDer") or group["keyDer"])
        for case in group["tests"]:
            said = accepted(spki, bytes.fromhex(case["sig"]), bytes.fromhex(case["msg"]))
            assert said in {"valid": (True,), "invalid": (False,)}.get(case["result"], (True, False)), case["tcId"]
            count += 1
    assert count == document["numberOfTests"] > 100


def converted(der: bytes) -> bytes | None:
    """r and s of a DER signature with both in 1 to 32 bytes; None for any other, which has no P1363 form."""
    found = re.fullmatch(rb"\x30(.)\x02(.)(.*)", der, re.DOTALL)
    if not found or found[1][0] != len(der) - 2:
        return None
    length, rest = found[2][0], found[3]
    r, tail = rest[:length], rest[length:]
    if len(r) != length or len(tail) < 2 or tail[0] != 2 or tail[1] != len(tail) - 2:
        return None
    numbers = [int.from_bytes(part, "big", signed=True) for part in (r, tail[2:])]
    if any(not 0 <= n < 2**256 for n in numbers):
        return None
    return b"".join(n.to_bytes(32, "big") for n in numbers)


def test_wycheproof_der_cases_converted() -> None:
    """The DER file's cases by their numbers r and s. Left out: DER that is none, or numbers beyond 32 bytes, which
    P1363 cannot say, and cases that are invalid for their DER alone, which the conversion takes away."""
    document = json.loads(outside.wycheproof_of_pycryptodome("Signature/wycheproof/ecdsa_secp256r1_sha256_test.json"))
    count = 0
    for group in document["testGroups"]:
        spki = bytes.fromhex(group.get("publicKeyDer") or group["keyDer"])
        for case in group["tests"]:
            signature = converted(bytes.fromhex(case["sig"]))
            about_der = {"BerEncodedSignature", "InvalidEncoding", "MissingZero"} & set(case["flags"])
            if signature is None or about_der:
                continue
            said = accepted(spki, signature, bytes.fromhex(case["msg"]))
            assert said is (case["result"] == "valid"), (case["tcId"], case["comment"], case["flags"])
            count += 1
    assert count > 200


# --- delegations


def chain_of(*given: Given) -> list[Delegation]:
    return [opened(g) for g in given]


def check(chain: list[Delegation], **other: Any) -> None:
    check_chain(chain, **{"chain_id": made.CHAIN.hex(), "agent": "billing-agent", "at": AT, "asked": ASKED, **other})


def pair(first: dict[str, Any] | None = None, **second: Any) -> list[Delegation]:
    one = made.delegation(made.KEYS["p256"], "alice", "planner", **{"further": 1, **(first or {})})
    members = {"giver": "planner", "to": "billing-agent", "parent": name_of(one.text), **second}
    return chain_of(one, made.delegation(made.KEYS["ed25519"], members.pop("giver"), members.pop("to"), **members))


def test_the_vectors_make_a_chain() -> None:
    given = [Given(v["text"].encode(), b64decode(v["key"]), bytes.fromhex(v["signature"])) for v in load("delegations")]
    for g, v in zip(given, load("delegations"), strict=True):
        verify_elsewhere(g.key, b"sidecar/v1/delegation\0" + g.text, g.signature)
        assert hashlib.sha256(b"sidecar/v1/delegation\0" + g.text).hexdigest() == v["name"]
    check(chain_of(*given))


@pytest.mark.parametrize(
    ("second", "why"),
    [
        ({"actions": ["*"]}, "more actions"),
        ({"actions": ["payments*"]}, "more actions"),
        ({"actions": ["payments.refund", "orders.read"]}, "more actions"),
        ({"resources": ["*"]}, "more resources"),
        ({"resources": ["accounts:*"]}, "more resources"),
        ({"not_after": "2025-11-26T00:00:00.000000001Z"}, "longer"),
        ({"not_before": "2025-11-24T23:59:59.999999999Z"}, "longer"),
        ({"further": 1}, "further"),
        ({"parent": None}, "parent"),
        ({"parent": "00" * 32}, "parent"),
        ({"giver": "mallory"}, "given to"),
        ({"to": "mallory"}, "another than the requesting agent"),
        ({"audience": "00" * 32}, "another chain"),
    ],
)
def test_scope_never_widens(second: dict[str, Any], why: str) -> None:
    check(pair())
    with pytest.raises(NotPermitted, match=why):
        check(pair(**second))


@pytest.mark.parametrize(
    ("first", "other", "why"),
    [
        ({"audience": "00" * 32}, {}, "another audience"),
        ({"audience": made.CHAIN.hex()}, {}, "another audience"),  # the second widens it to any
        ({"further": 0}, {}, "further"),
        ({"parent": "11" * 32}, {}, "not here"),
        ({}, {"at": "2025-11-26T00:00:00.000000000Z"}, "not valid now"),
        ({}, {"at": "2025-11-24T23:59:59.999999999Z"}, "not valid now"),
        ({}, {"asked": [*ASKED, ("orders.read", "account", "x")]}, "does not cover"),
        ({}, {"asked": [("payments.refund", "account:eu", "x")]}, "does not cover"),
        ({}, {"asked": [("payments", "account", "x")]}, "does not cover"),
        ({}, {"agent": "other-agent"}, "another than the requesting agent"),
    ],
)
def test_what_a_chain_does_not_cover(first: dict[str, Any], other: dict[str, Any], why: str) -> None:
    with pytest.raises(NotPermitted, match=why):
        check(pair(first), **other)


def test_too_many_and_none() -> None:
    for chain in ([], pair() * 5):
        with pytest.raises(NotPermitted, match="from 1 to 8"):
            check(chain)


@pytest.mark.parametrize(
    "member",
    [
        {"further": 8},
        {"further": True},
        {"actions": []},
        {"actions": ["a*b"]},
        {"actions": [""]},
        {"actions": ["a"] * 65},
        {"from": " alice"},
        {"to": "b\u00e9"},
        {"key": "AB" * 32},
        {"audience": ""},
        {"not_after": "2025-11-26"},
        {"not_after": "2025-11-25T00:00:00.000000000Z"},
        {"extra": 1},
    ],
)
def test_delegations_are_strict(member: dict[str, Any]) -> None:
    text = json.loads(made.delegation(made.KEYS["p256"], "alice", "planner").text)
    parse(json.dumps(text).encode())
    with pytest.raises(Malformed):
        parse(json.dumps({**text, **member}).encode())


def test_a_delegation_is_signed_by_the_key_it_names() -> None:
    given = made.delegation(made.KEYS["p256"], "alice", "planner")
    with pytest.raises(SignatureInvalid):
        opened(Given(given.text.replace(b"planner", b"mallory"), given.key, given.signature))
    with pytest.raises(SignatureInvalid, match="key that it names"):
        opened(Given(given.text, ED25519, given.signature))
