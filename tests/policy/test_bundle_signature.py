"""Signatures of bundles: what the real `opa sign` and `opa build` make is taken, and nothing that was changed since."""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import settings as trying
from hypothesis import strategies as st

from sidecar.errors import PolicyLoadError, UsageError
from sidecar.policy import Bounds, BundleKey, OpaProgram, Refused, verify_bundle
from sidecar.policy.bundle import pack, unpack

FILES = {
    "p.rego": b"package p\n\nimport rego.v1\n\nx := 1\n",
    "p/data.json": b'{"n": 1.50, "who": "\xc3\xa9"}',
    "data.yaml": b"a: 1\n",
    ".manifest": b'{"revision": "r1", "roots": [""]}',
    "expectations.yaml": b"expectations: []\n",
    "docs/README.md": b"read me\n",
}
SECRET = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
ALGORITHMS = ["RS256", "PS384", "RS512", "ES256", "ES384", "ES512", "HS256", "HS512"]


@dataclass(frozen=True)
class Keys:
    """What signs, and what verifies, of each algorithm."""

    place: Path

    def signing(self, algorithm: str) -> Path:
        return self.place / ("secret" if algorithm.startswith("H") else f"{self._family(algorithm)}.pem")

    def of(self, algorithm: str, keyid: str = "ours", scope: str = "") -> BundleKey:
        hashed = algorithm.startswith("H")
        file = self.place / ("secret" if hashed else f"{self._family(algorithm)}.pub")
        return BundleKey(keyid, algorithm, file, scope)

    def _family(self, algorithm: str) -> str:
        return algorithm if algorithm.startswith("E") else "rsa"


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    place = tmp_path_factory.mktemp("keys")
    (place / "secret").write_bytes(SECRET)
    privates: dict[str, Any] = {
        "rsa": rsa.generate_private_key(65537, 2048),
        "other": rsa.generate_private_key(65537, 2048),
        "short": rsa.generate_private_key(65537, 1024),
        "ES256": ec.generate_private_key(ec.SECP256R1()),
        "ES384": ec.generate_private_key(ec.SECP384R1()),
        "ES512": ec.generate_private_key(ec.SECP521R1()),
        "ed25519": ed25519.Ed25519PrivateKey.generate(),
    }
    for name, key in privates.items():
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (place / f"{name}.pem").write_bytes(private)
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (place / f"{name}.pub").write_bytes(public)
    return Keys(place)


@dataclass(frozen=True)
class Signing:
    """`opa sign` over files in a directory."""

    opa: str
    keys: Keys
    place: Callable[[], Path]

    def members(self, algorithm: str = "HS256", claims: dict[str, Any] | None = None) -> dict[str, bytes]:
        """The files with their signature."""
        place = self.place()
        for name, content in FILES.items():
            (place / name).parent.mkdir(exist_ok=True)
            (place / name).write_bytes(content)
        out = self.place()
        flags = ["--signing-alg", algorithm, "--signing-key", str(self.keys.signing(algorithm)), "-o", str(out)]
        if claims:
            (out / "claims.json").write_text(json.dumps(claims))
            flags += ["--claims-file", str(out / "claims.json")]
        subprocess.run([self.opa, "sign", *flags, "--bundle", "."], cwd=place, check=True, timeout=60)
        return {**FILES, ".signatures.json": (out / ".signatures.json").read_bytes()}


@pytest.fixture(scope="session")
def signing(opa: str, keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Signing:
    return Signing(opa, keys, lambda: tmp_path_factory.mktemp("sign"))


@pytest.fixture(scope="session")
def signed(signing: Signing) -> dict[str, bytes]:
    """Signed with the secret, HS256."""
    return signing.members()


def refusal(program: OpaProgram, members: dict[str, bytes] | bytes, key: BundleKey) -> str:
    """Why the bundle is refused; "" for one that is taken."""
    packed = members if isinstance(members, bytes) else pack(members)
    try:
        verify_bundle(program, packed, key, Bounds())
    except Refused as error:
        return " | ".join(f"{finding.file}: {finding.message}" for finding in error.findings)
    return ""


def encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def decoded(part: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=="))
    return value


def token(members: dict[str, bytes]) -> str:
    return str(json.loads(members[".signatures.json"])["signatures"][0])


def with_token(members: dict[str, bytes], made: str) -> dict[str, bytes]:
    return {**members, ".signatures.json": json.dumps({"signatures": [made]}).encode()}


def resigned(
    members: dict[str, bytes], header: dict[str, Any] | bytes, claims: dict[str, Any] | bytes, secret: bytes = SECRET
) -> dict[str, bytes]:
    """With a signature over whatever is given, as somebody with the secret could make it."""
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, claims)]
    text = ".".join(map(encoded, parts))
    return with_token(members, f"{text}.{encoded(hmac.digest(secret, text.encode(), 'sha256'))}")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_opa_signs_is_taken(program: OpaProgram, signing: Signing, keys: Keys, algorithm: str) -> None:
    members = signing.members(algorithm)
    assert refusal(program, members, keys.of(algorithm)) == ""
    assert "digest mismatch" in refusal(program, {**members, "p.rego": b"package p\n"}, keys.of(algorithm))
    other = {"HS256": "HS512", "HS512": "HS256", "RS256": "PS256", "ES256": "RS256"}.get(algorithm, "ES256")
    assert f"with {algorithm}, and must be with {other}" in refusal(program, members, keys.of(other))


def test_what_opa_build_signs_is_taken(program: OpaProgram, opa: str, keys: Keys, tmp_path: Path) -> None:
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "p.rego").write_bytes(FILES["p.rego"])
    command = [opa, "build", "--bundle", "policy", "--signing-alg", "ES256"]
    command += ["--signing-key", str(keys.signing("ES256")), "--verification-key-id", "ours"]
    for more in ([], ["--target", "wasm", "--entrypoint", "p/x"]):
        subprocess.run([*command, *more], cwd=tmp_path, check=True, timeout=60)
        packed = (tmp_path / "bundle.tar.gz").read_bytes()
        assert refusal(program, packed, keys.of("ES256")) == ""
        assert "signed with the key ours, and must be with 'theirs'" in refusal(
            program, packed, keys.of("ES256", "theirs")
        )


def test_a_directory_packed_by_tar(program: OpaProgram, signed: dict[str, bytes], keys: Keys) -> None:
    for before in ("./", "/", ""):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz") as archive:
            for name, content in signed.items():
                member = tarfile.TarInfo(before + name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        assert refusal(program, out.getvalue(), keys.of("HS256")) == ""


def test_the_scope_and_the_key_that_a_signature_names(program: OpaProgram, signing: Signing, keys: Keys) -> None:
    members = signing.members(claims={"keyid": "ours", "scope": "write"})
    assert refusal(program, members, keys.of("HS256", scope="write")) == ""
    assert "scope is not 'read'" in refusal(program, members, keys.of("HS256", scope="read"))
    assert "scope is not ''" in refusal(program, members, keys.of("HS256"))
    assert "the key ours, and must be with 'other'" in refusal(program, members, keys.of("HS256", "other", "write"))


CHANGES: dict[str, tuple[Callable[[dict[str, bytes]], dict[str, bytes]], str]] = {
    "no signature": (lambda m: {n: c for n, c in m.items() if n != ".signatures.json"}, "the bundle is not signed"),
    "an empty one": (lambda m: {**m, ".signatures.json": b"{}"}, "must hold one signature"),
    "none in it": (lambda m: {**m, ".signatures.json": b'{"signatures": []}'}, "must hold one signature"),
    "two in it": (
        lambda m: {**m, ".signatures.json": json.dumps({"signatures": [token(m), token(m)]}).encode()},
        "must hold one signature",
    ),
    "a plugin": (
        lambda m: {**m, ".signatures.json": json.dumps({"signatures": [token(m)], "plugin": "x"}).encode()},
        "none by a plugin",
    ),
    "said twice": (
        lambda m: {**m, ".signatures.json": b'{"signatures": [], ' + m[".signatures.json"].lstrip()[1:]},
        "not strict JSON",
    ),
    "no text": (lambda m: {**m, ".signatures.json": b'{"signatures": [1]}'}, "no signature"),
    "no JWS": (lambda m: with_token(m, "a.b"), "no signature"),
    "no base64": (lambda m: with_token(m, "a+/=." + token(m)), "no signature"),
    "odd base64": (lambda m: with_token(m, token(m).replace(".", "=.", 1)), "not base64url"),
    "a file more": (lambda m: {**m, "evil.rego": b"package p\n"}, "evil.rego: is not in the signature"),
    "a file more that is no policy": (lambda m: {**m, "x.txt": b""}, "x.txt: is not in the signature"),
    "a file that old OPAs do not look at": (
        lambda m: {**m, "foosignatures.json": b"{}"},
        "foosignatures.json: releases of OPA disagree",
    ),
    "a second signature elsewhere": (
        lambda m: {**m, "a/.signatures.json": m[".signatures.json"]},
        "a/.signatures.json: releases of OPA disagree",
    ),
    "only elsewhere": (
        lambda m: {"a/.signatures.json" if n == ".signatures.json" else n: c for n, c in m.items()},
        "releases of OPA disagree",
    ),
    "a file less": (
        lambda m: {n: c for n, c in m.items() if n != "docs/README.md"},
        "docs/README.md: is in the signature, but not in the bundle",
    ),
    "Rego changed": (lambda m: {**m, "p.rego": FILES["p.rego"] + b"\n"}, "digest mismatch"),
    "data changed": (lambda m: {**m, "p/data.json": b'{"n": 1.51, "who": "\xc3\xa9"}'}, "digest mismatch"),
    "YAML changed": (lambda m: {**m, "data.yaml": b"a: 2\n"}, "digest mismatch"),
    "the manifest changed": (lambda m: {**m, ".manifest": b'{"revision": "r2", "roots": [""]}'}, "digest mismatch"),
    "the expectations changed": (lambda m: {**m, "expectations.yaml": b"expectations:\n"}, "digest mismatch"),
    "a delta instead": (lambda m: {"patch.json": b'{"data": []}'}, "patch.json: the bundle is a delta"),
    "a delta besides": (lambda m: {**m, "patch.json": b'{"data": []}'}, "patch.json: the bundle is a delta"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_bundles_are_refused(program: OpaProgram, signed: dict[str, bytes], keys: Keys, name: str) -> None:
    change, words = CHANGES[name]
    assert words in refusal(program, change(signed), keys.of("HS256"))


def test_signatures_that_say_something_else(program: OpaProgram, signed: dict[str, bytes], keys: Keys) -> None:
    """Made with the right secret, so that only what they say is wrong."""
    key, header = keys.of("HS256"), {"alg": "HS256", "typ": "JWT"}
    claims = decoded(token(signed).split(".")[1])
    files = claims["files"]

    def said(header: dict[str, Any] | bytes = header, claims: dict[str, Any] | bytes = claims) -> str:
        return refusal(program, resigned(signed, header, claims), key)

    assert said() == ""
    assert said({**header, "kid": "ours"}, {**claims, "keyid": "ours"}) == ""
    assert "the key theirs, and" in said({**header, "kid": "theirs"})
    assert "the key theirs, and" in said(claims={**claims, "keyid": "theirs"})
    assert "the key (no text), and" in said({**header, "kid": 1})
    assert "is signed with none" in said({**header, "alg": "none"})
    assert "is signed with (none)" in said({"typ": "JWT"})
    assert "is signed with HS384" in said({**header, "alg": "HS384"})
    assert "asks for what is not known" in said({**header, "crit": ["b64"], "b64": False})
    assert "asks for what is not known" in said({**header, "jwk": {}})
    assert "not strict JSON" in said(b'{"alg": "HS256", "alg": "none"}')
    assert "not strict JSON" in said(claims=b"{")
    assert "is not a JSON object" in said(claims=b"[]")
    assert "does not list files" in said(claims={})
    assert "does not list files" in said(claims={**claims, "files": {}})
    assert "does not list files" in said(claims={**claims, "files": [*files, files[0]]})
    assert "does not list files" in said(claims={**claims, "files": [*files, 1]})
    assert "hashes are none of" in said(claims={**claims, "files": [{**files[0], "algorithm": "MD5"}, *files[1:]]})
    assert "hashes are none of" in said(claims={**claims, "files": [{**files[0], "algorithm": ""}, *files[1:]]})
    wrong = hashlib.sha256(b"other").hexdigest()
    assert "digest mismatch" in said(claims={**claims, "files": [{**files[0], "hash": wrong}, *files[1:]]})


def test_signatures_by_something_else(program: OpaProgram, signing: Signing, keys: Keys) -> None:
    members = signing.members("RS256")
    head, body, made = token(members).split(".")
    other = BundleKey("ours", "RS256", keys.place / "other.pub")
    assert "failed to verify JWT signature" in refusal(program, members, other)
    for text in (f"{head}.{body}.", f"{head}.{body}.{made[:-8]}AAAAAAAA"):
        assert "opa does not take" in refusal(program, with_token(members, text), keys.of("RS256"))
    unsigned = encoded(b'{"alg":"none"}') + f".{body}."
    assert "signed with none" in refusal(program, with_token(members, unsigned), keys.of("RS256"))
    # the public key, which everybody has, as the secret of an HMAC
    public = (keys.place / "rsa.pub").read_bytes()
    confused = resigned(members, {"alg": "HS256"}, decoded(body), public)
    assert "signed with HS256, and must be with RS256" in refusal(program, confused, keys.of("RS256"))
    pretending = resigned(members, {"alg": "RS256"}, decoded(body), public)
    assert "failed to verify JWT signature" in refusal(program, pretending, keys.of("RS256"))
    with pytest.raises(UsageError, match="is PEM, no secret"):
        verify_bundle(program, pack(confused), BundleKey("ours", "HS256", keys.place / "rsa.pub"), Bounds())


def test_keys_that_do_not_fit(keys: Keys, tmp_path: Path) -> None:
    (tmp_path / "few").write_bytes(SECRET[:31])
    (tmp_path / "huge").write_bytes(b"x" * (64 << 10) + b"x")
    place = keys.place
    for algorithm, file, words in [
        ("HS256", tmp_path / "absent", "cannot read the bundle key .*absent: No such file"),
        ("HS256", tmp_path, "cannot read the bundle key"),
        ("HS256", tmp_path / "few", "a secret of 32 bytes or more"),
        ("HS512", tmp_path / "few", "a secret of 64 bytes or more"),
        ("HS256", tmp_path / "huge", "larger than 65536"),
        ("RS256", place / "secret", "not one public key in PEM"),
        ("RS256", place / "rsa.pem", "not one public key in PEM"),
        ("RS256", place / "short.pub", "an RSA key of 2048 bits or more"),
        ("RS256", place / "ES256.pub", "an RSA key"),
        ("ES256", place / "rsa.pub", "a key on secp256r1"),
        ("ES256", place / "ES384.pub", "a key on secp256r1"),
        ("ES256", place / "ed25519.pub", "a key on secp256r1"),
    ]:
        with pytest.raises(UsageError, match=words):
            BundleKey("ours", algorithm, file).read()
    for keyid, algorithm, words in [
        ("", "RS256", "keyid is missing"),
        ("a\nb", "RS256", "keyid is missing"),
        ("ours", "none", "'none': one of RS256"),
        ("ours", "EdDSA", "one of RS256"),
    ]:
        with pytest.raises(UsageError, match=words):
            BundleKey(keyid, algorithm, place / "secret")
    with pytest.raises(UsageError, match="scope"):
        replace(keys.of("HS256"), scope="a\nb")


def test_what_is_no_bundle(program: OpaProgram, keys: Keys) -> None:
    with pytest.raises(PolicyLoadError, match=r"\.tar\.gz"):
        verify_bundle(program, b"nothing", keys.of("HS256"), Bounds())


def test_a_secret_is_no_argument_of_a_process(
    opa: str, program: OpaProgram, signed: dict[str, bytes], keys: Keys, tmp_path: Path
) -> None:
    """An `opa` before the real one writes down what it was given."""
    spy, seen = tmp_path / "opa", tmp_path / "seen"
    spy.write_text(f'#!/bin/sh\necho "$@" >> {seen}\nenv >> {seen}\nexec {opa} "$@"\n')
    spy.chmod(0o755)
    assert refusal(OpaProgram(str(spy), program.version), signed, keys.of("HS256")) == ""
    assert "--verification-key-id ours" in seen.read_text() and SECRET.decode() not in seen.read_text()


@trying(max_examples=12, deadline=None)
@given(st.data())
def test_no_byte_of_a_signed_file_can_change(
    program: OpaProgram, signed: dict[str, bytes], keys: Keys, data: st.DataObject
) -> None:
    """But white space in JSON and YAML, over whose values OPA signs."""
    name = data.draw(st.sampled_from(["p.rego", "expectations.yaml", "docs/README.md"]))
    at = data.draw(st.integers(0, len(signed[name]) - 1))
    byte = bytes([signed[name][at] ^ data.draw(st.integers(1, 255))])
    changed = {**signed, name: signed[name][:at] + byte + signed[name][at + 1 :]}
    assert "digest mismatch" in refusal(program, changed, keys.of("HS256"))
    assert unpack(pack(changed)) == changed
