"""From the body of an evaluation to requests of the decision path (Authorization API 1.0, "Access Evaluation(s) API").

Members that the specification does not have are ignored, as it says; what it has must be as it says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sidecar.chain import strictjson
from sidecar.chain.request import Option, Request
from sidecar.enforce.authzen.settings import AuthZenSettings
from sidecar.errors import Malformed, RequestError

KIND: Final = "authzen"
APPROVAL_OF: Final = "x-sidecar-approval-of"
BODY: Final = "body"
"""The field of a refusal for a body that is too large, or too much once its defaults are applied."""

MOST: Final = 64
"""Evaluations in one message, as many as in a `DecideBatch`."""

EXECUTE_ALL: Final = "execute_all"
STOPS_AT: Final[Mapping[str, bool | None]] = {
    EXECUTE_ALL: None, "deny_on_first_deny": False, "permit_on_first_permit": True
}  # fmt: skip
"""The semantics, and the decision after which nothing more is evaluated."""

_ENTITIES: Final[tuple[str, ...]] = ("subject", "action", "resource", "context")
_NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "subject": ("type", "id"), "action": ("name",), "resource": ("type", "id")
}  # fmt: skip
_MAX_DEPTH: Final = 64
_DOOR: Final = {"door": {"kind": KIND, "api": "1.0"}}
_AGENT: Final = "agent"
_TRACE: Final = re.compile(r"\A[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z")


@dataclass(frozen=True, slots=True)
class Asked:
    """``items``: for each evaluation its entities, defaults applied, not looked at yet; None: no object. ``batch``:
    whether a list is wanted back. ``stops_at``: the decision after which the others are left."""

    items: tuple[Mapping[str, Any] | None, ...]
    batch: bool = False
    stops_at: bool | None = None


def asked_of(body: bytes, *, batch: bool, max_bytes: int) -> Asked:
    """What a body asks. ``batch``: it came to the endpoint for evaluations.

    Raises:
        RequestError: the whole of it is refused.
    """
    try:
        read = strictjson.parse_object(body, max_depth=_MAX_DEPTH)
    except Malformed as error:
        raise RequestError("request", str(error)) from None
    listed = read.get("evaluations", []) if batch else []
    stops_at = _semantic(read.get("options", {})) if batch else None
    if not isinstance(listed, list):
        raise RequestError("evaluations", "is not an array")
    if not listed:
        return Asked((read,))
    if len(listed) > MOST:
        raise RequestError("evaluations", f"has {len(listed)} members; from 1 to {MOST} are allowed")
    defaults: dict[str, Any] = {name: read[name] for name in _ENTITIES if name in read}
    for name, value in defaults.items():
        _object(name, value)
    items = tuple({**defaults, **each} if isinstance(each, dict) else None for each in listed)
    _check_total(items, max_bytes)
    return Asked(items, True, stops_at)


def request_of(
    item: Mapping[str, Any] | None, settings: AuthZenSettings, approval_of: str = "", trace: str = ""
) -> Request:
    """The request that one evaluation makes.

    Raises:
        RequestError: it is none.
    """
    if item is None:
        raise RequestError("evaluations", "has a member that is not an object")
    subject, action, resource = (_entity(item, name) for name in _NEEDED)
    if not settings.agent and subject["type"] != _AGENT:
        raise RequestError("subject.type", f"is not {_AGENT}: this door answers to agents alone")
    arguments = {
        "subject": subject,
        "action": {"properties": action["properties"]},
        "resource": {"properties": resource["properties"]},
        "context": _object("context", item.get("context", {})),
    }
    return Request(
        settings.agent or subject["id"],
        Option(action["name"], resource["type"], resource["id"], strictjson.dumps(arguments)),
        strictjson.dumps(_DOOR),
        trace_parent=trace if _TRACE.match(trace) else "",
        executor=settings.gateway,
        approval_of=approval_of,
    )


def _semantic(options: Any) -> bool | None:
    named = _object("options", options).get("evaluations_semantic", EXECUTE_ALL)
    if not isinstance(named, str) or named not in STOPS_AT:
        raise RequestError("options.evaluations_semantic", f"is not one of {', '.join(STOPS_AT)}")
    return STOPS_AT[named]


def _entity(item: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Its members that the specification has; ``properties`` also where there are none."""
    if name not in item:
        raise RequestError(name, "is missing")
    said = _object(name, item[name])
    found: dict[str, Any] = {}
    for member in _NEEDED[name]:
        value = said.get(member)
        if not isinstance(value, str) or not value:
            raise RequestError(f"{name}.{member}", "is missing" if member not in said else "is not a string, or empty")
        found[member] = value
    return {**found, "properties": _object(f"{name}.properties", said.get("properties", {}))}


def _object(field: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RequestError(field, "is not an object")
    return value


def _check_total(items: tuple[Mapping[str, Any] | None, ...], max_bytes: int) -> None:
    """Defaults are written once and recorded for each: what is recorded is what is bounded."""
    total = 0
    for item in items:
        total += len(strictjson.dumps({name: item.get(name) for name in _ENTITIES} if item else {}))
        if total > max_bytes:
            raise RequestError(BODY, f"is, with its defaults applied, longer than {max_bytes} bytes")
