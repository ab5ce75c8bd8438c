"""Where a key in a token is: the `pkcs11:` URI of RFC 7512, as far as a custodian's key needs it.

Anything else in the URI is refused: a part that is passed over could have named another key.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote_to_bytes

from sidecar.errors import UsageError

SCHEME: Final = "pkcs11:"
_EXAMPLE: Final = "pkcs11:token=…;object=…?module-path=/…/module.so&pin-source=file:/…"
_PATH: Final = {"token", "serial", "manufacturer", "model", "object", "id", "type"}
_QUERY: Final = {"module-path", "pin-source"}
_MENDS: Final = {
    "pin-value": "a PIN in a URI is seen by everyone on the host; put it into a file and give pin-source=file:/…",
    "module-name": "give the module's file instead: module-path=/…",
}
_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class TokenUri:
    """One private key: the module's file, the token, the key's label or id, and the file with the PIN.

    ``token``, ``serial``, ``manufacturer``, ``model``, ``label`` and ``key_id`` are None where any will do.

    Raises:
        UsageError: no token or serial, no object or id.
    """

    module: Path
    pin_file: Path
    token: str | None
    serial: str | None
    manufacturer: str | None
    model: str | None
    label: str | None
    key_id: bytes | None

    def __post_init__(self) -> None:
        if self.token is None and self.serial is None:
            raise UsageError(f"pkcs11 URI: names no token; write {_EXAMPLE}")
        if self.label is None and self.key_id is None:
            raise UsageError(f"pkcs11 URI: names no key; give object=… or id=%…, as in {_EXAMPLE}")

    @classmethod
    def parse(cls, uri: str) -> TokenUri:
        """Reads a URI. No message repeats it: somebody may have put a PIN there.

        Raises:
            UsageError: not such a URI, an attribute that is unknown, repeated or missing, or a PIN in it.
        """
        scheme, _, rest = uri.partition(":")
        if scheme.lower() + ":" != SCHEME:
            raise UsageError(f"not a pkcs11 URI; write {_EXAMPLE}")
        path, _, query = rest.partition("?")
        named = _attributes(path, ";", _PATH) | _attributes(query, "&", _QUERY)
        if named.get("type", b"private") != b"private":
            raise UsageError("pkcs11 URI: type must be private: the token's private key opens the shares")
        return cls(
            module=_module(named),
            pin_file=_pin_file(named),
            token=_text(named, "token"),
            serial=_text(named, "serial"),
            manufacturer=_text(named, "manufacturer"),
            model=_text(named, "model"),
            label=_text(named, "object"),
            key_id=named.get("id"),
        )


def _attributes(text: str, separator: str, known: set[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for part in text.split(separator) if text else ():
        name, equals, value = part.partition("=")
        if name in _MENDS:
            raise UsageError(f"pkcs11 URI: {name} is refused: {_MENDS[name]}")
        if not equals or name not in known:
            known_names = ", ".join(sorted(known))
            where = "before" if separator == ";" else "after"
            raise UsageError(f"pkcs11 URI: an attribute is not known; {where} the ? there may be {known_names}")
        if name in found:
            raise UsageError(f"pkcs11 URI: {name} is given twice")
        if _PERCENT.search(value) or not value.isascii() or not value:
            raise UsageError(f"pkcs11 URI: {name} is empty or not percent-encoded (RFC 3986); write spaces as %20")
        found[name] = unquote_to_bytes(value)
    return found


def _text(named: dict[str, bytes], name: str) -> str | None:
    try:
        value = named[name].decode() if name in named else None
    except UnicodeDecodeError:
        raise UsageError(f"pkcs11 URI: {name} is not UTF-8") from None
    if value is not None and "\0" in value:
        raise UsageError(f"pkcs11 URI: {name} has a NUL in it")
    return value


def _module(named: dict[str, bytes]) -> Path:
    text = _text(named, "module-path")
    if text is None:
        raise UsageError("pkcs11 URI: names no module; add ?module-path=/… with the file that the HSM's maker provides")
    if not text.startswith("/"):
        raise UsageError("pkcs11 URI: module-path must be an absolute path")
    return Path(text)


def _pin_file(named: dict[str, bytes]) -> Path:
    text = _text(named, "pin-source")
    if text is None:
        raise UsageError("pkcs11 URI: names no PIN; put it into a file and add &pin-source=file:/…")
    text = text.removeprefix("file:")
    text = text.removeprefix("//") if text.startswith("///") else text
    if not text.startswith("/") or text.startswith("//"):
        raise UsageError("pkcs11 URI: pin-source must be file:/… with an absolute path on this machine")
    return Path(text)
