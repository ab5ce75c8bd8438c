"""The built-in functions OPA's Wasm leaves to its host, as far as we supply them.

Each is pure and answers as OPA does, or raises; where OPA reports an error under strict-builtin-errors, so do
these. What is not here (http.send, time.now_ns, rand.intn and everything else that is not a function of its
arguments, by design; rarer pure ones for want of need) makes a bundle that uses it refuse to load.
"""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import orjson

from . import gofmt
from .rego_value import NotRego, Number, Value

_RFC3339: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:Z|([+-])(\d\d):(\d\d))", re.ASCII
)
_SECOND: Final = 1_000_000_000  # nanoseconds
_DAY: Final = 86_400 * _SECOND
_EPOCH: Final = datetime.date(1970, 1, 1).toordinal()
_INT64: Final = range(-(1 << 63), 1 << 63)
_WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


class BuiltinError(ValueError):
    """A built-in that has no value for these arguments. The text quotes no argument."""


def call(name: str, arguments: list[Value]) -> bytes:
    """The JSON of ``name``'s value for ``arguments``. Raises `BuiltinError`."""
    try:
        return orjson.dumps(HOST_BUILTINS[name](*arguments))
    except (NotRego, gofmt.Unsupported, TypeError, ValueError, OverflowError) as error:
        cause = str(error) if isinstance(error, BuiltinError | gofmt.Unsupported) else type(error).__name__
        raise BuiltinError(f"{name}: {cause}") from None


def _sprintf(form: Value, values: Value) -> str:
    if not isinstance(form, str) or not isinstance(values, tuple):
        raise BuiltinError("takes a string and an array")
    return gofmt.sprintf(form, values)


def _sha256(text: Value) -> str:
    return hashlib.sha256(_text(text).encode()).hexdigest()


def _parse_rfc3339_ns(value: Value) -> int:
    found = _RFC3339.fullmatch(_text(value))
    if not found:
        raise BuiltinError("not an RFC 3339 time")
    year, month, day, hour, minute, second = map(int, found.groups()[:6])
    moment = datetime.datetime(year, month, day, hour, minute, second)
    seconds = (moment.toordinal() - _EPOCH) * 86_400 + hour * 3600 + minute * 60 + second
    nanoseconds = (seconds - _offset(found)) * _SECOND + int((found[7] or "")[:9].ljust(9, "0"))
    if nanoseconds not in _INT64:
        raise BuiltinError("time outside of valid range")
    return nanoseconds


def _offset(found: re.Match[str]) -> int:
    """Seconds east of UTC."""
    if found[8] is None:
        return 0
    hours, minutes = int(found[9]), int(found[10])
    if hours > 23 or minutes > 59:
        raise BuiltinError("time zone offset out of range")
    return (hours * 3600 + minutes * 60) * (-1 if found[8] == "-" else 1)


def _clock(moment: Value) -> list[int]:
    seconds = _nanoseconds(moment) % _DAY // _SECOND
    return [seconds // 3600, seconds // 60 % 60, seconds % 60]


def _date(moment: Value) -> list[int]:
    date = datetime.date.fromordinal(_EPOCH + _nanoseconds(moment) // _DAY)
    return [date.year, date.month, date.day]


def _weekday(moment: Value) -> str:
    return _WEEKDAYS[datetime.date.fromordinal(_EPOCH + _nanoseconds(moment) // _DAY).weekday()]


def _nanoseconds(moment: Value) -> int:
    """The time in ``ns`` or ``[ns, "UTC"]``. Other zones depend on the machine's time zone files: not pure."""
    if isinstance(moment, tuple):
        if len(moment) not in (1, 2) or moment[1:] not in ((), ("",), ("UTC",)):
            raise BuiltinError("only UTC is supplied")
        moment = moment[0]
    if not isinstance(moment, Number):
        raise BuiltinError("takes nanoseconds")
    exact = moment.exact()
    if exact.denominator != 1 or exact.numerator not in _INT64:
        raise BuiltinError("timestamp too big")
    return exact.numerator


def _text(value: Value) -> str:
    if not isinstance(value, str):
        raise BuiltinError("takes a string")
    return value


HOST_BUILTINS: Final[Mapping[str, Callable[..., object]]] = MappingProxyType(
    {
        "crypto.sha256": _sha256,
        "sprintf": _sprintf,
        "time.clock": _clock,
        "time.date": _date,
        "time.parse_rfc3339_ns": _parse_rfc3339_ns,
        "time.weekday": _weekday,
    }
)
