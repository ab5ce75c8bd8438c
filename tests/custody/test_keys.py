"""Keys in files: the right ones are taken, every other is refused with a line that says what to give instead."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
)

from sidecar.custody import (
    generate_authority,
    generate_custodian,
    load_authority,
    load_custodian,
    load_private,
    public_pem,
)
from sidecar.errors import UsageError


def _public_pem(key: object) -> bytes:
    pem: bytes = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    return pem


@pytest.mark.parametrize(("kind", "kem"), [("x25519", "hpke"), ("rsa", "rsa-oaep")])
def test_a_generated_pair_loads(kind: str, kem: str) -> None:
    private, public = generate_custodian(kind)
    custodian = load_custodian(public, "auditor")
    assert (custodian.name, custodian.kem) == ("auditor", kem)
    key = load_private(private)
    assert (key.kem, key.spki) == (kem, custodian.spki)
    assert public_pem(key) == public
    loaded = load_der_public_key(key.spki)
    if isinstance(loaded, rsa.RSAPublicKey):
        assert loaded.key_size >= 2048


def test_an_authority_pair_loads() -> None:
    private, public = generate_authority()
    assert len(load_authority(public)) == 32
    with pytest.raises(UsageError, match="private key"):
        load_authority(private)
    with pytest.raises(UsageError, match="not Ed25519"):
        load_authority(generate_custodian("x25519")[1])


def test_another_kind_is_not_generated() -> None:
    with pytest.raises(UsageError, match="x25519 or rsa"):
        generate_custodian("dsa")


def test_a_private_key_is_refused_where_a_public_one_belongs() -> None:
    for kind in ("x25519", "rsa"):
        with pytest.raises(UsageError, match="give its public key"):
            load_custodian(generate_custodian(kind)[0], "auditor")


def test_a_public_key_is_refused_where_a_private_one_belongs() -> None:
    with pytest.raises(UsageError, match="private half"):
        load_private(generate_custodian("x25519")[1])


def test_weak_and_foreign_keys_are_refused() -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    with pytest.raises(UsageError, match="1024 bits"):
        load_custodian(_public_pem(weak.public_key()), "auditor")
    with pytest.raises(UsageError, match="1024 bits"):
        load_private(weak.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    for key in (ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1())):
        with pytest.raises(UsageError, match="neither X25519 nor RSA"):
            load_custodian(_public_pem(key.public_key()), "auditor")
        with pytest.raises(UsageError, match="neither X25519 nor RSA"):
            load_private(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def test_a_point_of_low_order_is_refused() -> None:
    zero = x25519.X25519PublicKey.from_public_bytes(bytes(32))
    with pytest.raises(UsageError, match="not a usable X25519 key"):
        load_custodian(_public_pem(zero), "auditor")


def test_an_encrypted_key_is_refused_with_the_mend() -> None:
    pem = x25519.X25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )
    with pytest.raises(UsageError, match="decrypt it first") as caught:
        load_private(pem)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("junk", [b"", b"junk", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_what_is_no_key_is_refused(junk: bytes) -> None:
    with pytest.raises(UsageError):
        load_custodian(junk, "auditor")
    with pytest.raises(UsageError):
        load_private(junk.replace(b"PUBLIC", b"PRIVATE"))
    with pytest.raises(UsageError):
        load_authority(junk)


@pytest.mark.parametrize("name", ["", "x" * 65, "two\nlines", "\x00", "\ud800"])
def test_a_name_people_cannot_read_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="name"):
        load_custodian(generate_custodian("x25519")[1], name)
