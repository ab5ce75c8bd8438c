"""Obligations that Envoy can meet: a header added or taken away before the request goes on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sidecar.policy import Obligation

ADD: Final = "add_header"
REMOVE: Final = "remove_header"
MOST: Final = 16
MAX_VALUE: Final = 4_096
_NAME: Final = re.compile(r"\A[a-z0-9][a-z0-9-]{0,63}\Z")
_VALUE: Final = re.compile(r"\A[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?\Z")
_OURS: Final = re.compile(r"\A(?:x-sidecar-|x-envoy-|proxy-)")
_FRAMING: Final = frozenset(
    {
        *("host", "content-length", "transfer-encoding", "content-type", "content-encoding", "connection"),
        *("keep-alive", "te", "trailer", "upgrade", "expect"),
    }
)
"""What says where a message goes and ends, or how its body is read: it was judged as it is."""


class CannotMeet(Exception):
    """The gateway cannot do what the ALLOW asks, so it does nothing. The text is for people."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """Headers to set, in order, and to take away."""

    set: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()


def conditions_of(obligations: Sequence[Obligation]) -> Conditions:
    """What must be done. Raises CannotMeet for any that is not known or not within its limits."""
    added: dict[str, str] = {}
    removed: list[str] = []
    if len(obligations) > MOST:
        raise CannotMeet(f"there are more than {MOST} obligations")
    for each in obligations:
        if each.kind == ADD:
            name = _name(each.parameters, {"name", "value"})
            if name in added:
                raise CannotMeet(f"the header {name} is added twice")
            added[name] = _value(each.parameters["value"])
        elif each.kind == REMOVE:
            removed.append(_name(each.parameters, {"name"}))
        else:
            raise CannotMeet("an obligation is of a kind that Envoy cannot meet")
    if added.keys() & set(removed):
        raise CannotMeet("a header is to be added and removed")
    return Conditions(tuple(added.items()), tuple(removed))


def _name(parameters: dict[str, Any], members: set[str]) -> str:
    name = parameters.get("name")
    if parameters.keys() != members or not isinstance(name, str) or not _NAME.match(name):
        raise CannotMeet("an obligation about a header does not name one in lower case")
    if name in _FRAMING or _OURS.match(name):
        raise CannotMeet(f"the header {name} is not a policy's to change")
    return name


def _value(value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_VALUE or not _VALUE.match(value):
        raise CannotMeet(f"a header's value is not 1 to {MAX_VALUE} printable ASCII characters")
    return value
