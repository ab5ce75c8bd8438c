"""The JSON of RFC 8785: one text for one value, so that a digest can be over it. No I/O."""

from __future__ import annotations

import json
import math
from typing import Any

from sidecar.chain import strictjson


def canonical(value: Any) -> bytes:
    """The JSON of RFC 8785: no white space, members in the order of their names' UTF-16, numbers as in ECMAScript.

    ValueError for what has none: a lone surrogate, an integer beyond 2^53-1.
    """
    try:
        return _canonical(value).encode()
    except RecursionError:
        raise ValueError("nested too deep") from None


def _canonical(value: Any) -> str:
    if isinstance(value, dict):
        ordered = sorted(value.items(), key=lambda member: member[0].encode("utf-16-be"))
        return "{" + ",".join(f"{_canonical(name)}:{_canonical(each)}" for name, each in ordered) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_canonical, value)) + "]"
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > strictjson.MAX_INTEGER:
        raise ValueError("an integer beyond 2^53-1")
    return json.dumps(value, ensure_ascii=False)


def _number(value: float) -> str:
    """ECMAScript's `Number::toString`: the same shortest digits as Python's, laid out by where the point falls."""
    if not math.isfinite(value):
        raise ValueError("no number of JSON")
    mantissa, _, exponent = f"{abs(value)!r}".partition("e")
    whole, _, part = mantissa.partition(".")
    point = len(whole) + int(exponent or 0)
    digits = (whole + part).rstrip("0")
    point -= len(digits) - len(digits := digits.lstrip("0"))
    sign = "-" if value < 0 else ""
    if not digits:
        return "0"
    if len(digits) <= point <= 21:
        return sign + digits.ljust(point, "0")
    if 0 < point <= 21:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    tail = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{tail}e{'+' if point > 0 else '-'}{abs(point - 1)}"
