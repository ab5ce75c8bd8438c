"""The judgement on what a policy answered: a decision, or something that must not pass for one.

The shape a policy answers in, further members allowed::

    {"effect": "ALLOW" | "DENY" | "REQUIRE_APPROVAL",
     "reasons": [{"code": "amount_over_limit", "message": "1200 EUR is above the limit of 1000"}],
     "obligations": [{"kind": "mask_fields", "parameters": {"fields": ["email"]}}],
     "approval": {"count": 2, "roles": ["finance-lead"], "expires_seconds": 3600}}

`effect` and `reasons` must be there; a DENY or REQUIRE_APPROVAL says why. `approval` goes with REQUIRE_APPROVAL alone.
Whatever is odd raises `PolicyMisshaped`, which the caller answers with DENY: nothing here ever becomes ALLOW by
default.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

from sidecar.chain import strictjson
from sidecar.errors import Malformed, PolicyMisshaped

Effect = Literal["ALLOW", "DENY", "REQUIRE_APPROVAL"]

MAX_REASONS: Final = 64
MAX_OBLIGATIONS: Final = 32
MAX_NAME: Final = 128  # characters, of a reason's code and an obligation's kind
MAX_MESSAGE: Final = 1024  # characters
MAX_PARAMETERS: Final = 16 * 1024  # bytes of JSON, of one obligation
MAX_APPROVERS: Final = 8
MAX_ROLES: Final = 16
MAX_WAIT: Final = 7 * 86_400  # seconds that an approval may take

_EFFECTS: Final[dict[str, Effect]] = {"ALLOW": "ALLOW", "DENY": "DENY", "REQUIRE_APPROVAL": "REQUIRE_APPROVAL"}
_Part = TypeVar("_Part")


@dataclass(frozen=True, slots=True)
class Reason:
    """Why: ``code`` is for programs and stable, ``message`` is for people."""

    code: str
    message: str

    def __post_init__(self) -> None:
        _check_text(self.code, "code", MAX_NAME)
        _check_text(self.message, "message", MAX_MESSAGE)


@dataclass(frozen=True, slots=True)
class Obligation:
    """What the caller must do if it goes on. ``parameters`` is a JSON object."""

    kind: str
    parameters: dict[str, Any]

    def __post_init__(self) -> None:
        _check_text(self.kind, "kind", MAX_NAME)
        if not isinstance(self.parameters, dict):
            raise PolicyMisshaped("parameters is not an object")
        try:
            length = len(strictjson.dumps(self.parameters))
        except Malformed as error:
            raise PolicyMisshaped(f"parameters: {error}") from None
        if length > MAX_PARAMETERS:
            raise PolicyMisshaped(f"parameters is longer than {MAX_PARAMETERS} bytes")


@dataclass(frozen=True, slots=True)
class Approval:
    """What an approval takes: ``count`` approvers, each with one of ``roles`` if there are any.

    ``expires_seconds``: within which, 1 to 604,800; None: the sidecar's own setting.
    """

    count: int = 1
    roles: tuple[str, ...] = ()
    expires_seconds: int | None = None

    def __post_init__(self) -> None:
        if not _whole(self.count, MAX_APPROVERS):
            raise PolicyMisshaped(f"count is not a whole number from 1 to {MAX_APPROVERS}")
        if len(self.roles) > MAX_ROLES:
            raise PolicyMisshaped(f"roles has {len(self.roles)} members, at most {MAX_ROLES} are allowed")
        for role in self.roles:
            _check_text(role, "roles", MAX_NAME)
        if self.expires_seconds is not None and not _whole(self.expires_seconds, MAX_WAIT):
            raise PolicyMisshaped(f"expires_seconds is not a whole number from 1 to {MAX_WAIT}")


@dataclass(frozen=True, slots=True)
class Verdict:
    """One decision of the policy, in the policy's order of reasons and obligations.

    ``approval``: with REQUIRE_APPROVAL, what it takes; None where the policy leaves it to the defaults.
    """

    effect: Effect
    reasons: tuple[Reason, ...]
    obligations: tuple[Obligation, ...]
    approval: Approval | None = None

    def __post_init__(self) -> None:
        if self.effect != "ALLOW" and not self.reasons:
            raise PolicyMisshaped(f"the policy's result: effect {self.effect} has no reason")
        if self.approval is not None and self.effect != "REQUIRE_APPROVAL":
            raise PolicyMisshaped(f"the policy's result: effect {self.effect} has an approval")


def interpret(result: object) -> Verdict:
    """The verdict in a policy's result. Raises `PolicyMisshaped` naming what is wrong with it."""
    if not isinstance(result, dict):
        raise PolicyMisshaped(f"the policy's result is {_kind(result)}, not an object")
    if "effect" not in result:
        raise PolicyMisshaped("the policy's result has no effect")
    effect = result["effect"]
    if not isinstance(effect, str) or effect not in _EFFECTS:
        raise PolicyMisshaped("the policy's result: effect is none of ALLOW, DENY, REQUIRE_APPROVAL")
    if "reasons" not in result:
        raise PolicyMisshaped("the policy's result has no reasons")
    reasons = _parts(result["reasons"], "reasons", MAX_REASONS, _reason)
    obligations = _parts(result.get("obligations", []), "obligations", MAX_OBLIGATIONS, _obligation)
    return Verdict(_EFFECTS[effect], reasons, obligations, _approval(result))


def _approval(result: dict[str, Any]) -> Approval | None:
    return _part(result["approval"], _terms, "approval") if "approval" in result else None


def _parts(value: object, name: str, limit: int, build: Callable[[dict[str, Any]], _Part]) -> tuple[_Part, ...]:
    if not isinstance(value, list):
        raise PolicyMisshaped(f"the policy's result: {name} is {_kind(value)}, not an array")
    if len(value) > limit:
        raise PolicyMisshaped(f"the policy's result: {name} has {len(value)} members, at most {limit} are allowed")
    return tuple([_part(item, build, name, index) for index, item in enumerate(value)])


def _part(item: object, build: Callable[[dict[str, Any]], _Part], name: str, index: int | None = None) -> _Part:
    try:
        if isinstance(item, dict):
            return build(item)
        cause = f" is {_kind(item)}, not an object"
    except PolicyMisshaped as error:
        cause = f".{error}"
    place = name if index is None else f"{name}[{index}]"
    raise PolicyMisshaped(f"the policy's result: {place}{cause}")


def _reason(item: dict[str, Any]) -> Reason:
    return Reason(item.get("code", ""), item.get("message", ""))


def _obligation(item: dict[str, Any]) -> Obligation:
    return Obligation(item.get("kind", ""), item.get("parameters", {}))


def _terms(item: dict[str, Any]) -> Approval:
    unknown = item.keys() - {"count", "roles", "expires_seconds"}
    if unknown:
        raise PolicyMisshaped(f"{min(unknown)[:64]} is not a member of it")
    roles = item.get("roles", [])
    if not isinstance(roles, list):
        raise PolicyMisshaped(f"roles is {_kind(roles)}, not an array")
    if "expires_seconds" in item and item["expires_seconds"] is None:
        raise PolicyMisshaped("expires_seconds is null, not a number")
    return Approval(item.get("count", 1), tuple(roles), item.get("expires_seconds"))


def _whole(value: object, limit: int) -> bool:
    return type(value) is int and 1 <= value <= limit


def _check_text(value: object, name: str, limit: int) -> None:
    if not isinstance(value, str) or not value:
        raise PolicyMisshaped(f"{name} is missing or not a string")
    if len(value) > limit:
        raise PolicyMisshaped(f"{name} is longer than {limit} characters")
    if value.isprintable():  # then no character is of those categories
        return
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in value):
        raise PolicyMisshaped(f"{name} holds a control character or a lone surrogate")


def _kind(value: object) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
