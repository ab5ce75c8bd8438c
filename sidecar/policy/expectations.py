"""`expectations.yaml` of a policy repository: decisions that must come out as written, whoever changes the policy.

    expectations:
      - name: a small transfer in working hours goes through
        input:
          agent: {id: billing-agent}
          action: payments.transfer
          resource: {type: account, id: acct-17}
          arguments: {amount: 120, currency: EUR}
          time: 2026-11-23T12:00:00Z
        expect: {effect: ALLOW, reasons: [granted], obligations: [log_level]}

`context`, `purpose`, the agent's `proof` ("asserted"), `roles` and `attributes`, `delegation` and `approvals` may be
left out; of `expect` only `effect` must be there. `reasons` are all the codes and `obligations` all the kinds, in any
order.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from .findings import Finding
from .lined_yaml import Lined, YamlRefused, read_yaml
from .rerun import Rerun
from .tree import EXPECTATIONS

MOST: Final = 10_000
_EFFECTS: Final = ("ALLOW", "DENY", "REQUIRE_APPROVAL")
_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z", re.ASCII)
_LEFT_OUT: Final = frozenset({"arguments", "context", "purpose", "delegation", "approvals"})
_EARLY: Final = "2000-01-01T00:00:00.000000000Z"
_LATE: Final = "2099-12-31T00:00:00.000000000Z"


@dataclass(frozen=True, slots=True)
class Expectation:
    """One decision that must come out so; ``reasons`` and ``obligations`` sorted, None where anything will do."""

    name: str
    line: int
    document: dict[str, Any]
    effect: str
    reasons: tuple[str, ...] | None
    obligations: tuple[str, ...] | None

    def mismatch(self, got: Rerun) -> Finding | None:
        """How ``got`` differs, or None."""
        kinds = tuple(sorted(duty.kind for duty in got.verdict.obligations))
        same = (
            got.decided
            and got.effect == self.effect
            and self.reasons in (None, tuple(sorted(got.codes)))
            and self.obligations in (None, kinds)
        )
        if same:
            return None
        wanted = _words(self.effect, self.reasons, self.obligations)
        if not got.decided:
            said = f"no decision: {got.verdict.reasons[0].message}"
        else:
            said = _words(got.effect, got.codes, kinds)
            said += "".join(f"; {reason.code}: {reason.message}" for reason in got.verdict.reasons)
        return Finding(EXPECTATIONS, self.line, f"{self.name}: expected {wanted}, got {said}")


class _Odd(Exception):
    def __init__(self, line: int, cause: str) -> None:
        super().__init__(cause)
        self.line = line


def parse_expectations(raw: bytes) -> tuple[list[Expectation], list[Finding]]:
    """The expectations in the file, and what is wrong with those that are none."""
    try:
        root = read_yaml(raw)
        items = _fields(root, {"expectations"}, set())["expectations"]
        if not isinstance(items.value, list) or not 1 <= len(items.value) <= MOST:
            raise _Odd(items.line, f"expectations must be a list of 1 to {MOST}")
    except (YamlRefused, _Odd) as error:
        return [], [Finding(EXPECTATIONS, error.line, str(error))]
    good: list[Expectation] = []
    bad: list[Finding] = []
    for item in items.value:
        try:
            good.append(_expectation(item))
        except _Odd as error:
            bad.append(Finding(EXPECTATIONS, error.line, str(error)))
    return good, bad


def _expectation(item: Lined) -> Expectation:
    fields = _fields(item, {"name", "input", "expect"}, set())
    expect = _fields(fields["expect"], {"effect"}, {"reasons", "obligations"})
    effect = expect["effect"]
    if effect.value not in _EFFECTS:
        raise _Odd(effect.line, f"effect must be one of {', '.join(_EFFECTS)}")
    return Expectation(
        name=_text(fields["name"], "name"),
        line=item.line,
        document=_document(fields["input"]),
        effect=effect.value,
        reasons=_names(expect.get("reasons"), "reasons"),
        obligations=_names(expect.get("obligations"), "obligations"),
    )


def _document(given: Lined) -> dict[str, Any]:
    """The whole input document, as the decision path would write it."""
    fields = _fields(given, {"agent", "action", "resource", "time"}, _LEFT_OUT)
    agent = _fields(fields["agent"], {"id"}, {"proof", "roles", "attributes"})
    resource = _fields(fields["resource"], {"type", "id"}, set())
    return {
        "agent": {
            "id": _text(agent["id"], "agent.id"),
            "proof": _or(agent.get("proof"), lambda proof: _text(proof, "agent.proof"), "asserted"),
            "roles": _or(agent.get("roles"), lambda value: list(_names(value, "agent.roles") or ()), []),
            "attributes": _or(agent.get("attributes"), lambda value: _object(value, "agent.attributes"), {}),
        },
        "action": _text(fields["action"], "action"),
        "resource": {name: _text(resource[name], f"resource.{name}") for name in ("type", "id")},
        "arguments": _or(fields.get("arguments"), lambda value: _object(value, "arguments"), {}),
        "context": _or(fields.get("context"), lambda value: _object(value, "context"), {}),
        "purpose": _or(fields.get("purpose"), _any_text, ""),
        "time": _time(fields["time"]),
        "executor": None,
        "delegation": _each(fields.get("delegation"), "delegation", lambda each: _leave(each, agent["id"])),
        "approvals": _each(fields.get("approvals"), "approvals", _approval),
    }


def _each(given: Lined | None, name: str, read: Callable[[Lined], dict[str, Any]]) -> list[dict[str, Any]]:
    if given is not None and not isinstance(given.value, list):
        raise _Odd(given.line, f"{name} must be a list")
    return [] if given is None else [read(each) for each in given.value]


def _approval(given: Lined) -> dict[str, Any]:
    fields = _fields(given, {"id"}, {"roles", "attributes", "time"})
    return {**_known(fields, "approvals"), "time": _or(fields.get("time"), _time, _EARLY)}


def _leave(given: Lined, to: Lined) -> dict[str, Any]:
    """One delegation, by default of everything, to the agent, for long."""
    fields = _fields(given, {"from"}, {"to", "actions", "resources", "not_before", "not_after"})
    giver = _fields(fields["from"], {"id"}, {"kind", "roles", "attributes"})
    kind = _or(giver.get("kind"), lambda value: _text(value, "delegation.from.kind"), "user")
    return {
        "from": {**_known(giver, "delegation.from"), "kind": kind},
        "to": _text(fields.get("to", to), "delegation.to"),
        "actions": list(_names(fields.get("actions"), "delegation.actions") or ("*",)),
        "resources": list(_names(fields.get("resources"), "delegation.resources") or ("*",)),
        "not_before": _or(fields.get("not_before"), _time, _EARLY),
        "not_after": _or(fields.get("not_after"), _time, _LATE),
    }


def _known(fields: dict[str, Lined], name: str) -> dict[str, Any]:
    """What a registry says of somebody."""
    return {
        "id": _text(fields["id"], f"{name}.id"),
        "roles": _or(fields.get("roles"), lambda value: list(_names(value, f"{name}.roles") or ()), []),
        "attributes": _or(fields.get("attributes"), lambda value: _object(value, f"{name}.attributes"), {}),
    }


def _fields(of: Lined, needed: set[str], allowed: set[str] | frozenset[str]) -> dict[str, Lined]:
    if not isinstance(of.value, dict):
        raise _Odd(of.line, f"must be a mapping with {', '.join(sorted(needed))}")
    if missing := sorted(needed - of.value.keys()):
        raise _Odd(of.line, f"{missing[0]} is missing")
    if unknown := sorted(of.value.keys() - needed - allowed):
        known = ", ".join(sorted(needed | allowed))
        raise _Odd(of.value[unknown[0]].line, f"{unknown[0]!r} is not known here; known are {known}")
    return of.value


def _or(given: Lined | None, read: Callable[[Lined], Any], otherwise: Any) -> Any:
    return otherwise if given is None else read(given)


def _text(given: Lined, name: str) -> str:
    if not isinstance(given.value, str) or not given.value:
        raise _Odd(given.line, f"{name} must be text; put it in quotes")
    return given.value


def _any_text(given: Lined) -> str:
    return given.value if given.value == "" else _text(given, "purpose")


def _object(given: Lined, name: str) -> dict[str, Any]:
    if not isinstance(given.value, dict):
        raise _Odd(given.line, f"{name} must be a mapping")
    made: dict[str, Any] = given.plain()
    return made


def _names(given: Lined | None, name: str) -> tuple[str, ...] | None:
    if given is None:
        return None
    if not isinstance(given.value, list):
        raise _Odd(given.line, f"{name} must be a list")
    return tuple(sorted(_text(inner, name) for inner in given.value))


def _time(given: Lined) -> str:
    """With nine digits of a second, as policies get it."""
    found = _TIME.fullmatch(given.value) if isinstance(given.value, str) else None
    try:
        if found is None:
            raise ValueError
        datetime.datetime.fromisoformat(found[1])
    except ValueError:
        raise _Odd(given.line, "time must be a UTC time such as 2026-11-23T12:00:00Z") from None
    return f"{found[1]}.{(found[2] or '').ljust(9, '0')}Z"


def _words(effect: str, reasons: tuple[str, ...] | None, obligations: tuple[str, ...] | None) -> str:
    because = "" if reasons is None else f" for [{', '.join(sorted(reasons))}]"
    duties = "" if obligations is None else f" with duties [{', '.join(obligations)}]"
    return f"{effect}{because}{duties}"
