"""What a caller may ask: the limits on a request, held before anything is evaluated.

The first field that breaks a limit is named, its content never is.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sidecar.chain import door, strictjson
from sidecar.chain import payload as payloads
from sidecar.chain.digests import Outcome
from sidecar.chain.request import Option, Request
from sidecar.errors import Malformed, RequestError

NAME = 256
TEXT = 1_024
KEY = 128
RECEIPT = 4_096
MAX_ALTERNATIVES = 8
MAX_DEPTH = 64

_TRACE_PARENT = re.compile(r"\A[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z")


@dataclass(frozen=True, slots=True)
class Limits:
    """``max_bytes`` bounds a whole request; from 1 KiB to 2 MiB, so that its entry fits a payload."""

    max_bytes: int = 1024 * 1024

    def __post_init__(self) -> None:
        if not 1024 <= self.max_bytes <= 2 * 1024 * 1024:
            raise ValueError("max_request_bytes must be from 1024 to 2097152")


@dataclass(frozen=True, slots=True)
class Documents:
    """A request's JSON, read: the context, and the arguments of what is wanted and of each alternative; and its
    texts."""

    context: dict[str, Any]
    arguments: tuple[dict[str, Any], ...]
    texts: tuple[bytes, ...]


def check_size(size: int, limits: Limits) -> None:
    """Raises RequestError for a request over the limit. ``size`` is its length on the wire, bytes."""
    if size > limits.max_bytes:
        raise RequestError("request", f"is {size} bytes long; the limit is {limits.max_bytes}")


def check_request(request: Request) -> Documents:
    """Hold a request against every limit; gives its JSON, which is read here once.

    Raises:
        RequestError: names the first field that breaks one.
    """
    _name("agent", request.agent)
    arguments = [_option("", request.wanted)]
    context = _object("context", request.context)
    _text("purpose", request.purpose, TEXT)
    if request.trace_parent and not _TRACE_PARENT.match(request.trace_parent):
        raise RequestError("trace_parent", "is not a W3C traceparent (00-<32 hex>-<16 hex>-<2 hex>)")
    _text("idempotency_key", request.idempotency_key, KEY)
    if len(request.last_receipt) > RECEIPT:
        raise RequestError("last_receipt", f"is longer than {RECEIPT} bytes")
    if len(request.alternatives) > MAX_ALTERNATIVES:
        raise RequestError("alternatives", f"has {len(request.alternatives)} members; the limit is {MAX_ALTERNATIVES}")
    for index, option in enumerate(request.alternatives):
        arguments.append(_option(f"alternatives[{index}].", option))
    _text("approval_of", request.approval_of, KEY)
    options = (request.wanted, *request.alternatives)
    return Documents(context, tuple(arguments), (request.context, *(option.arguments for option in options)))


def check_door(context: dict[str, Any], *, served: bool) -> None:
    """Hold the door that a context names against who asks. ``served``: by a gateway, through a door of the sidecar's.

    Raises:
        RequestError: it is none, or one that only the sidecar itself may name.
    """
    try:
        named = door.read(context)
    except Malformed as error:
        raise RequestError("context.door", str(error)) from None
    if (named is not None and named["kind"] in door.SERVED) != served:
        cause = "must name the door that the sidecar serves" if served else "names a door that only the sidecar serves"
        raise RequestError("context.door", cause)


def check_outcome(outcome: Outcome) -> None:
    """Hold a report against every limit. Raises RequestError."""
    if outcome.status not in payloads.STATUSES:
        raise RequestError("status", "is not one of executed, blocked, failed")
    check_json("response", outcome.response, any_value=True)
    if outcome.response_digest and (outcome.response or len(outcome.response_digest) != 32):
        raise RequestError("response_digest", "must be 32 bytes, and stand alone without a response")
    if outcome.arguments_digest and len(outcome.arguments_digest) != 32:
        raise RequestError("arguments_digest", "must be 32 bytes")
    _text("downstream_status", outcome.downstream_status, NAME)
    for field, value in (("started_ns", outcome.started_ns), ("duration_ns", outcome.duration_ns)):
        if value < 0:
            raise RequestError(field, "is below 0")


def check_text(field: str, value: str) -> None:
    """Up to 1,024 characters without control characters. Raises RequestError."""
    _text(field, value, TEXT)


def check_name(field: str, value: str) -> None:
    """1 to 256 characters without control characters. Raises RequestError."""
    _name(field, value)


def check_json(field: str, value: bytes, *, any_value: bool = False) -> None:
    """Empty, or strict JSON (RFC 7493): an object, or any value. Raises RequestError."""
    if value:
        _json(field, value, strictjson.parse if any_value else strictjson.parse_object)


def _option(prefix: str, option: Option) -> dict[str, Any]:
    _name(f"{prefix}action", option.action)
    _name(f"{prefix}resource.type", option.resource_type)
    if not option.resource_id:
        raise RequestError(f"{prefix}resource.id", "is empty")
    _text(f"{prefix}resource.id", option.resource_id, TEXT)
    return _object(f"{prefix}arguments", option.arguments)


def _name(field: str, value: str) -> None:
    if not value:
        raise RequestError(field, "is empty")
    _text(field, value, NAME)


def _text(field: str, value: str, limit: int) -> None:
    if len(value) > limit:
        raise RequestError(field, f"is longer than {limit} characters")
    if value.isascii() and value.isprintable():
        return
    for character in value:
        if unicodedata.category(character) in ("Cc", "Cs") or _noncharacter(ord(character)):
            raise RequestError(field, "holds a control character, a surrogate or a noncharacter")


def _noncharacter(code: int) -> bool:
    return 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE


def _object(field: str, value: bytes) -> dict[str, Any]:
    return _json(field, value, strictjson.parse_object) if value else {}


def _json(field: str, value: bytes, parse: Callable[..., Any]) -> Any:
    try:
        return parse(value, max_depth=MAX_DEPTH)
    except Malformed as error:
        raise RequestError(field, str(error)) from None
