"""Plain DECISIONs, which are read by type: never told of one that the definition refuses, and never otherwise."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.chain import strictjson
from sidecar.chain.entry import LAYOUT, EntryType, payload_commit
from sidecar.chain.limits import NO_SEQ, ZERO16
from sidecar.verify import plain
from sidecar.verify.contents import Told, needed, read, tell
from tests.fuzz.examples import fuzz, mutated
from tests.scribe import Scribe

_SALT = bytes(32)
_NO_JSON_TEXT = [
    "{",
    "[]",
    "1",
    '{"a":1,"a":2}',
    '{"a":1e400}',
    '{"a":9007199254740993}',
    '{"a":"\\ud800"}',
    "\ufeff{}",
]
_DEEP = [("[" * n + "]" * n) for n in (1, 60, 62, 63, 64, 65, 300)]
_TEXTS = [
    "",
    "ALLOW",
    "REQUIRE_APPROVAL",
    "asserted",
    "mtls",
    "signature",
    "x" * 2_000,
    "\x7f\t\u0000",
    "\uffff",
    "\ufdd0",
    "é",
]
_VALUES: list[Any] = [None, True, 0, -1, 2**53, 1.5, 1e300, [], {}, [{}], {"a": [1]}, *_TEXTS, *_NO_JSON_TEXT]
_VALUES += [
    "2026-02-30T00:00:00.000000000Z",
    "2026-01-01T00:00:00Z",
    "A" * 64,
    "a" * 64,
    "QQ=",
    "QQ==",
    "-0",
    "01",
    "policy",
]
_VALUES += [f'{{"a":{deep}}}' for deep in _DEEP] + [json.loads(deep) for deep in _DEEP[:-1]]
_TWISTS = [
    '{"a":1,"a":2}',
    "1e400",
    "9007199254740993",
    "NaN",
    '"\\u00e9"',
    '"\\ud800"',
    '"\\uffff"',
    " 1",
    "1.0",
    "-0",
    *_DEEP,
]


def originals() -> list[bytes]:
    s = Scribe("plain")
    values = [
        s.decision_value(effect, proof) for effect in ("ALLOW", "DENY") for proof in ("asserted", "mtls", "gateway")
    ]
    values.append(
        values[0] | {"agent": values[0]["agent"] | {"proof": "signature", "statement": "", "signature": "", "key": ""}}
    )
    values.append(s.decision_value("ALLOW", executor="payer"))
    values.append(values[0] | {"enforced": False, "effect": "DENY", "registry": {"revision": "r", "digest": "0" * 64}})
    values.append(
        values[0] | {"obligations": [{"kind": "log", "parameters": {"level": "full"}}], "result": {"ü": [1.5]}}
    )
    return [strictjson.dumps(value) for value in values]


ORIGINALS = originals()


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, each in inner for place in places(each, (*at, key)))]


def both(data: bytes, ref_seq: int, agent_tag: bytes, count: int) -> tuple[Told, Told | None, Told]:
    """What the definition says, and what is told in its place: to this process, and to another."""
    fields = (
        b"SDCREC\0\1",
        3,
        1,
        0,
        0,
        9,
        1,
        bytes(32),
        bytes(32),
        payload_commit(_SALT, data),
        max(2, len(data)),
        count,
    )
    header = LAYOUT.pack(*fields, 5, 5, 1, 0, ref_seq, agent_tag)
    body, cut = header + bytes(32) + _SALT + b"\0" + data, LAYOUT.unpack(header)
    return read(EntryType.DECISION, cut, body), tell(body), needed(EntryType.DECISION, cut, body)


def assert_same(data: bytes, ref_seq: int = NO_SEQ, agent_tag: bytes = ZERO16, count: int = 0) -> None:
    due, told, here = both(data, ref_seq, agent_tag, count)
    told, here = (each.value() if isinstance(each, plain.Plain) else each for each in (told, here))
    if isinstance(due, dict):
        assert isinstance(told, dict) and isinstance(here, dict)
        assert told == {name: due[name] for name in told}
        assert told == {name: here[name] for name in told}
    else:
        assert told == here == due


@given(
    mutated(ORIGINALS) | st.sampled_from(ORIGINALS),
    st.sampled_from([NO_SEQ, NO_SEQ, NO_SEQ, 3]),
    st.sampled_from([ZERO16, b"t" * 16]),
    st.sampled_from([0, 0, 0, 1]),
)
@fuzz(500)
def test_told_as_by_the_definition(data: bytes, ref_seq: int, agent_tag: bytes, count: int) -> None:
    assert_same(data, ref_seq, agent_tag, count)


@pytest.mark.parametrize("original", [0, 1, 6, 8, 9])
def test_any_value_anywhere(original: int) -> None:
    """Each value of the payload replaced by each of many, in the bytes that our writer would make of it."""
    tag = b"t" * 16 if original in (1, 6) else ZERO16
    for *way, last in filter(None, places(json.loads(ORIGINALS[original]))):
        for value in _VALUES:
            changed = json.loads(ORIGINALS[original])
            parent = changed
            for step in way:
                parent = parent[step]
            parent[last] = value
            assert_same(
                json.dumps(changed, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass"),
                agent_tag=tag,
            )


@pytest.mark.parametrize(
    "put", [b",", b" ", b'"', b"\\", b"}", b"{", b"0", b"e", b"\xff", b'"type":"DECISION",', b'"effect":"ALLOW",']
)
def test_any_byte_anywhere(put: bytes) -> None:
    """Put in between any two bytes, and in place of any one."""
    data = ORIGINALS[9]
    for at in range(len(data) + 1):
        assert_same(data[:at] + put + data[at:])
        assert_same(data[:at] + put + data[at + 1 :])


@pytest.mark.parametrize("twist", _TWISTS)
def test_any_spelling_of_a_value(twist: str) -> None:
    """JSON that our writer does not write, in place of each null and number, and of the values of strings."""
    text = ORIGINALS[9].decode()
    for found in re.finditer(r'(?<=[:\[,])(?:null|1\.5|true|"[^"\\]*+"(?!:))', text):
        assert_same((text[: found.start()] + twist + text[found.end() :]).encode("utf-8", "surrogatepass"))


def test_most_are_read_by_type() -> None:
    """Whatever else: what these tests compare are two ways, and not one."""
    tagged = [index in (1, 2, 4, 5) for index in range(len(ORIGINALS))]
    assert [plain.told(data, tagged=tag) is not None for data, tag in zip(ORIGINALS, tagged, strict=True)] == [
        True
    ] * 6 + [False] * 2 + [True] * 2
