"""Messages as the gateway reads them: what two readers could understand in two ways is refused."""

from __future__ import annotations

import asyncio
import json
import re
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.enforce.mcp.canonical import canonical
from sidecar.enforce.mcp.frame import BadFrame, elements, members, read, replaced
from sidecar.enforce.mcp.kinds import TOOL, digest_of
from sidecar.enforce.mcp.lines import Overlong
from tests.enforce.sides import whole

CALL = b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"w","arguments": {"b":1.50, "a":"\\u00e4"}}}'


def test_what_is_judged_is_the_text_as_it_came() -> None:
    frame = read(CALL, strict=True)
    assert members(frame.params_text)["arguments"].text == '{"b":1.50, "a":"\\u00e4"}'
    assert frame.raw == CALL


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"[" + CALL + b"]", -32600),  # a batch
        (b"", -32700),
        (b"{", -32700),
        (b"7", -32700),
        (b"null", -32700),
        (CALL + b"}", -32700),
        (CALL + b" " + CALL, -32700),
        (b"\xef\xbb\xbf" + CALL, -32700),
        (CALL.replace(b'"w"', b'"\xff"'), -32700),
        (CALL.replace(b"1.50", b"NaN"), -32700),
        (CALL.replace(b"1.50", b"1e999"), -32700),
        (CALL.replace(b"1.50", b"9007199254740993"), -32700),
        (CALL.replace(b"\\u00e4", b"\\ud800"), -32700),
        (CALL.replace(b"1.50", b"[" * 100 + b"]" * 100), -32700),
        (CALL.replace(b'"b":1.50', b'"a":1.50'), -32700),  # twice in the arguments
        (CALL.replace(b'"name":"w"', b'"name":"w","name":"x"'), -32700),
        (CALL.replace(b'"id":7', b'"id":7,"id":8'), -32700),
        (CALL.replace(b'"id":7', b'"id":7,"Method":"tools/list"'), -32600),  # Go finds a member in any case
        (CALL.replace(b'"id":7', b'"id":7,"result":{}'), -32600),
        (CALL.replace(b'"2.0"', b'"1.0"'), -32600),
        (CALL.replace(b'"jsonrpc":"2.0",', b""), -32600),
        (CALL.replace(b'"tools/call"', b"7"), -32600),
        (b'{"jsonrpc":"2.0","id":7,"method":"ping","params":[1]}', -32600),
        *((CALL.replace(b'"id":7', b'"id":' + each), -32600) for each in (b"null", b"true", b"[]", b"{}", b"1e300")),
        (CALL.replace(b'"id":7', b'"id":"' + b"x" * 257 + b'"'), -32600),
        (b'{"jsonrpc":"2.0","id":7}', -32600),
        (b'{"jsonrpc":"2.0","id":7,"result":{},"error":{}}', -32600),
        (b'{"jsonrpc":"2.0","result":{}}', -32600),
    ],
)
def test_what_is_no_message_is_refused(raw: bytes, code: int) -> None:
    with pytest.raises(BadFrame) as refused:
        read(raw, strict=True)
    assert refused.value.code == code
    assert "tools/call" not in str(refused.value)


@pytest.mark.parametrize("id_", [b"0", b"-1", b"1.5", b'""', b'"7"', b'"\\u0037"', b"9007199254740991"])
def test_ids_of_all_types(id_: bytes) -> None:
    frame = read(CALL.replace(b'"id":7', b'"id":' + id_), strict=True)
    assert frame.id_text == id_.decode()
    assert frame.id is not None and frame.id[1] == json.loads(id_)
    assert (frame.id == read(CALL, strict=True).id) is False


def test_white_space_cannot_part_a_message_in_two() -> None:
    """A server that takes a carriage return for the end of a line would find a second message inside of this one."""
    inner = b'{"jsonrpc":"2.0","id":8,"method":"tools/call","params":{"name":"rm"}}'
    raw = b'{"jsonrpc":"2.0","id":7,"method":"ping","params":{"_meta":{"a":\r' + inner + b"\r\n}}}"
    passed = read(raw, strict=True).raw
    assert b"\r" not in passed and b"\n" not in passed
    assert len(passed) == len(raw)


@settings(max_examples=150, deadline=None)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**53) + 1, 2**53 - 1)
        | st.text()
        | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=12,
    ),
    st.booleans(),
)
def test_texts_are_found_where_they_lie(value: object, ascii_only: bool) -> None:
    whole_text = json.dumps({"a": [value, value], "b": value}, ensure_ascii=ascii_only, indent="\t").replace("\n", " ")
    found = members(whole_text)
    assert json.loads(found["b"].text) == value == found["b"].value
    parts = elements(found["a"].text)
    assert [json.loads(part) for part in parts] == [value, value]
    assert json.loads(replaced(found, {"a": "7"})) == {"a": 7, "b": value}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\n", b"")), max_size=6), st.integers(1, 20))
def test_lines_are_the_same_in_whatever_pieces_they_come(parts: list[bytes], piece: int) -> None:
    stream = b"".join(part + b"\n" for part in parts)
    found = asyncio.run(whole(stream, 40, piece))
    assert found == [part.strip() for part in parts if part.strip()]


@pytest.mark.parametrize(
    ("head", "tail", "answers"),
    [
        (b'{"jsonrpc":"2.0","id":7,"result":"', b'"}', ("number", 7)),
        (b'{"id":"7","result":"', b'","jsonrpc":"2.0"}', ("string", "7")),
        (b'{"result":"', b'","jsonrpc":"2.0","id":7}', ("number", 7)),
        (b'{"result":{"a":"', b'"} , "id" : "x\\"y" , "jsonrpc":"2.0" } ', ("string", 'x"y')),
        (b'{"result":"', b',\\"id\\":7}"}', None),  # in a text
        (b'{"result":{"a":"', b'","id":7}}', None),  # not the message's own
        (b'{"result":"', b'"}', None),
    ],
)
@pytest.mark.parametrize("piece", [100, 5_000])
def test_a_line_beyond_the_bound_tells_which_request_it_answers(
    head: bytes, tail: bytes, answers: object, piece: int
) -> None:
    line = head + b"x" * 10_000 + tail
    (found,) = asyncio.run(whole(line + b"\n", 9_000, piece))
    assert found == Overlong(len(line), answers)  # type: ignore[arg-type]


@settings(max_examples=300, deadline=None)
@given(st.data(), st.booleans())
def test_whatever_comes_it_is_refused_or_read_as_any_other_reader_does(data: st.DataObject, strict: bool) -> None:
    start = bytearray(
        data.draw(
            st.sampled_from(
                [CALL, CALL.replace(b"arguments", b"_meta"), b'{"jsonrpc":"2.0","id":"x","result":{"a":[1,{}]}}']
            )
        )
    )
    for at, byte in data.draw(
        st.lists(st.tuples(st.integers(0, len(start) - 1), st.sampled_from(b'{}[]",:0a\\ \r\n\xff')), max_size=4)
    ):
        start[at] = byte
    try:
        frame = read(bytes(start), strict=strict)
    except BadFrame:
        return
    plain = json.loads(frame.raw)
    assert {name: member.value for name, member in frame.members.items()} == plain
    assert {name: json.loads(member.text) for name, member in frame.members.items()} == plain
    assert b"\n" not in frame.raw and b"\r" not in frame.raw and len(frame.raw) == len(start)


def test_the_digest_in_the_specification_is_right() -> None:
    """And what it says of it gives that digest by another JSON writer."""
    page = (Path(__file__).parent.parent.parent / "proto" / "DOORS.md").read_text()
    example, digest = re.findall(r"For instance the tool\n\n    (\{.*\})\n\nhas the digest `([0-9a-f]{64})`", page)[0]
    tool = json.loads(example)
    assert digest_of(TOOL, tool) == digest
    tool["inputSchema"]["maxProperties"] = 2  # ECMAScript writes 2.0 so
    plain = json.dumps(tool, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    assert sha256(b"sidecar/v1/mcp-tool\0" + plain).hexdigest() == digest


def test_a_tool_that_no_file_could_hold_has_no_digest() -> None:
    nested: object = 1
    for _ in range(60):
        nested = [nested]
    assert len(digest_of(TOOL, {"name": "a", "inputSchema": nested[0]})) == 64  # type: ignore[index]
    for bad in ({"a": nested}, {"a": 2**53}, {"a": "\ud800"}, {"a": "\uffff"}, {"\ufdd0": 1}):
        with pytest.raises(ValueError):
            digest_of(TOOL, bad)
    for _ in range(5_000):
        nested = [nested]
    with pytest.raises(ValueError):
        digest_of(TOOL, {"a": nested})


def test_canonical_json_is_that_of_rfc_8785() -> None:
    """Its own examples (sections 3.2.2 and 3.2.3, appendix B)."""
    numbers = {
        333333333.33333329: "333333333.3333333", 1e30: "1e+30", 4.50: "4.5", 2e-3: "0.002", 1e-27: "1e-27",
        -0.0: "0", 5e-324: "5e-324", 1.7976931348623157e308: "1.7976931348623157e+308",
        9007199254740992.0: "9007199254740992", 295147905179352830000.0: "295147905179352830000",
        9.999999999999997e22: "9.999999999999997e+22", 1e23: "1e+23", 1e21: "1e+21", 1e-6: "0.000001",
        1e-7: "1e-7", 999999999999999.8: "999999999999999.8",
        -0.0000033333333333333333: "-0.0000033333333333333333",
    }  # fmt: skip
    for number, text in numbers.items():
        assert canonical(number) == text.encode()
    unsorted = {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\x80": 6, "\xf6": 7}
    assert list(json.loads(canonical(unsorted)).values()) == [2, 4, 6, 7, 1, 5, 3]
    assert canonical('\u20ac$\u000f\nA\'B"\\\\"/') == '"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"'.encode()
    for bad in (float("nan"), float("inf"), 2**53, "\ud800"):
        with pytest.raises(ValueError):
            canonical(bad)
