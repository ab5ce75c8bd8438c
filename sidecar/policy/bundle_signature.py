"""Signatures of OPA bundles (OPA's documentation, "Bundles", signing; JWS: RFC 7515; algorithms: RFC 7518).

A signed bundle holds `.signatures.json` with one JWS over the names and SHA-2 hashes of all other files. The real `opa`
verifies it. What an `opa` lets pass, or has let pass, is refused here first (GHSA-g2pf-6v5v-qcc8, fixed in 1.21.3, and
the file names that 1.22 became strict about): no signature, more than one or one under another name, a delta bundle, a
plugin, files that the signature does not list, another key's id, another algorithm. And `opa` sees only what the
sidecar read, packed anew: no archive means one thing to one and another to the other.
"""

from __future__ import annotations

import base64
import json
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from sidecar.errors import PolicyLoadError, UsageError

from .bundle import _parse_object, pack, unpack
from .findings import Finding, Refused, refused
from .gate_input import SIGNATURES, is_signature
from .opa_bounded import Bounds, Said, run_opa
from .opa_program import OpaProgram

_Run = Callable[[list[str]], Said]
_CURVES: Final = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}
_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_HMAC: Final = {"HS256": 32, "HS384": 48, "HS512": 64}
"""The least bytes of a secret (RFC 7518, 3.2)."""
_ALGORITHMS: Final = (*_RSA, *_CURVES, *_HMAC)
_HASHES: Final = ("SHA-256", "SHA-384", "SHA-512", "SHA-512-256")  # opa would take MD5 too
_LEAST_RSA: Final = 2048
_MOST_KEY: Final = 64 << 10
_PLUGIN: Final = "_default"  # as `opa build --signing-key` writes it
_MOST_SHOWN: Final = 100
_KEY: Final = "key"
_SIGNED: Final = "signed.tar.gz"


@dataclass(frozen=True, slots=True)
class BundleKey:
    """What a bundle must be signed with.

    ``keyid``: the key's name, always given; a signature that names another is refused. ``algorithm``: of RFC 7518;
    RS256 and its like for a PEM public key in ``key_file``, HS256 and its like for a secret, whose bytes are taken as
    they are in the file (a line's end too, as `opa sign --signing-key FILE` does). ``scope``: must be the signature's.
    """

    keyid: str
    algorithm: str
    key_file: Path
    scope: str = ""

    def __post_init__(self) -> None:
        """Raises `UsageError`."""
        if not self.keyid or not self.keyid.isprintable() or len(self.keyid) > 256:
            raise UsageError(
                "the bundle key's keyid is missing, or no short line of text; give the name it is known by"
            )
        if self.algorithm not in _ALGORITHMS:
            raise UsageError(f"the bundle key's algorithm {self.algorithm!r}: one of {', '.join(_ALGORITHMS)}")
        if not self.scope.isprintable() or len(self.scope) > 256:
            raise UsageError("the bundle key's scope is no short line of text")

    def read(self) -> bytes:
        """The key as `opa` reads it. Raises `UsageError` when it cannot be read or does not fit the algorithm."""
        try:
            with self.key_file.open("rb") as file:
                raw = file.read(_MOST_KEY + 1)
        except OSError as error:
            raise UsageError(f"cannot read the bundle key {self.key_file}: {error.strerror}") from None
        if len(raw) > _MOST_KEY:
            raise UsageError(f"the bundle key {self.key_file} is larger than {_MOST_KEY} bytes")
        return self._secret(raw) if self.algorithm in _HMAC else self._public(raw)

    def _secret(self, raw: bytes) -> bytes:
        if b"-----BEGIN" in raw:
            raise UsageError(f"the bundle key {self.key_file} is PEM, no secret; {self.algorithm} is for secrets")
        if len(raw) < (least := _HMAC[self.algorithm]):
            raise UsageError(
                f"the bundle key {self.key_file}: {self.algorithm} takes a secret of {least} bytes or more"
            )
        return raw

    def _public(self, raw: bytes) -> bytes:
        try:
            key = load_pem_public_key(raw)
        except (ValueError, UnsupportedAlgorithm):
            raise UsageError(f"the bundle key {self.key_file} is not one public key in PEM") from None
        if self.algorithm in _RSA:
            fits = isinstance(key, rsa.RSAPublicKey) and key.key_size >= _LEAST_RSA
            wanted = f"an RSA key of {_LEAST_RSA} bits or more"
        else:
            wanted = f"a key on {_CURVES[self.algorithm]}"
            fits = isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == _CURVES[self.algorithm]
        if not fits:
            raise UsageError(f"the bundle key {self.key_file}: {self.algorithm} takes {wanted}")
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def verify_bundle(
    program: OpaProgram, packed: bytes, key: BundleKey, bounds: Bounds, broken_off: threading.Event | None = None
) -> None:
    """Verify the signature of a bundle file. ``broken_off``: as `run_opa`'s.

    Raises `Refused` when it is not signed with ``key``, or not all of it; `PolicyLoadError` when it is not a bundle;
    `UsageError` when the key cannot be read or used.
    """
    secret = key.read()
    members = unpack(packed)
    token = _one_token(members)
    _judge_header(_part(token, 0), key)
    claims = _part(token, 1)
    _judge_name(claims.get("keyid"), key)
    if claims.get("scope", "") != key.scope:
        raise refused(f"the signature's scope is not {key.scope!r}; sign it with that scope", SIGNATURES)
    del members[SIGNATURES]
    _judge_files(claims.get("files"), set(members))
    members[SIGNATURES] = json.dumps({"signatures": [token]}).encode()
    with tempfile.TemporaryDirectory(prefix="sidecar-signature-") as place:
        runs = partial(run_opa, program, place=Path(place), bounds=bounds, broken_off=broken_off)
        _ask_opa(runs, Path(place), _packed(members), (key, secret))


def _one_token(members: dict[str, bytes]) -> str:
    """The signature, in the only place and form it may have."""
    odd = sorted(path for path in members if is_signature(path) and path != SIGNATURES)
    if odd:
        raise refused(
            f"releases of OPA disagree whether this is a signature; only {SIGNATURES} may be called so", odd[0]
        )
    if deltas := sorted(path for path in members if PurePosixPath(path).name == "patch.json"):
        raise refused("the bundle is a delta, which cannot be signed; give a whole one", deltas[0])
    raw = members.get(SIGNATURES)
    if raw is None:
        raise refused(f"the bundle is not signed: there is no {SIGNATURES}; sign it with: opa sign")
    signatures = _object(raw, SIGNATURES)
    tokens = signatures.get("signatures")
    usual = not signatures.keys() - {"signatures", "plugin"} and signatures.get("plugin", _PLUGIN) == _PLUGIN
    if not usual or not isinstance(tokens, list) or len(tokens) != 1:
        raise refused("must hold one signature, and none by a plugin; sign the bundle with: opa sign", SIGNATURES)
    if not isinstance(tokens[0], str) or tokens[0].count(".") != 2:
        raise refused("holds something that is no signature; sign the bundle with: opa sign", SIGNATURES)
    return tokens[0]


def _part(token: str, number: int) -> dict[str, Any]:
    """A part of the JWS that is JSON: 0 the header, 1 the claims."""
    text = token.split(".")[number]
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        canonical = base64.urlsafe_b64encode(raw).rstrip(b"=") == text.encode()
    except ValueError:
        canonical = False
    if not canonical:
        raise refused("holds a signature that is not base64url; sign the bundle with: opa sign", SIGNATURES)
    return _object(raw, f"{SIGNATURES} ({('header', 'claims')[number]})")


def _object(raw: bytes, name: str) -> dict[str, Any]:
    try:
        return _parse_object(raw, name)
    except PolicyLoadError as error:
        raise refused(str(error), SIGNATURES) from None


def _judge_header(header: dict[str, Any], key: BundleKey) -> None:
    if header.get("alg") != key.algorithm:
        raise refused(f"is signed with {_shown(header.get('alg'))}, and must be with {key.algorithm}", SIGNATURES)
    if header.keys() - {"alg", "typ", "kid"}:
        raise refused("the signature's header asks for what is not known; sign the bundle with: opa sign", SIGNATURES)
    _judge_name(header.get("kid"), key)


def _judge_name(name: object, key: BundleKey) -> None:
    """`opa sign` names no key of its own accord, and none is looked up by what a signature says."""
    if name not in (None, key.keyid):
        raise refused(f"is signed with the key {_shown(name)}, and must be with {key.keyid!r}", SIGNATURES)


def _judge_files(listed: object, present: set[str]) -> None:
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    names = [name for entry in entries if isinstance(name := entry.get("name"), str)]
    if not isinstance(listed, list) or len(set(names)) != len(listed):
        raise refused("the signature does not list files, each once, by name; sign it with: opa sign", SIGNATURES)
    if any(entry.get("algorithm") not in _HASHES for entry in entries):
        raise refused(f"the signature's hashes are none of {', '.join(_HASHES)}; sign it with: opa sign", SIGNATURES)
    signed = {name.removeprefix("/") for name in names}
    found = [Finding(path, 0, "is not in the signature; sign the bundle again") for path in sorted(present - signed)]
    found += [
        Finding(_shown(path), 0, "is in the signature, but not in the bundle") for path in sorted(signed - present)
    ]
    if found:
        raise Refused(*found)


def _packed(members: dict[str, bytes]) -> bytes:
    try:
        return pack({f"/{path}": content for path, content in members.items()})  # as opa writes them
    except ValueError:
        raise refused("holds a path that is too long; shorten it") from None


def _ask_opa(run: _Run, place: Path, packed: bytes, given: tuple[BundleKey, bytes]) -> None:
    key, secret = given
    (place / _SIGNED).write_bytes(packed)
    (place / _KEY).write_bytes(secret)  # never an argument: those are for everybody to read
    (place / _KEY).chmod(0o400)
    (place / "capabilities.json").write_text(_offline(run))
    flags = ["--verification-key", _KEY, "--verification-key-id", key.keyid, "--signing-alg", key.algorithm]
    scope = ["--scope", key.scope] if key.scope else []
    offline = ["--capabilities", "capabilities.json", "--output", "verified.tar.gz"]
    said = run(["build", "--bundle", _SIGNED, *flags, *scope, *offline])
    if said.status != 0:
        why = (
            (said.err or said.out.decode(errors="replace")).strip().removeprefix("error: ").removeprefix("load error: ")
        )
        raise refused(f"opa does not take the signed bundle: {why.removeprefix(f'bundle {_SIGNED}: ')}", SIGNATURES)


def _offline(run: _Run) -> str:
    """All that this opa can do but reach out, which it would for a schema that a policy names."""
    said = run(["capabilities", "--current"])
    try:
        return json.dumps({**json.loads(said.out), "allow_net": []})
    except (ValueError, TypeError):
        raise refused("opa capabilities did not say what this opa can do; install a released OPA") from None


def _shown(value: object) -> str:
    return ascii(value)[1:-1][:_MOST_SHOWN] if isinstance(value, str) else "(none)" if value is None else "(no text)"
