"""An agent's P-256 key in an HSM (PKCS #11 v2.40): the token signs (CKM_ECDSA), the private key never leaves it."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sidecar.chain.signing import PublicKey
from sidecar.custody.pkcs11 import find_private, key_name, kind_of, open_session, open_token
from sidecar.custody.token_uri import TokenUri
from sidecar.errors import Malformed, SignatureInvalid, UsageError

if TYPE_CHECKING:
    import pkcs11

_ID_BYTES = 8
_OCTETS = b"\x04\x41"  # CKA_EC_POINT: a DER OCTET STRING of 65 bytes


class TokenSigner:
    """Signs as proto/SIGNING.md, "Keys", says. ``whose`` names the key in messages."""

    def __init__(self, private: Any, public: PublicKey, whose: str) -> None:
        self._private, self._public, self.whose = private, public, whose

    @property
    def spki(self) -> bytes:
        """Its public half."""
        return self._public.spki

    def sign(self, message: bytes) -> bytes:
        """64 bytes. Raises UsageError where the token fails, or gives what is no signature by this key."""
        import pkcs11

        try:
            digest = hashlib.sha256(message).digest()
            signature = bytes(self._private.sign(digest, mechanism=pkcs11.Mechanism.ECDSA))
            self._public.verify(signature, message)
        except (pkcs11.PKCS11Error, SignatureInvalid) as error:
            raise UsageError(f"{self.whose}: the token does not sign ({kind_of(error)}); see to it") from None
        return signature


def load_agent_token(uri: str) -> TokenSigner:
    """The key that an RFC 7512 URI names; the token stays unlocked for as long as this process runs.

    Raises:
        UsageError: as `load_pkcs11`; a key that is not P-256, or has no public half in the token.
    """
    where = TokenUri.parse(uri)
    session, private, whose = open_token(where)
    return TokenSigner(private, _public(session, private, whose), whose)


def make_agent_token(uri: str) -> TokenSigner:
    """A new P-256 key pair, made in the token, under the label (``object=``) and the id that the URI gives.

    The private key signs, and cannot be read or taken out; it has signed once before this returns.

    Raises:
        UsageError: as `load_agent_token`; no label; a private key of that name is there; the token makes none.
    """
    where = TokenUri.parse(uri)
    if where.label is None:
        raise UsageError("pkcs11 URI: a new key needs a name; give object=…")
    session, token = open_session(where, writing=True)
    if find_private(session, where, token):
        raise UsageError(f"token {token} has a private key {key_name(where)} already; choose another object=")
    whose = f"key {key_name(where)} in token {token}"
    _, private = _made(session, where.label, where.key_id or os.urandom(_ID_BYTES), whose)
    made = TokenSigner(private, _public(session, private, whose), whose)
    made.sign(b"")
    return made


def _made(session: Any, label: str, key_id: bytes, whose: str) -> tuple[Any, Any]:
    import pkcs11
    from pkcs11.util.ec import encode_named_curve_parameters

    curve = {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}
    kept = {pkcs11.Attribute.SENSITIVE: True, pkcs11.Attribute.EXTRACTABLE: False, pkcs11.Attribute.DERIVE: False}
    try:
        parameters = session.create_domain_parameters(pkcs11.KeyType.EC, curve, local=True)
        made: tuple[Any, Any] = parameters.generate_keypair(
            id=key_id, label=label, store=True, private_template=kept,
            capabilities=pkcs11.MechanismFlag.SIGN | pkcs11.MechanismFlag.VERIFY,
        )  # fmt: skip
    except pkcs11.PKCS11Error as error:
        raise UsageError(f"{whose}: the token does not make it ({kind_of(error)})") from None
    return made


def _public(session: Any, private: Any, whose: str) -> PublicKey:
    """The public half, which a token keeps as an object of its own."""
    import pkcs11

    wanted: dict[pkcs11.Attribute, Any] = {pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PUBLIC_KEY}
    try:
        if private[pkcs11.Attribute.KEY_TYPE] != pkcs11.KeyType.EC:
            raise UsageError(f"{whose} is not an elliptic curve key; agents sign with P-256 keys from tokens")
        for name in (pkcs11.Attribute.LABEL, pkcs11.Attribute.ID):
            if private[name]:
                wanted[name] = private[name]
        found = [bytes(each[pkcs11.Attribute.EC_POINT]) for each in session.get_objects(wanted)]
    except pkcs11.PKCS11Error as error:
        raise UsageError(f"{whose}: the token does not give its public part ({kind_of(error)})") from None
    if len(found) != 1 or not found[0].startswith(_OCTETS):
        raise UsageError(f"{whose}: the token holds {len(found)} P-256 public keys beside it; one is needed")
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), found[0][2:])
        return PublicKey(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    except (ValueError, Malformed):
        raise UsageError(f"{whose} is not on P-256; agents sign with P-256 keys from tokens") from None
