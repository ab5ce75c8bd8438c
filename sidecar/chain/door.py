"""The door that a request came through: the member ``door`` of its context (proto/DOORS.md, "The door in the context").

{"door": {"kind": "envoy", "route": "payments"}}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from sidecar.chain import strictjson
from sidecar.chain.limits import MAX_DEPTH
from sidecar.errors import Malformed

SERVED: Final = frozenset({"authzen", "envoy"})
"""Doors that the sidecar itself serves to gateways: nobody else may say that a request came through one."""

_KIND: Final = re.compile(r"\A[a-z][a-z0-9-]{0,31}\Z")


def read(context: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The door of a parsed context; None where it names none.

    Raises:
        Malformed: what it names is none.
    """
    if "door" not in context:
        return None
    door = context["door"]
    if not isinstance(door, dict) or not isinstance(door.get("kind"), str) or not _KIND.match(door["kind"]):
        raise Malformed("must be an object whose kind is 1 to 32 of a-z, 0-9 and -, a letter first")
    return door


def recorded(context: str) -> Mapping[str, Any] | None:
    """The door in a recorded context; None also where it cannot be told, as where it is sealed."""
    try:
        return read(strictjson.parse_object(context.encode(), max_depth=MAX_DEPTH)) if context else None
    except Malformed:
        return None
