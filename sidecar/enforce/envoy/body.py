"""A request's body as it is judged, and whether that is all of it."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from sidecar.chain import strictjson
from sidecar.enforce.envoy.headers import PARTIAL, Headers
from sidecar.errors import Malformed

INLINE: Final = 65_536
"""Bytes of a body that is not JSON, up to which it is recorded as it is; of a longer one its digest is."""

_DEPTH: Final = 60  # so that it has room below `body` in the arguments
_BODILESS: Final = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Body:
    """``value``: None, {"json": …}, {"base64": …} or {"sha256": …}. ``whole``: nothing of it can be missing."""

    value: dict[str, Any] | None
    size: int
    whole: bool


def body_of(raw: bytes, headers: Headers, method: str, protocol: str, limit: int) -> Body:
    """``limit``: bytes at which Envoy cuts a body."""
    return Body(_value(raw, headers), len(raw), _whole(raw, headers, method, protocol, limit))


def _whole(raw: bytes, headers: Headers, method: str, protocol: str, limit: int) -> bool:
    """Envoy's word is not enough: at exactly its limit it says that nothing was cut, whatever is still to come."""
    flag = headers.get(PARTIAL)
    if headers.length is not None:
        return len(raw) == headers.length and flag != "true"
    if raw:
        return flag == "false" and len(raw) < limit
    # HTTP/2 need not say that a body follows, and where Envoy is not told to send bodies, none would be here.
    bodiless = protocol.startswith("HTTP/1") or method in _BODILESS
    return flag is None and not headers.chunked and bodiless


def _value(raw: bytes, headers: Headers) -> dict[str, Any] | None:
    if not raw:
        return None
    if headers.json:
        try:
            return {"json": strictjson.parse(raw, max_depth=_DEPTH)}
        except Malformed:
            pass  # so it is bytes: what a lenient reader would make of them is not known
    if len(raw) <= INLINE:
        return {"base64": base64.b64encode(raw).decode()}
    return {"sha256": sha256(raw).hexdigest()}
