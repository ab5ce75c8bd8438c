"""OPA's `sprintf`, which is Go's `fmt.Sprintf` over four types: int64, *big.Int, float64 and string.

The verbs policies use are written exactly as Go writes them; anything else raises, because a wrong text in a
decision is worse than none. What OPA passes for each value: topdown/strings.go, `builtinSprintf`.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias

from .rego_value import Number, Value, quote, write

_VERB: Final = re.compile(r"%([+\-0 #]*)([0-9]*)(?:\.([0-9]*))?(.)", re.DOTALL)
_MAX_WIDTH: Final = 1024
_INT64: Final = range(-(1 << 63), 1 << 63)

_Operand: TypeAlias = "int | float | str"


class Unsupported(ValueError):
    """A format this implementation does not write as Go would."""


def sprintf(form: str, values: tuple[Value, ...]) -> str:
    """``form`` with ``values`` filled in, as OPA would. Raises `Unsupported`."""
    operands = [_operand(value) for value in values]
    out: list[str] = []
    end = used = 0
    for found in _VERB.finditer(form):
        out.append(form[end : found.start()])
        end = found.end()
        verb = found[4]
        if verb == "%":
            out.append("%")
        elif used >= len(operands):
            out.append(f"%!{verb}(MISSING)")
        else:
            out.append(_format(found, operands[used]))
            used += 1
    if "%" in form[end:]:
        raise Unsupported("a verb without a letter")
    out.append(form[end:])
    if used < len(operands):
        out.append("%!(EXTRA " + ", ".join(f"{_type(o)}={_plain(o)}" for o in operands[used:]) + ")")
    return "".join(out)


def _operand(value: Value) -> _Operand:
    if isinstance(value, str):
        return value
    if not isinstance(value, Number):
        return write(value)
    if len(value.text) > 1000:
        raise Unsupported("a number of more than 1000 digits")
    if value.is_integer:
        return int(value.text)
    number = float(value.text)
    if number in (float("inf"), float("-inf")):
        return value.text  # Go's ParseFloat fails, and OPA falls back to the text
    return number


def _format(found: re.Match[str], operand: _Operand) -> str:
    flags, width, precision, verb = found[1], int(found[2] or 0), found[3], found[4]
    if width > _MAX_WIDTH or int(precision or 0) > _MAX_WIDTH or verb in "*[":
        raise Unsupported("a width or precision over 1024, or taken from the arguments")
    if set(flags) - {"-", "0"} or ("0" in flags and ("-" in flags or isinstance(operand, str))):
        raise Unsupported(f"the flags {flags!r}")
    places = None if precision is None else int(precision or 0)
    text = _convert(operand, verb, places)
    if text is None:
        if width or places is not None or (isinstance(operand, int) and operand not in _INT64):
            raise Unsupported(f"%{verb} for {_type(operand)}")
        return f"%!{verb}({_type(operand)}={_plain(operand)})"
    return _pad(text, flags, width)


def _convert(operand: _Operand, verb: str, places: int | None) -> str | None:
    """The text, or None for a verb that Go has not for this type."""
    if isinstance(operand, str):
        return _convert_text(operand, verb, places)
    if isinstance(operand, int):
        if verb in "xXobcqUO" and (operand < 0 or verb not in "xX"):
            raise Unsupported(f"%{verb} for an integer")
        if places is not None and verb in "vdxX":
            raise Unsupported("a precision for an integer")
        return {"v": str(operand), "d": str(operand), "x": f"{operand:x}", "X": f"{operand:X}"}.get(verb)
    if verb in "vg" and places is None:
        return _shortest(operand)
    if verb in "fFeE":
        return f"{operand:.{6 if places is None else places}{verb}}"
    if verb in "vgGbxX":
        raise Unsupported(f"%{verb} with these settings for a float")
    return None


def _convert_text(operand: str, verb: str, places: int | None) -> str | None:
    if verb in "vs":
        return operand if places is None else operand[:places]
    if verb == "q" and places is None:
        return quote(operand)
    if verb in "qxX":
        raise Unsupported(f"%{verb} with these settings for a string")
    return None


def _shortest(number: float) -> str:
    """Go's %v of a float64: the shortest digits, with an exponent below 1e-4 and from 1e6."""
    sign = "-" if str(number).startswith("-") else ""
    mantissa, _, exponent = f"{abs(number)!r}e0".partition("e")
    whole, _, part = mantissa.partition(".")
    power = int(exponent.removesuffix("e0")) + len(whole) - 1
    digits = whole + part
    power -= len(digits) - len(digits.lstrip("0")) if digits.strip("0") else 0
    digits = digits.strip("0") or "0"
    power = power if digits != "0" else 0
    if power < -4 or power >= 6:
        return f"{sign}{digits[0]}{'.' if digits[1:] else ''}{digits[1:]}e{'-' if power < 0 else '+'}{abs(power):02d}"
    if power < 0:
        return sign + "0." + "0" * (-power - 1) + digits
    digits = digits.ljust(power + 1, "0")
    return sign + digits[: power + 1] + ("." + digits[power + 1 :] if digits[power + 1 :] else "")


def _pad(text: str, flags: str, width: int) -> str:
    if "-" in flags:
        return text.ljust(width)
    if "0" in flags:
        return text.zfill(width)
    return text.rjust(width)


def _plain(operand: _Operand) -> str:
    return _shortest(operand) if isinstance(operand, float) else str(operand)


def _type(operand: _Operand) -> str:
    if isinstance(operand, str):
        return "string"
    if isinstance(operand, float):
        return "float64"
    return "int64" if operand in _INT64 else "*big.Int"
