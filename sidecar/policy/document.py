"""JSON to and from an engine, strict in both directions (RFC 8259, and RFC 7493 for what comes back).

What a policy answers is recorded in the ledger, whose payloads are I-JSON; an answer outside of that is refused here,
where it can still become a DENY with its reason.
"""

from __future__ import annotations

import json
import math
import re
from operator import itemgetter
from typing import Any, Final

import orjson

from sidecar.chain import strictjson
from sidecar.errors import EngineError, Malformed, PolicyMisshaped

MAX_RESULT_BYTES: Final = 1 << 20
_MAX_DEPTH: Final = 64
_MAX_INTEGER: Final = (1 << 53) - 1
# Python objects that have no JSON form are refused, as the standard library's encoder refuses them.
_WRITING: Final = (
    orjson.OPT_STRICT_INTEGER
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)
_NULL: Final = b"null"  # what orjson writes for NaN and infinities, too
# Lone surrogates, and the noncharacters of every plane.
_FORBIDDEN: Final = re.compile(
    "[\ud800-\udfff\ufdd0-\ufdef" + "".join(chr(p << 16 | n) for p in range(17) for n in (0xFFFE, 0xFFFF)) + "]"
)


def encode_input(document: dict[str, Any]) -> bytes:
    """The input document as compact UTF-8 JSON. Raises `EngineError` when it is not JSON."""
    # orjson writes at a tenth of the cost, and always spells a number the same way, as LEDGER.md says it. What it
    # refuses is left to the standard library, and so is whether a null stands for a NaN.
    try:
        raw = orjson.dumps(document, option=_WRITING)
    except orjson.JSONEncodeError:
        return _encode_exactly(document)
    nulls = sum(value is None for value in document.values())  # of an input, `executor` most often
    if raw.count(_NULL) != nulls and orjson.loads(raw) != document:
        _encode_exactly(document)
    return raw


def _encode_exactly(document: dict[str, Any]) -> bytes:
    try:
        text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        # the exception's text may quote the document
        raise EngineError(f"the policy input is not JSON ({type(error).__name__})") from None


def decode_answer(raw: bytes) -> object:
    """Parse JSON an engine sent, members in the order of their names, so that every engine's answer is recorded alike.

    Raises `EngineError` when it is not JSON: the engine's fault, not the policy's.
    """
    # Text that comes back the same has no duplicate key; anything else is read rule by rule.
    text = raw.rstrip(b"\n")
    try:
        value = orjson.loads(text)
        if orjson.dumps(value, option=_WRITING) == text:
            return orjson.loads(orjson.dumps(value, option=_WRITING | orjson.OPT_SORT_KEYS))
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        pass
    return _decode_exactly(raw)


def _decode_exactly(raw: bytes) -> object:
    try:
        return json.loads(raw, object_pairs_hook=_object, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise EngineError(f"the policy engine's answer is not JSON ({type(error).__name__})") from None


def check_result(value: object) -> object:
    """Return ``value`` if it is I-JSON, nested at most 64 deep; else raise `PolicyMisshaped`."""
    try:
        if strictjson.parse_written(strictjson.dumps(value), max_depth=_MAX_DEPTH) == value:
            return value
    except Malformed:
        pass
    _check(value, 1)  # which says what is wrong
    raise PolicyMisshaped("the policy's result holds what is no JSON")


def _check(value: object, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise PolicyMisshaped(f"the policy's result is nested more than {_MAX_DEPTH} deep")
    if isinstance(value, str):
        if _FORBIDDEN.search(value):
            raise PolicyMisshaped("the policy's result holds a lone surrogate or a noncharacter")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise PolicyMisshaped("the policy's result holds a number that no double can carry")
    elif isinstance(value, int):
        if abs(value) > _MAX_INTEGER:
            raise PolicyMisshaped("the policy's result holds an integer beyond 2^53-1; write it as a string")
    elif isinstance(value, list):
        for item in value:
            _check(item, depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check(key, depth)
            _check(item, depth + 1)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(sorted(pairs, key=itemgetter(0)))
    if len(made) != len(pairs):
        raise ValueError("duplicate key")
    return made


def _no_constant(name: str) -> object:
    raise ValueError(name)
