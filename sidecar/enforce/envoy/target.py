"""Host, path and query of a request, refused where two servers could read them as two things.

RFC 3986 leaves room that attacks live in: encoded slashes and dots, dot segments, empty segments, double encoding,
overlong UTF-8, path parameters. Envoy normalises or refuses most of it (charts/envoy/envoy.yaml); here nothing of it
passes whatever Envoy was told. Of what passes, a server that decodes once, twice or not at all sees the same segments.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final
from urllib.parse import parse_qsl, unquote_to_bytes

from sidecar.errors import RequestError

MAX_PARAMETERS: Final = 256
_PATH: Final = re.compile(r"\A(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*)+\Z")  # RFC 3986, path-absolute
_QUERY: Final = re.compile(r"\A(?:[\x21\x22\x24\x26-\x7e]|%[0-9A-Fa-f]{2})*\Z")
_OCTET: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_DOUBLE: Final = re.compile(r"%25[0-9A-Fa-f]{2}")
_PARAMETERS: Final = re.compile(";|%3B")
_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_~")
_NEVER: Final = frozenset(b"/\\.") | frozenset(range(0x20)) | {0x7F}
_HOST: Final = re.compile(
    r"\A([a-z0-9](?:[a-z0-9_-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?)*)(?::([1-9][0-9]{0,4}))?\Z"
)
_V6: Final = re.compile(r"\A(\[[0-9a-f:.]{2,45}\])(?::([1-9][0-9]{0,4}))?\Z")
_DEFAULT_PORT: Final = {"http": "80", "https": "443"}


def host_of(authority: str, scheme: str) -> str:
    """The host in lower case, with its port where that is not the scheme's own. Raises RequestError."""
    found = _HOST.match(authority.lower()) or _V6.match(authority.lower())
    if found is None or not authority.isascii() or len(authority) > 255 or int(found[2] or 0) > 65_535:
        raise RequestError("host", "is not one host, with or without a port")
    host, port = found[1], found[2]
    if port is None or port == _DEFAULT_PORT.get(scheme):
        return host
    return f"{host}:{port}"


def split(target: str) -> tuple[str, str]:
    """The raw path and the raw query of a request's target."""
    path, _, query = target.partition("?")
    return path, query


def path_of(raw: str) -> str:
    """The path as every server reads it: unreserved characters decoded, the rest encoded with capitals.

    Raises:
        RequestError: it is none, or one that servers read differently.
    """
    if not _PATH.match(raw):
        raise RequestError("path", "is not a path of RFC 3986 that begins with one slash")
    path = _OCTET.sub(_octet, raw)
    if _DOUBLE.search(path):
        raise RequestError("path", "is encoded twice")
    segments = path.split("/")[1:]
    for number, segment in enumerate(segments, 1):
        name = _PARAMETERS.split(segment)[0]
        if name in (".", "..") or (not name and (segment or number < len(segments))):
            raise RequestError("path", "has a dot segment or an empty one")
    _check_text(path)
    return path


def parameters_of(query: str) -> dict[str, list[str]]:
    """The parameters of a query, each with all its values. Raises RequestError."""
    if ";" in query:
        raise RequestError("query", "has a semicolon, by which some servers part parameters; write %3B")
    if not _QUERY.match(query):
        raise RequestError("query", "holds a character that no query holds, or a broken encoding")
    found: dict[str, list[str]] = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
    except (ValueError, UnicodeDecodeError):
        raise RequestError("query", f"is not UTF-8, or has more than {MAX_PARAMETERS} parameters") from None
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found


def _octet(match: re.Match[str]) -> str:
    byte = int(match[1], 16)
    if byte in _NEVER:
        raise RequestError("path", "has an encoded slash, dot or control character")
    return chr(byte) if byte in _UNRESERVED else match[0].upper()


def _check_text(path: str) -> None:
    """What the encoded octets stand for is UTF-8, and no letter that some decoders take for a slash, dot or percent."""
    try:
        text = unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        raise RequestError("path", "is not UTF-8") from None
    for letter in text:
        if not letter.isascii() and (set(unicodedata.normalize("NFKC", letter)) & set("/\\.%;")):
            raise RequestError("path", "has a letter that may be read as a slash or dot")
