"""JSON to and from an engine: the quick way and the exact way say the same, and what is not strict is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import EngineError, PolicyMisshaped
from sidecar.policy.document import _decode_exactly, _encode_exactly, check_result, decode_answer, encode_input

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def outcome(call: Any, *arguments: Any) -> tuple[str, object]:
    """What came of it; keys in their order."""
    try:
        return "value", json.dumps(call(*arguments))
    except EngineError as error:
        return type(error).__name__, str(error)


@given(st.dictionaries(st.text(max_size=8), VALUES, max_size=4))
def test_both_ways_of_writing_mean_the_same(document: dict[str, Any]) -> None:
    written = encode_input(document)
    assert json.loads(written) == json.loads(_encode_exactly(document)) == document


@given(VALUES, st.booleans(), st.booleans())
def test_both_ways_of_reading_give_the_same(value: object, spaced: bool, newline: bool) -> None:
    raw = json.dumps(value, ensure_ascii=False, separators=None if spaced else (",", ":")).encode() + b"\n" * newline
    assert outcome(decode_answer, raw) == outcome(_decode_exactly, raw)


@pytest.mark.parametrize(
    "raw",
    [b'{"a":1,"a":1}', b'{"a":{"b":1,"b":2}}', b"NaN", b"[Infinity]", b'{"a":1}x', b"", b"\xff", b"[" * 100_000],
)
def test_what_is_not_strict_json_is_refused(raw: bytes) -> None:
    with pytest.raises(EngineError):
        decode_answer(raw)


def test_members_come_in_the_order_of_their_names() -> None:
    for raw in (b'{"b":1,"a":{"d":1,"c":2}}', b'{"b": 1, "a": {"d": 1, "c": 2}}'):
        assert json.dumps(decode_answer(raw)) == '{"a": {"c": 2, "d": 1}, "b": 1}'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", {1, 2}, b"x", object()])
def test_what_json_cannot_carry_is_not_sent(value: object) -> None:
    with pytest.raises(EngineError):
        encode_input({"a": None, "b": [value]})
    with pytest.raises(EngineError):
        encode_input({"a": "null", "b": value})


def test_a_null_is_sent_as_it_is() -> None:
    assert encode_input({"a": None, "b": "null"}) == b'{"a":null,"b":"null"}'


@pytest.mark.parametrize("value", [2**53, -(2**53), float("nan"), "\ufdd0", {"\ud800": 1}])
def test_a_result_beyond_i_json_is_refused(value: object) -> None:
    with pytest.raises(PolicyMisshaped):
        check_result({"a": [value]})
    within = {"a": [2**53 - 1, "\ufffd", 1.5, None, True]}
    assert check_result(within) is within


@pytest.mark.parametrize("value", [{1: 2}, (1, 2), b"x", {3}, object()])
def test_a_result_that_is_no_json_is_refused(value: object) -> None:
    with pytest.raises(PolicyMisshaped, match="no JSON"):
        check_result({"a": value})


def test_depth_is_bounded() -> None:
    value: list[Any] = []
    for _ in range(62):
        value = [value]
    assert check_result(value) == value
    with pytest.raises(PolicyMisshaped, match="nested"):
        check_result([[value]])
