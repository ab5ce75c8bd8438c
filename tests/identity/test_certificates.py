"""What a client's chain proves, and everything that makes it prove nothing."""

from __future__ import annotations

import contextlib
import hashlib
import ssl
import warnings

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sidecar.errors import CallerUnproved, Malformed, UsageError
from sidecar.identity.certificates import MAX_DEPTH, MAX_INTERMEDIATES, MAX_LEAF, PRIVATE, Bundles, verify_chain
from sidecar.identity.spiffe_id import SpiffeId
from tests.authorities import HOUR, NOW, SERVER, Authority, Issued

A, B = Authority("ca of a"), Authority("ca of b")
UNDER_A = Authority("intermediate of a", under=A)
BOTH = Bundles({"a": [A.der], "b": [B.der]})
ID = "spiffe://a/billing-agent"


def refusal(issued: Issued, bundles: Bundles = BOTH) -> str:
    with pytest.raises(CallerUnproved) as refused:
        verify_chain(issued.leaf, issued.intermediates, bundles, NOW)
    return str(refused.value)


def key_usage(**said: bool) -> x509.KeyUsage:
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    more = ("key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**{name: said.get(name, False) for name in (*names, *more)})


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        rsa.generate_private_key(public_exponent=65537, key_size=2048),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["P-256", "P-384", "RSA", "Ed25519"],
)
def test_a_leaf_under_its_own_trust_domain_is_proved(key):
    issued = A.issue(ID, key=key)
    proved = verify_chain(issued.leaf, b"", BOTH, NOW)
    assert proved.certificate.spiffe_id == ID
    assert proved.certificate.fingerprint == hashlib.sha256(issued.certificate.public_bytes(Encoding.DER)).digest()
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert proved.certificate.spki == spki
    assert proved.not_after == issued.certificate.not_valid_after_utc


def test_a_chain_over_an_intermediate_is_proved_with_and_without_the_leaf_in_it():
    issued = UNDER_A.issue(ID)
    for rest in (issued.intermediates, issued.chain):
        assert verify_chain(issued.leaf, rest, BOTH, NOW).certificate.spiffe_id == ID
    assert "does not lead to a root" in refusal(Issued(issued.certificate, issued.key))


def test_a_proof_ends_with_the_first_certificate_of_the_chain():
    issued = UNDER_A.issue(ID, end=NOW + 48 * HOUR)
    proved = verify_chain(issued.leaf, issued.intermediates, BOTH, NOW)
    assert proved.not_after == UNDER_A.certificate.not_valid_after_utc < issued.certificate.not_valid_after_utc
    with pytest.raises(CallerUnproved, match="valid now"):
        verify_chain(issued.leaf, issued.intermediates, BOTH, proved.not_after + HOUR)


WRONG = {
    "expired": (A.issue(ID, end=NOW), "has expired"),
    "not yet valid": (A.issue(ID, start=NOW + HOUR / 2), "not valid yet"),
    "for servers only": (A.issue(ID, purposes=[SERVER]), "not for clients"),
    "for no purpose": (A.issue(ID, purposes=[]), "not for clients"),
    "a CA": (A.issue(ID, ca=True), "is a CA's"),
    "may sign certificates": (
        A.issue(ID, extensions=[key_usage(digital_signature=True, key_cert_sign=True)]),
        "is a CA's",
    ),
    "may not sign": (A.issue(ID, extensions=[key_usage(key_agreement=True)]), "may not sign"),
    "several URI SANs": (A.issue(ID, "spiffe://a/other"), "several URI SANs"),
    "the same URI SAN twice": (A.issue(ID, ID), "several URI SANs"),
    "a URI of another scheme": (A.issue("https://a/billing-agent"), "no SPIFFE id"),
    "an id with a query": (A.issue(ID + "?x=1"), "no SPIFFE id"),
    "a whole trust domain": (A.issue("spiffe://a"), "whole trust domain"),
    "no URI SAN, and no private CA": (A.issue(), "no trust domain"),
    "an unknown trust domain": (A.issue("spiffe://c/x"), "no trust domain whose bundle is here"),
    "another domain's id, minted by a federated CA": (B.issue(ID), "root of its own trust domain"),
    "signed by a CA of the same name": (Authority(A.name).issue(ID), "root of its own trust domain"),
    "a weak RSA key": (
        A.issue(ID, key=rsa.generate_private_key(public_exponent=65537, key_size=1024)),
        "not RSA of 2048",
    ),
    "a curve of its own": (A.issue(ID, key=ec.generate_private_key(ec.SECP256K1())), "not RSA of 2048"),
    "several SAN extensions' worth of nonsense": (
        A.issue(extensions=[x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, b"\x30\x03\x02\x01")]),
        "cannot be read",
    ),
}


@pytest.mark.parametrize(("issued", "why"), WRONG.values(), ids=list(WRONG))
def test_a_wrong_certificate_proves_nothing(issued, why):
    assert why in refusal(issued)


def test_a_self_signed_certificate_proves_nothing():
    own = Authority("somebody")
    issued = own.issue(ID, key=own.key)
    assert issued.certificate.subject == issued.certificate.issuer
    assert "root of its own trust domain" in refusal(issued)


def test_a_leaf_signed_by_another_leaf_proves_nothing():
    leaf = A.issue("spiffe://a/thief")
    forged = Authority("somebody", key=leaf.key).issue(ID)
    assert "root of its own trust domain" in refusal(Issued(forged.certificate, forged.key, (leaf.certificate,)))


def test_an_intermediate_that_another_domain_signed_proves_nothing():
    issued = Authority("intermediate of b", under=B).issue(ID)
    assert "root of its own trust domain" in refusal(issued)


def test_an_oversized_chain_is_refused_before_it_is_read():
    with pytest.raises(CallerUnproved, match="too long"):
        verify_chain(b"x" * (MAX_LEAF + 1), b"", BOTH, NOW)
    issued = A.issue(ID)
    with pytest.raises(CallerUnproved, match="too long"):
        verify_chain(issued.leaf, b"x" * (MAX_INTERMEDIATES + 1), BOTH, NOW)
    large = A.issue(ID, dns=[f"{number:063}.example" for number in range(150)])
    assert "too long" in refusal(large)


def test_more_certificates_than_allowed_are_refused():
    tower = A
    for number in range(MAX_DEPTH + 1):
        if number == MAX_DEPTH:
            assert verify_chain(tower.issue(ID).leaf, tower.issue(ID).intermediates, BOTH, NOW)
        tower = Authority(f"level {number}", under=tower)
    assert "lead to a root" in refusal(tower.issue(ID))
    above = Authority("one more", under=Authority("and one", under=tower)).issue(ID)
    assert "too many" in refusal(above)


@pytest.mark.parametrize("leaf", [b"", b"nonsense", A.pem[:200], A.pem.replace(b"M", b"!", 5)])
def test_what_is_no_certificate_is_refused(leaf):
    with pytest.raises(CallerUnproved, match="cannot be read"):
        verify_chain(leaf, b"", BOTH, NOW)


def test_no_spoilt_byte_that_was_signed_is_taken_and_none_breaks_the_judge():
    """Each byte of a leaf and of its intermediate, changed in three ways.

    A signature has more than one encoding; whoever is taken all the same has shown the very bytes that were signed.
    """
    issued = UNDER_A.issue(ID)
    ders, taken = (issued.certificate.public_bytes(Encoding.DER), UNDER_A.der), 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cryptography's, of serial numbers and the like
        for which, at, flip in [(w, a, f) for w in (0, 1) for a in range(len(ders[w])) for f in (0x01, 0x80, 0xFF)]:
            spoilt = [*ders]
            spoilt[which] = ders[which][:at] + bytes([ders[which][at] ^ flip]) + ders[which][at + 1 :]
            leaf, between = (ssl.DER_cert_to_PEM_cert(each).encode() for each in spoilt)
            with contextlib.suppress(CallerUnproved):
                verify_chain(leaf, between, BOTH, NOW)
                taken += 1
                signed = [x509.load_der_x509_certificate(each).tbs_certificate_bytes for each in spoilt]
                assert signed == [each.tbs_certificate_bytes for each in (issued.certificate, UNDER_A.certificate)]
    assert taken <= 4


def test_while_a_ca_is_rotated_old_and_new_both_vouch_and_afterwards_the_old_does_not():
    new = Authority("ca of a")
    during, after = Bundles({"a": [A.der, new.der]}), Bundles({"a": [new.der]})
    for authority in (A, new):
        assert verify_chain(authority.issue(ID).leaf, b"", during, NOW).certificate.spiffe_id == ID
    assert verify_chain(new.issue(ID).leaf, b"", after, NOW)
    assert "root of its own trust domain" in refusal(A.issue(ID), after)


def test_a_private_ca_vouches_for_certificates_with_and_without_an_id():
    private = Bundles({PRIVATE: [A.der]})
    assert verify_chain(A.issue().leaf, b"", private, NOW).certificate.spiffe_id == ""
    assert (
        verify_chain(A.issue("spiffe://anywhere/x").leaf, b"", private, NOW).certificate.spiffe_id
        == "spiffe://anywhere/x"
    )
    assert "root of its own" in refusal(B.issue(ID), private)


@pytest.mark.parametrize("der", [A.issue(ID).certificate.public_bytes(Encoding.DER), b"nonsense", b""])
def test_a_bundle_holds_cas_only(der):
    with pytest.raises(UsageError):
        Bundles({"a": [A.der, der]})


def test_a_bundle_without_roots_vouches_for_nobody():
    assert "no trust domain whose bundle is here" in refusal(A.issue(ID), Bundles({"a": []}))


GOOD = ["spiffe://a", "spiffe://a/b", "spiffe://trust.domain-1_x/a.b/C-d_e/..."]
BAD = [
    *("", "a", "http://a/b", "SPIFFE://a/b", "spiffe:/a/b", "spiffe://", "spiffe:///b"),
    *("spiffe://A/b", "spiffe://a:8080/b", "spiffe://user@a/b", "spiffe://a/", "spiffe://a/b/", "spiffe://a//b"),
    *("spiffe://a/./b", "spiffe://a/../b", "spiffe://a/..", "spiffe://a/b?q", "spiffe://a/b#f", "spiffe://a/%41"),
    *("spiffe://a/b c", "spiffe://a/ü", "spiffe://ä/b", "spiffe://a/b\n", "spiffe://a\n/b", "spiffe://[::1]/b"),
    *("spiffe://" + "a" * 256, "spiffe://a/" + "b" * 2048),
]


@pytest.mark.parametrize("text", GOOD)
def test_a_spiffe_id_has_one_spelling(text):
    assert str(SpiffeId.parse(text)) == text


def test_a_spiffe_id_may_be_as_long_as_the_specification_says():
    longest = "spiffe://" + "a" * 255 + "/"
    longest += "b" * (2048 - len(longest))
    assert str(SpiffeId.parse(longest)) == longest


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_spiffe_id_is_malformed(text):
    with pytest.raises(Malformed):
        SpiffeId.parse(text)
