"""What the schema of OCSF says of the classes and objects that events here use, and an event held against it.

`ocsf-1.9.json` is an extract of facts; what it was made of stands in it under `source`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

FACTS: Final[dict[str, Any]] = json.loads(Path(__file__).with_name("ocsf-1.9.json").read_text())
_TYPES: Final = {"string_t": str, "integer_t": int, "long_t": int, "timestamp_t": int, "boolean_t": bool}
_FREE: Final = "object"  # the one object that may hold anything: `unmapped`
_OTHER: Final = 99

Told = Mapping[str, Any]


def faults(event: Told) -> list[str]:
    """What is wrong with an event, each with its place; none: the schema allows it."""
    known = FACTS["classes"].get(str(event.get("class_uid")))
    if known is None:
        return [f"class_uid: no class {event.get('class_uid')} is used here"]
    profiles = set(event.get("metadata", {}).get("profiles", ()))
    found = [f"metadata.profiles: {name} is not for this class" for name in profiles - set(known["profiles"])]
    return [*found, *_of_class(event, known), *_members("", event, known, profiles)]


def _of_class(event: Told, known: Told) -> Iterator[str]:
    activity = event.get("activity_id")
    due = {
        "type_uid": event["class_uid"] * 100 + activity if isinstance(activity, int) else None,
        "category_uid": known["category_uid"],
        "category_name": known["category_name"],
        "class_name": known["caption"],
    }
    for name, value in due.items():
        if event.get(name) != value:
            yield f"{name}: {event.get(name)}, not {value}"


def _members(place: str, value: Told, known: Told, profiles: set[str]) -> Iterator[str]:
    attributes: Mapping[str, Any] = known["attributes"]
    for name, inner in value.items():
        attribute = attributes.get(name)
        if attribute is None:
            yield f"{place}{name}: unknown"
        elif attribute.get("deprecated"):
            yield f"{place}{name}: deprecated"
        elif not profiles.issuperset(attribute.get("profiles", ())) and not profiles & set(attribute["profiles"]):
            yield f"{place}{name}: of the profiles {attribute['profiles']}, none of which is declared"
        else:
            yield from _value(f"{place}{name}", inner, attribute, profiles)
            yield from _caption(place, value, inner, attribute)
    for name, attribute in attributes.items():
        of_profile = "profiles" in attribute and not profiles & set(attribute["profiles"])
        if attribute["requirement"] == "required" and not of_profile and name not in value:
            yield f"{place}{name}: required"
    for rule, names in known.get("constraints", {}).items():
        count = sum(name in value for name in names)
        if not (count >= 1 if rule == "at_least_one" else count == 1):
            yield f"{place[:-1]}: {rule} of {names}"


def _value(place: str, value: Any, attribute: Told, profiles: set[str]) -> Iterator[str]:
    if attribute.get("array"):
        if not isinstance(value, list):
            yield f"{place}: no array"
            return
        for number, each in enumerate(value):
            yield from _one(f"{place}[{number}]", each, attribute, profiles)
    else:
        yield from _one(place, value, attribute, profiles)


def _one(place: str, value: Any, attribute: Told, profiles: set[str]) -> Iterator[str]:
    if "object" in attribute:
        if not isinstance(value, dict):
            yield f"{place}: no object"
        elif attribute["object"] not in FACTS["objects"]:
            yield f"{place}: object {attribute['object']} is not used here"
        elif attribute["object"] != _FREE:
            yield from _members(f"{place}.", value, FACTS["objects"][attribute["object"]], profiles)
        return
    if type(value) is not _TYPES[attribute["type"]]:
        yield f"{place}: {value!r} is no {attribute['type']}"
    if "enum" in attribute and str(value) not in attribute["enum"]:
        yield f"{place}: {value!r} is none of {[*attribute['enum']]}"


def _caption(place: str, of: Told, value: Any, attribute: Told) -> Iterator[str]:
    """What stands beside an id in words is the id's caption, or, beside 99, the source's own word."""
    sibling = attribute.get("sibling")
    if sibling is None or "enum" not in attribute or isinstance(value, list) or str(value) not in attribute["enum"]:
        return
    if sibling in of and value != _OTHER and of[sibling] != attribute["enum"][str(value)]:
        yield f"{place}{sibling}: {of[sibling]!r} beside the id of {attribute['enum'][str(value)]!r}"
    if value == _OTHER and sibling not in of:
        yield f"{place}{sibling}: required beside 99"
