"""A custodian's RSA key in an HSM (PKCS #11 v2.40): the token opens the shares, the private key never leaves it.

RSA only: deriving with X25519 keys is not something tokens commonly offer. python-pkcs11 is the extra ``pkcs11`` and is
imported when a token is first used.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.asymmetric import rsa

from sidecar.chain.seeds import Custodian
from sidecar.custody import oaep
from sidecar.custody.kems import seal, spki_of
from sidecar.custody.keys import refuse_weak
from sidecar.custody.token_uri import TokenUri
from sidecar.errors import UsageError

if TYPE_CHECKING:
    import pkcs11

_MAX_PIN_FILE: Final = 1024
_PROBE_BYTES: Final = 64


class TokenKey:
    """A private key in a token, for ``rsa-oaep``. Its session lasts as long as the process.

    Some tokens cannot do OAEP with SHA-256 (SoftHSM 2.6 has SHA-1 alone), and some take the parameters and use others.
    So both ways are tried on a plaintext of our own: first OAEP by the token, so that nothing but the message leaves
    it; else raw RSA (CKM_RSA_X_509) by the token and the padding taken off here.

    Raises:
        UsageError: the token cannot open what is sealed to this key.
    """

    __slots__ = ("_open", "_pin", "_private", "_size", "_spki", "_whose")

    def __init__(self, private: Any, public: rsa.RSAPublicKey, pin: str | None, whose: str) -> None:
        """``private`` is python-pkcs11's; ``pin`` is given where the token asks for it at each use; ``whose`` names the
        key in messages."""
        self._private, self._pin, self._whose = private, pin, whose
        self._spki, self._size = spki_of(public), public.key_size // 8 + (public.key_size % 8 > 0)
        ways = (self._by_oaep, self._by_raw_rsa)
        way = next((w for w in ways if self._opens(w)), None)
        if way is None:
            raise UsageError(
                f"{whose}: the token opens nothing sealed to this key; it must decrypt with CKM_RSA_PKCS_OAEP and "
                "SHA-256, or with CKM_RSA_X_509"
            )
        self._open: Callable[[bytes], bytes | None] = way

    @property
    def kem(self) -> str:
        return "rsa-oaep"

    @property
    def spki(self) -> bytes:
        return self._spki

    def open(self, sealed: bytes, ctx: bytes) -> bytes | None:
        """The plaintext, or None where ``sealed`` is not a ciphertext for this key.

        Raises:
            UsageError: the token failed: taken out, locked, or closed.
        """
        import pkcs11

        if len(sealed) != self._size:
            return None
        try:
            return self._open(sealed)
        except pkcs11.PKCS11Error as error:
            # Modules disagree on what they return for a bad ciphertext. Whether it is that, or the token, shows in
            # whether the token still opens what is known to be good.
            if self._opens(self._open):
                return None
            raise UsageError(
                f"{self._whose}: the token no longer works ({kind_of(error)}); see to it, then retry"
            ) from None

    def _opens(self, way: Callable[[bytes], bytes | None]) -> bool:
        import pkcs11

        plain = os.urandom(_PROBE_BYTES)
        sealed = seal(Custodian("probe", "rsa-oaep", self._spki), plain, b"")
        try:
            return sealed is not None and way(sealed) == plain
        except pkcs11.PKCS11Error:
            return False

    def _by_oaep(self, sealed: bytes) -> bytes | None:
        import pkcs11

        parameters = (pkcs11.Mechanism.SHA256, pkcs11.MGF.SHA256, None)
        return self._decrypted(sealed, pkcs11.Mechanism.RSA_PKCS_OAEP, parameters)

    def _by_raw_rsa(self, sealed: bytes) -> bytes | None:
        import pkcs11

        encoded = self._decrypted(sealed, pkcs11.Mechanism.RSA_X_509, None)
        return oaep.unpad(encoded.rjust(self._size, b"\0"))  # a token may leave out leading zeros

    def _decrypted(self, sealed: bytes, mechanism: pkcs11.Mechanism, parameters: object) -> bytes:
        return bytes(self._private.decrypt(sealed, mechanism=mechanism, mechanism_param=parameters, pin=self._pin))


def load_pkcs11(uri: str) -> TokenKey:
    """The key that an RFC 7512 URI names; the token stays unlocked for as long as this process runs.

    Raises:
        UsageError: a URI that is not complete; a module, token or key that is not there, or more than one; a wrong PIN;
            a key that is not RSA, too weak, or not for decryption; python-pkcs11 is not installed.
    """
    where = TokenUri.parse(uri)
    _, private, whose = open_token(where)
    import pkcs11

    try:
        public = _public_key(private, whose)
        decrypts = _flag(private, pkcs11.Attribute.DECRYPT)
        asks_each_time = _flag(private, pkcs11.Attribute.ALWAYS_AUTHENTICATE)
    except pkcs11.PKCS11Error as error:
        raise UsageError(f"{whose}: the token does not give its public part ({kind_of(error)})") from None
    if not decrypts:
        raise UsageError(f"{whose} is not for decryption (CKA_DECRYPT); make one that is")
    return TokenKey(private, public, _read_pin(where.pin_file) if asks_each_time else None, whose)


def open_token(where: TokenUri) -> tuple[Any, Any, str]:
    """A session of python-pkcs11, the private key in it, and a name for it. Raises UsageError."""
    session, label = open_session(where)
    found = find_private(session, where, label)
    if not found:
        raise UsageError(f"token {label} has no private key {key_name(where)}; correct object= or id= in the URI")
    if len(found) > 1:
        raise UsageError(f"token {label} has {len(found)} private keys {key_name(where)}; give object= and id= both")
    return session, found[0], f"key {key_name(where)} in token {label}"


def open_session(where: TokenUri, *, writing: bool = False) -> tuple[Any, str]:
    """A session of python-pkcs11, logged in, and the token's label. Raises UsageError."""
    try:
        import pkcs11  # noqa: F401  here it is missed first
    except ImportError:
        raise UsageError(
            "a key in a token takes python-pkcs11; install the extra: pip install 'decision-sidecar[pkcs11]'"
        ) from None
    pin = _read_pin(where.pin_file)
    token = _token(_module(where.module), where)
    return _session(token, pin, writing), token.label


def _read_pin(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_PIN_FILE + 1)
    except OSError as error:
        raise UsageError(f"cannot read the PIN file {path}: {error.strerror}") from None
    try:
        pin = content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        pin = ""
    if not pin or len(content) > _MAX_PIN_FILE or "\n" in pin:
        raise UsageError(f"the PIN file {path} must hold the PIN alone, on one line")
    return pin


def _module(path: Path) -> Any:
    import pkcs11

    if not path.is_file():
        raise UsageError(f"no PKCS #11 module at {path}; give the file that the HSM's maker provides as module-path")
    try:
        return pkcs11.lib(str(path))
    except pkcs11.PKCS11Error as error:
        raise UsageError(f"{path} does not load as a PKCS #11 module ({kind_of(error)}); check module-path") from None


def _token(module: Any, where: TokenUri) -> Any:
    import pkcs11

    try:
        found = [t for t in module.get_tokens() if _fits(t, where)]
    except pkcs11.PKCS11Error as error:
        raise UsageError(f"{where.module} does not list its tokens ({kind_of(error)}); check its settings") from None
    named = where.token if where.token is not None else f"with serial {where.serial}"
    if not found:
        raise UsageError(f"no token {named} in {where.module}; plug it in, or correct token= in the URI")
    if len(found) > 1:
        raise UsageError(f"{len(found)} tokens fit {named}; add serial=… to the URI")
    return found[0]


def _fits(token: Any, where: TokenUri) -> bool:
    serial = token.serial.decode("utf-8", "replace")
    pairs = (
        (where.token, token.label),
        (where.serial, serial),
        (where.manufacturer, token.manufacturer_id),
        (where.model, token.model),
    )
    return all(wanted is None or wanted == found for wanted, found in pairs)


def _session(token: Any, pin: str, writing: bool) -> Any:
    import pkcs11

    try:
        try:
            return token.open(rw=writing, user_pin=pin)
        except pkcs11.UserAlreadyLoggedIn:
            return token.open(
                rw=writing
            )  # another key of the same token came first: a login counts for the whole process
    except (pkcs11.PinIncorrect, pkcs11.PinInvalid, pkcs11.PinLenRange):
        raise UsageError(f"token {token.label}: wrong PIN; correct it before trying again: tokens lock") from None
    except pkcs11.PinLocked:
        raise UsageError(f"token {token.label}: the PIN is locked; its security officer can unlock it") from None
    except pkcs11.PKCS11Error as error:
        raise UsageError(f"token {token.label}: cannot log in ({kind_of(error)})") from None


def find_private(session: Any, where: TokenUri, token: str) -> list[Any]:
    """The private keys in it that the URI names. Raises UsageError."""
    import pkcs11

    wanted: dict[pkcs11.Attribute, Any] = {pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PRIVATE_KEY}
    if where.label is not None:
        wanted[pkcs11.Attribute.LABEL] = where.label
    if where.key_id is not None:
        wanted[pkcs11.Attribute.ID] = where.key_id
    try:
        return list(session.get_objects(wanted))
    except pkcs11.PKCS11Error as error:
        raise UsageError(f"token {token}: cannot look for keys ({kind_of(error)})") from None


def _public_key(private: Any, whose: str) -> rsa.RSAPublicKey:
    from pkcs11 import Attribute, KeyType

    if private[Attribute.KEY_TYPE] != KeyType.RSA:
        raise UsageError(f"{whose} is not RSA; tokens open shares with RSA keys only")
    modulus, exponent = (int.from_bytes(private[a], "big") for a in (Attribute.MODULUS, Attribute.PUBLIC_EXPONENT))
    try:
        public = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError:
        raise UsageError(f"{whose} is not a usable RSA key") from None
    refuse_weak(public, whose)
    return public


def _flag(private: Any, name: pkcs11.Attribute) -> bool:
    """A flag of the key; one that the token does not know is not set."""
    import pkcs11

    try:
        return bool(private[name])
    except pkcs11.AttributeTypeInvalid:
        return False


def key_name(where: TokenUri) -> str:
    """The key that a URI names, for messages."""
    parts = [where.label] if where.label is not None else []
    parts += [f"id {where.key_id.hex()}"] if where.key_id is not None else []
    return ", ".join(parts)


def kind_of(error: Exception) -> str:
    """The error's kind alone: what a module writes into its messages is not ours to vouch for."""
    return type(error).__name__
