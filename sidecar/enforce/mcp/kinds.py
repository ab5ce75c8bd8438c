"""What a server tells a model of itself and of what it has, and the digest of each (`proto/DOORS.md`, Pins). No I/O.

A thing is all that the server lists of it: names, descriptions, schemas, arguments, annotations, `_meta` and whatever
else; a model may read any of it. Left out is only what changes by itself, and only where it is plainly that.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sidecar.chain import strictjson
from sidecar.enforce.mcp.canonical import canonical
from sidecar.errors import Malformed

_DEEPEST: Final = 60  # with the file around it still within 64
_TIME: Final = re.compile(r"[0-9TtZz:.+-]{1,40}")
_VERSION: Final = re.compile(r"[A-Za-z0-9.+_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Kind:
    """``word``: for people, and of the digest. ``method`` lists them, in the member ``listed``; ``name`` tells them
    apart, and has at most ``longest`` characters; ``capability``: what a server announces that has any."""

    word: str
    method: str
    listed: str
    name: str
    longest: int
    capability: str


TOOL: Final = Kind("tool", "tools/list", "tools", "name", 256, "tools")
PROMPT: Final = Kind("prompt", "prompts/list", "prompts", "name", 256, "prompts")
RESOURCE: Final = Kind("resource", "resources/list", "resources", "uri", 4_096, "resources")
TEMPLATE: Final = Kind(
    "template", "resources/templates/list", "resourceTemplates", "uriTemplate", 4_096, "resources"
)  # fmt: skip
KINDS: Final = (TOOL, PROMPT, RESOURCE, TEMPLATE)


def digest_of(kind: Kind, thing: Mapping[str, Any]) -> str:
    """SHA-256 in hex of what is listed. ValueError where it has no canonical form, or no file could hold it."""
    form = canonical(_lasting(kind, thing))
    storable(thing)
    return hashlib.sha256(f"sidecar/v1/mcp-{kind.word}\0".encode() + form).hexdigest()


def storable(value: Mapping[str, Any]) -> None:
    """ValueError for what no file of pins could hold."""
    try:
        strictjson.parse(canonical(value), max_depth=_DEEPEST)
    except Malformed as error:
        raise ValueError(str(error)) from None


def name_of(kind: Kind, thing: Any) -> str:
    """What tells a listed thing from others. ValueError for what cannot be one."""
    name = thing.get(kind.name) if isinstance(thing, dict) else None
    if not isinstance(name, str) or not 0 < len(name) <= kind.longest or not name.isprintable():
        raise ValueError(f"a {kind.word} without a {kind.name} of 1 to {kind.longest} printable characters")
    return name


def _lasting(kind: Kind, thing: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without what changes by itself: a resource's size and time."""
    if kind is not RESOURCE:
        return thing
    size, notes = thing.get("size"), thing.get("annotations")
    kept = dict(thing)
    if isinstance(size, int | float) and not isinstance(size, bool):
        del kept["size"]
    if isinstance(notes, Mapping) and _is(_TIME, notes.get("lastModified")):
        kept["annotations"] = {name: value for name, value in notes.items() if name != "lastModified"}
    return kept


def told(offered: Mapping[str, Any]) -> dict[str, Any]:
    """What a server says of itself to a model when it is greeted, without its version."""
    instructions, info = offered.get("instructions"), offered.get("serverInfo")
    about: dict[str, Any] = {} if instructions is None else {"instructions": instructions}
    if isinstance(info, Mapping):
        about["serverInfo"] = {n: v for n, v in info.items() if n != "version" or not _is(_VERSION, v)}
    return about


def _is(form: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and form.fullmatch(value) is not None
