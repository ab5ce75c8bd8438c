"""Strict JSON: the two paths agree, and each rule of RFC 7493 is kept by both."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.chain import strictjson
from sidecar.errors import Malformed

LIMIT = 2**53 - 1

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.integers(-LIMIT - 2, -LIMIT + 2)
    | st.integers(LIMIT - 2, LIMIT + 2)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def outcome(read: Any, *arguments: Any) -> tuple[str, str]:
    """What came back, type and sign included (``repr`` tells 1 from 1.0 and 0.0 from -0.0), or that it was refused."""
    try:
        return "value", repr(read(*arguments))
    except Malformed as error:
        return "refused", str(error)


def agree(data: bytes) -> None:
    strictly = outcome(strictjson.parse, data)
    assert strictly == outcome(strictjson._parse_exactly, data, 64)
    known = outcome(strictjson.parse_known, data)
    assert known == strictly or "refused" in (known[0], strictly[0])


@given(st.binary(max_size=40))
def test_wild_bytes_fare_alike_on_both_paths(data: bytes) -> None:
    agree(data)


@given(st.text('[]{}:,"\\u0123456789abcdefDdEe+-.truefalsn \n\ufeff\uffff\ufdd0é😀', max_size=40))
@example('{"a":1,"\\u0061":2}')
@example('"\\ud83d\\ude00"')
def test_text_of_json_characters_fares_alike_on_both_paths(text: str) -> None:
    agree(text.encode())


@given(values, st.booleans(), st.sampled_from([None, 1]), st.data())
def test_written_and_then_damaged_json_fares_alike_on_both_paths(
    value: Any, ascii_only: bool, indent: int | None, data: st.DataObject
) -> None:
    written = json.dumps(value, ensure_ascii=ascii_only, indent=indent, separators=(",", ":")).encode()
    agree(written)
    start = data.draw(st.integers(0, len(written)))
    end = data.draw(st.integers(start, min(len(written), start + 3)))
    agree(written[:start] + data.draw(st.binary(max_size=3)) + written[end:])
    agree(written[:start] + written[end:] + written[start:end])


@given(values, st.integers(1, 8))
def test_depth_is_the_same_on_both_paths(value: Any, max_depth: int) -> None:
    """Of a value and of its text, with brackets in strings, and more of them than the quick count lets pass."""
    written = json.dumps([value, "[{" * 9, []], ensure_ascii=False, separators=(",", ":")).encode()
    assert outcome(lambda: strictjson.parse(written, max_depth=max_depth)) == outcome(
        strictjson._parse_exactly, written, max_depth
    )


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_the_nearest_binary64(number: float) -> None:
    assert repr(strictjson.parse(repr(number).encode())) == repr(number)
    assert repr(strictjson.parse(orjson.dumps(number))) == repr(number)


@given(values, st.integers(1, 8))
@example(["\ufdd0"], 8)
@example({"\U0001ffff": "\ufffd"}, 8)
@example([[], [], [[]]], 2)
def test_what_dumps_writes_is_held_to_the_same(value: Any, max_depth: int) -> None:
    try:
        written = strictjson.dumps(value)
    except Malformed:
        return
    assert outcome(lambda: strictjson.parse_written(written, max_depth=max_depth)) == outcome(
        strictjson._parse_exactly, written, max_depth
    )


@given(values)
def test_what_dumps_writes_is_what_parse_reads(value: Any) -> None:
    try:
        written = strictjson.dumps(value)
        read = strictjson.parse(written)
    except Malformed:
        return  # an integer out of range or a noncharacter: the tests below say which
    assert repr(read) == repr(value)
    assert strictjson.dumps(read) == written


@given(st.integers())
def test_an_integer_is_taken_exactly_within_2_to_the_53(number: int) -> None:
    if abs(number) <= LIMIT:
        assert strictjson.parse(str(number).encode()) == number
    else:
        with pytest.raises(Malformed, match="integer beyond"):
            strictjson.parse(str(number).encode())


@given(st.characters(exclude_categories=["Cs"]), st.booleans())
@example("\ufdd0", False)
@example("\ufdef", True)
@example("\ufdcf", True)
@example("\ufdf0", False)
@example("\ufffe", True)
@example("\ufffd", False)
@example("\U0001ffff", False)
@example("\U0010fffe", True)
@example("\U0002f7ff", False)
def test_noncharacters_are_refused_raw_and_escaped(character: str, escaped: bool) -> None:
    code = ord(character)
    forbidden = 0xFDD0 <= code <= 0xFDEF or code & 0xFFFF in (0xFFFE, 0xFFFF)
    for value in (f"a{character}", {f"{character}b": 1}, [[character]]):
        data = json.dumps(value, ensure_ascii=escaped, separators=(",", ":")).encode()
        if forbidden:
            with pytest.raises(Malformed, match="noncharacter"):
                strictjson.parse(data)
        else:
            assert strictjson.parse(data) == value


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"-9007199254740991", -LIMIT),
        (b"9007199254740991", LIMIT),
        (b"9007199254740993.0", 9007199254740992.0),
        (b"1e-400", 0.0),
        (b"1e308", 1e308),
        (b"1E5", 100000.0),
        (b"0", 0),
        (b"-0", 0),
        (b" [ 1 ,\t2 ]\r\n", [1, 2]),
        (b'"\\ud83d\\ude00"', "😀"),
        (b'"\\u0000\\u001f"', "\x00\x1f"),
        ('"\x7f\ufeff"'.encode(), "\x7f\ufeff"),
        (b'{"\xc3\xa9":1,"e\xcc\x81":2}', {"\u00e9": 1, "e\u0301": 2}),  # not normalised: two keys
        (b"{}", {}),
        (b'{"b":1,"a":2}', {"b": 1, "a": 2}),
    ],
)
def test_taken(data: bytes, value: Any) -> None:
    read = strictjson.parse(data)
    assert read == value
    assert type(read) is type(value)
    agree(data)


def test_the_sign_of_a_zero_fraction_stays() -> None:
    assert math.copysign(1, strictjson.parse(b"-0.0")) == -1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"a":1,"a":1}', "key occurs twice"),
        (b'{"a":1,"\\u0061":2}', "key occurs twice"),
        (b'[{"x":{"a":1,"b":2,"a":3}}]', "key occurs twice"),
        (b'{"\\ud83d\\ude00":1,"\xf0\x9f\x98\x80":2}', "key occurs twice"),
        (b'{"":1,"":2}', "key occurs twice"),
        (b"NaN", "NaN and Infinity"),
        (b"[-Infinity]", "NaN and Infinity"),
        (b"1e400", "binary64"),
        (b"-1E400", "binary64"),
        (b"1" * 400 + b".0", "binary64"),
        (b"9007199254740992", "integer beyond"),
        (b"9007199254740993", "integer beyond"),
        (b"-9007199254740992", "integer beyond"),
        (b"18446744073709551616", "integer beyond"),
        (b"1" * 5000, "integer beyond"),
        (b'"\\ud800"', "lone surrogate"),
        (b'"\\udc00\\ud800"', "lone surrogate"),
        (b'{"\\udfff":1}', "lone surrogate"),
        (b'"\xed\xa0\x80"', "UTF-8"),
        (b'"\xc0\xaf"', "UTF-8"),
        (b'"\xff"', "UTF-8"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        ("{}".encode("utf-16"), "UTF-8"),
        (b"", "well-formed"),
        (b"{} {}", "well-formed"),
        (b"{}\x00", "well-formed"),
        (b"\x0b{}", "well-formed"),
        (b"\xc2\xa0{}", "well-formed"),
        (b"[1,]", "well-formed"),
        (b"{'a':1}", "well-formed"),
        (b"01", "well-formed"),
        (b"+1", "well-formed"),
        (b"1.", "well-formed"),
        (b".5", "well-formed"),
        ("\u0661".encode(), "well-formed"),
        (b'"\n"', "well-formed"),
        (b'"\\x41"', "well-formed"),
        (b'"\\u00_1"', "well-formed"),
        (b"[] // no", "well-formed"),
    ],
)
def test_refused(data: bytes, reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        strictjson.parse(data)
    with pytest.raises(Malformed, match=reason):
        strictjson._parse_exactly(data, 64)


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}"), (b' [ {"\\"[":', b"}]")])
def test_depth_is_bounded(opening: bytes, closing: bytes) -> None:
    levels = 2 if opening.lstrip().startswith(b"[ {") else 1
    fits = 64 // levels
    strictjson.parse(opening * fits + b"1" + closing * fits)
    with pytest.raises(Malformed, match="64 deep"):
        strictjson.parse(opening * (fits + 1) + b"1" + closing * (fits + 1))
    with pytest.raises(Malformed, match="2 deep"):
        strictjson.parse(opening * 3 + b"1" + closing * 3, max_depth=2)


def test_of_a_text_that_is_known_only_form_and_depth_are_looked_at() -> None:
    assert strictjson.parse_known(b'{"a":1,"a":[-0,1.0,"\xf0\x9f\x98\x80"]}') == {"a": [0, 1.0, "\U0001f600"]}
    assert strictjson.parse_known(b"[" * 64 + b"]" * 64) == strictjson.parse(b"[" * 64 + b"]" * 64)
    for refused in (b"[" * 65 + b"]" * 65, b'{"a":}', b"", b'"\xff"', b'"\\ud800"', b"NaN"):
        with pytest.raises(Malformed):
            strictjson.parse_known(refused)


def test_brackets_in_strings_and_beside_each_other_are_not_depth() -> None:
    assert strictjson.parse(b'["' + b"[{" * 500 + b'"]') == ["[{" * 500]
    assert strictjson.parse(b"[" + b"[],{}," * 500 + b"1]")[-1] == 1


@pytest.mark.parametrize("depth", [0, -1, strictjson.DEEPEST + 1])
def test_a_depth_that_cannot_be_kept_is_refused(depth: int) -> None:
    with pytest.raises(ValueError, match="max_depth"):
        strictjson.parse(b"1", max_depth=depth)


def test_the_greatest_depth_is_really_read() -> None:
    strictjson.parse(b" " + b"[" * strictjson.DEEPEST + b"]" * strictjson.DEEPEST, max_depth=strictjson.DEEPEST)


HOSTILE = """
from sidecar.chain import strictjson
from sidecar.errors import Malformed
n = 400_000
for data in (
    b"[" * n, b'{"a":' * n, b"]" * n, b'"' + b'\\\\"' * n, b'\\\\"' * n, b'["' + b'",["' * n, b'"\\\\' * n,
    b"1" * n, b"-" + b"1" * n, b"[" + b"1" * n, b"1e" + b"9" * n, b"1" * n + b"e5",
    b"{" + b",".join(b'"%d":1' % (i // 2) for i in range(n // 4)) + b"}",
):
    try:
        strictjson.parse(data)
    except Malformed:
        continue
    raise SystemExit(f"taken: {data[:8]!r}")
for data in (b"0." + b"0" * n + b"1", b"1." + b"3" * n, b"1e-" + b"9" * n, b"[" + b"[]," * n + b"[]]"):
    strictjson.parse(data)
"""


def test_hostile_input_costs_neither_the_stack_nor_quadratic_time() -> None:
    # In a process of its own, so that a crash is an exit code. Quadratic work on these would take hours, not a second.
    subprocess.run([sys.executable, "-c", HOSTILE], check=True, timeout=300)


def test_parse_object_takes_objects_only() -> None:
    assert strictjson.parse_object(b'{"a":[]}') == {"a": []}
    for data in (b"[]", b"1", b'"a"', b"null"):
        with pytest.raises(Malformed, match="an object is required"):
            strictjson.parse_object(data)
    with pytest.raises(Malformed, match="1 deep"):
        strictjson.parse_object(b'{"a":[]}', max_depth=1)


@pytest.mark.parametrize("value", [2**53, -(2**53), {1: 2}, b"x", {1, 2}, object(), "\ud800", {"a": 2**64}])
def test_dumps_refuses_what_json_cannot_carry(value: Any) -> None:
    with pytest.raises(Malformed, match="cannot carry") as caught:
        strictjson.dumps(value)
    assert caught.value.__context__ is None


def test_dumps_is_compact_and_keeps_the_order() -> None:
    assert strictjson.dumps({"b": [1, 2.5, None], "a": "é"}) == '{"b":[1,2.5,null],"a":"é"}'.encode()


@given(st.text("0123456789", min_size=6, max_size=30))
def test_a_refusal_never_quotes_content(secret: str) -> None:
    for data in (f'{{"{secret}":1,"{secret}":2}}', f'["{secret}', f'"{secret}\\ud800"', "9" * 17 + secret):
        with pytest.raises(Malformed) as caught:
            strictjson.parse(data.encode())
        assert secret not in str(caught.value)
        assert "\n" not in str(caught.value)
