"""JSON pointers: the examples of RFC 6901, and the spots of a text."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sidecar.chain import pointer
from sidecar.errors import Malformed

RFC: dict[str, Any] = {
    "foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4, "i\\j": 5, 'k"l': 6, " ": 7, "m~n": 8,
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", RFC), ("/foo", RFC["foo"]), ("/foo/0", "bar"), ("/", 0), ("/a~1b", 1), ("/c%d", 2), ("/e^f", 3),
        ("/g|h", 4), ("/i\\j", 5), ('/k"l', 6), ("/ ", 7), ("/m~0n", 8),
    ],
)  # fmt: skip
def test_rfc_6901_section_5(text: str, value: Any) -> None:
    assert pointer.get(RFC, text) == value
    assert pointer.join(pointer.split(text)) == text


@pytest.mark.parametrize(
    "text", ["foo", "/m~n", "/m~2n", "/foo/2", "/foo/-", "/foo/00", "/foo/-1", "/foo/1e0", "/nothing", "/foo/0/0", "~"]
)
def test_what_leads_to_nothing(text: str) -> None:
    with pytest.raises(Malformed):
        pointer.get(RFC, text)
    with pytest.raises(Malformed):
        pointer.put(RFC, text, 1)


def test_put() -> None:
    value = json.loads(json.dumps(RFC))
    pointer.put(value, "/foo/1", {"x": 1})
    pointer.put(value, "/foo/1/x", 2)
    pointer.put(value, "/a~1b", None)
    assert value["foo"] == ["bar", {"x": 2}] and value["a/b"] is None


TEXTS = [
    '{"a":1}', ' { "a" : [ 1 , "x,]}\\"" , {} ] ,\n"~/é\\u00e9":{"":null} }\t', "[]", '"x"', " -1.5e+3 ", "true",
    '[[[["a"]],[]],{"b":{"c":[0,0]}}]', '{"\\ud83d\\ude00":"\\ud83d\\ude00"}',
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_spots_are_what_a_parser_finds(text: str) -> None:
    """Every spot's bytes are the value that its pointer leads to, and every value has one."""
    data, value = text.encode(), json.loads(text)
    spots = pointer.spots(data)
    assert [spot.pointer for spot in spots] == list(every(value, ""))
    for spot in spots:
        found = pointer.get(value, spot.pointer)
        assert json.loads(data[spot.start : spot.end]) == found and data[spot.start : spot.end].strip()


def every(value: Any, at: str) -> Any:
    yield at
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in inner:
        yield from every(each, at + pointer.join([name]))
