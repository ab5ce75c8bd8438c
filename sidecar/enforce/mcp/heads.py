"""What a request of HTTP must be before its message is looked at: who sends it, where to, and what it says of itself.

No I/O. Both generations of Streamable HTTP: up to 2025-11-25 with a session, and 2026-07-28, where each request repeats
in its head what its body says, so that what is between can route it; one that says two things is refused.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sidecar.enforce.mcp.frame import INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, PARSE_ERROR, Frame
from sidecar.enforce.mcp.remote import NAMED, VERSION_KEY, repeated

MODERN: Final = "2026-07-28"
SESSIONS: Final = ("2025-03-26", "2025-06-18", "2025-11-25")
SESSION: Final = "mcp-session-id"
VERSION: Final = "mcp-protocol-version"
HEADER_MISMATCH: Final = -32020
UNSUPPORTED: Final = -32022
STATUS: Final = {
    **dict.fromkeys((PARSE_ERROR, INVALID_REQUEST, INVALID_PARAMS, HEADER_MISMATCH, -32021, UNSUPPORTED), 400),
    METHOD_NOT_FOUND: 404,
}
"""The status of HTTP that an error of JSON-RPC has since 2026-07-28."""

_METHOD: Final = "mcp-method"
_NAME: Final = "mcp-name"
_PARAM: Final = "mcp-param-"
_ONCE: Final = ("authorization", "host", "origin", "content-type", SESSION, VERSION, _METHOD, _NAME)
_BASE64: Final = re.compile(r"=\?base64\?([A-Za-z0-9+/]*={0,2})\?=")

Head = Mapping[str, Sequence[str]]
"""The values of each field, by its name in small letters."""


class Refused(Exception):
    """What is not taken: a status of HTTP, JSON-RPC's code, and why. ``data`` goes into the error."""

    def __init__(self, status: int, why: str, code: int = INVALID_REQUEST, data: Any = None) -> None:
        super().__init__(why)
        self.status, self.code, self.data = status, code, data


@dataclass(frozen=True, slots=True)
class Reached:
    """Where clients reach the gateway. ``hosts``: what `Host` may be, None: anything, since its certificate is shown or
    it is a socket; ``origins``: of pages that may ask. ``token`` gives what each must bring now; None: nothing, on a
    socket. ``ended``: whether the certificate that is shown has; then nobody is answered."""

    hosts: frozenset[str] | None
    origins: frozenset[str]
    token: Callable[[], str] | None
    ended: Callable[[], bool] = lambda: False

    def check(self, head: Head) -> None:
        """Refused: it comes from a page of somebody else's, by another name, without the token, or when nobody is
        answered."""
        if self.ended():
            raise Refused(503, "the certificate of this gateway has ended; nobody is answered until there is a newer")
        for name in _ONCE:
            if len(head.get(name, ())) > 1:
                raise Refused(400, f"the field {name} occurs twice")
        if self.hosts is not None and one(head, "host").lower() not in self.hosts:
            raise Refused(421, "Host is not this gateway: a name that somebody else made point here?")
        if "origin" in head and one(head, "origin").lower() not in self.origins:
            raise Refused(403, "Origin: no page of another site is answered")
        if not self.knows(head):
            raise Refused(401, "the token of this gateway is missing, or another one")

    def still(self, head: Head) -> bool:
        """Whether a stream that it began may go on."""
        return not self.ended() and self.knows(head)

    def knows(self, head: Head) -> bool:
        """Whether it came with the token that is asked for now."""
        if self.token is None:
            return True
        scheme, _, given = one(head, "authorization").partition(" ")
        right = hmac.compare_digest(given.strip().encode(errors="backslashreplace"), self.token().encode())
        return scheme.lower() == "bearer" and right


def reached(host: str, port: int, *, token: Callable[[], str], ended: Callable[[], bool] | None) -> Reached:
    """By host and port, over TLS or, where ``ended`` is None, on this host alone."""
    names = {f"[{host}]" if ":" in host else host.lower(), "localhost", "127.0.0.1", "[::1]"}
    places = frozenset(f"{name}:{port}" for name in names)
    if ended is not None:
        return Reached(None, frozenset(), token, ended)
    return Reached(places, frozenset(f"http://{place}" for place in places), token)


def one(head: Head, name: str) -> str:
    """The value of a field that occurs once; "" where it is absent."""
    return (head.get(name) or ("",))[0]


def check_media(head: Head, *, body: bool) -> None:
    """Refused: it does not take what it would get, or its body is no JSON."""
    accepts = {part.partition(";")[0].strip().lower() for each in head.get("accept", ()) for part in each.split(",")}
    wanted = {"application/json", "text/event-stream"} if body else {"text/event-stream"}
    major = {f"{kind.partition('/')[0]}/*": kind for kind in wanted}
    found = wanted if "*/*" in accepts else (accepts & wanted) | {major[each] for each in accepts & major.keys()}
    if found != wanted:
        raise Refused(406, f"Accept must name {' and '.join(sorted(wanted))}")
    if body and one(head, "content-type").partition(";")[0].strip().lower() != "application/json":
        raise Refused(415, "Content-Type is not application/json")
    if body and head.get("content-encoding"):
        raise Refused(415, "a body with a content coding is not taken")


def is_modern(head: Head, frame: Frame) -> bool:
    """Whether a message is of 2026-07-28, or says so in one of the two places. Refused: of a version not known here."""
    version = one(head, VERSION)
    if version and version != MODERN and version not in SESSIONS:
        known = "".join(c for c in version if c.isascii() and c.isprintable())[:64]
        supported = {"supported": [MODERN, *SESSIONS], "requested": known}
        raise Refused(400, "this version of the protocol is not known here", UNSUPPORTED, supported)
    return frame.method != "initialize" and (version == MODERN or VERSION_KEY in _meta(frame))


def check_modern(head: Head, frame: Frame, schema: Any) -> None:
    """Refused: the head says something else than the body. ``schema``: the input schema of the tool that is called."""
    meta = _meta(frame)
    if VERSION_KEY not in meta:
        raise Refused(400, "params._meta does not say the version of the protocol", INVALID_PARAMS)
    if one(head, SESSION):
        raise Refused(400, f"there are no sessions in {MODERN}")
    for name, value in ((VERSION, meta[VERSION_KEY]), (_METHOD, frame.method)):
        if one(head, name) != value:
            raise Refused(400, f"the field {name} and the message differ", HEADER_MISMATCH)
    named = frame.params.get(NAMED.get(frame.method, ""))
    if isinstance(named, str) and decoded(one(head, _NAME)) != named:
        raise Refused(400, f"the field {_NAME} and the message differ", HEADER_MISMATCH)
    if frame.method == "tools/call" and schema is not None:
        expected = {name.lower(): decoded(value) for name, value in repeated(schema, frame.params.get("arguments", {}))}
        given = {name: [decoded(value) for value in values] for name, values in head.items() if name.startswith(_PARAM)}
        if given != {name: [value] for name, value in expected.items()}:
            raise Refused(400, "the fields Mcp-Param-… and the arguments differ", HEADER_MISMATCH)


def decoded(value: str) -> str | None:
    """A value as the body has it; None for base64 that is none (2026-07-28, "Value Encoding")."""
    found = _BASE64.fullmatch(value)
    if found is None:
        return value
    try:
        return base64.b64decode(found[1], validate=True).decode()
    except ValueError:
        return None


def _meta(frame: Frame) -> Mapping[str, Any]:
    meta = frame.params.get("_meta") if frame.kind != "response" else None
    return meta if isinstance(meta, dict) else {}
