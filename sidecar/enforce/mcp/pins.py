"""Pinned tools: what a person allowed a server to say of its tools, in a file (`proto/DOORS.md`).

A tool is all that the server lists of it: name, title, description, schemas, annotations, `_meta` and whatever else; a
model may read any of it. Its digest is over its canonical JSON (RFC 8785). The file is read once, at the start.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

from sidecar.chain import strictjson
from sidecar.errors import Malformed, UsageError

FORMAT: Final = "sidecar/v1/mcp-pins"
_LABEL: Final = b"sidecar/v1/mcp-tool\0"
_MOST_BYTES: Final = 64 << 20
_DEEPEST: Final = 60  # with the file around it still within 64
_LONGEST_NAME: Final = 256

Pin = Literal["pinned", "changed", "new"]


def tool_digest(tool: Mapping[str, Any]) -> str:
    """SHA-256 in hex of a tool as it is listed. ValueError where it has no canonical form, or no file could hold it."""
    form = canonical(tool)
    try:
        strictjson.parse(form, max_depth=_DEEPEST)
    except Malformed as error:
        raise ValueError(str(error)) from None
    return hashlib.sha256(_LABEL + form).hexdigest()


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


def tool_name(tool: Any) -> str:
    """A listed tool's name. ValueError for what cannot be one."""
    name = tool.get("name") if isinstance(tool, dict) else None
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
        raise ValueError("a tool without a name of 1 to 256 printable characters")
    return name


class Pins:
    """The tools of one server that are allowed as they are."""

    def __init__(self, server: str, tools: Mapping[str, Mapping[str, Any]]) -> None:
        self._server = server
        self._tools = dict(tools)
        self._digests = {name: tool_digest(tool) for name, tool in tools.items()}

    def judge(self, name: str, digest: str) -> Pin:
        """How a listed tool stands to the one of that name that was allowed."""
        known = self._digests.get(name)
        return "new" if known is None else "pinned" if known == digest else "changed"

    def schema(self, name: str) -> Any:
        """The input schema that was allowed; None where there is none."""
        return self._tools.get(name, {}).get("inputSchema")

    def differences(self, listed: Iterable[Mapping[str, Any]]) -> list[str]:
        """What a person has to look at, one line each: tools that are new, changed (and in what), or gone."""
        now = {tool_name(tool): tool for tool in listed}
        told = []
        for name, tool in now.items():
            how = self.judge(name, tool_digest(tool))
            if how == "new":
                told.append(f"new      {name}: {_short(tool.get('description'))}")
            elif how == "changed":
                before = self._tools[name]
                parts = sorted(
                    p for p in {*before, *tool} if before.get(p) != tool.get(p) or (p in before) != (p in tool)
                )
                told += [f"changed  {name}: {', '.join(map(_short, parts))}"]
                told += [f"  {_short(p)}: {_short(before.get(p))} -> {_short(tool.get(p))}" for p in parts]
        return told + [f"gone     {name}" for name in self._digests.keys() - now.keys()]

    def dump(self) -> bytes:
        """The file's bytes."""
        tools = [self._tools[name] for name in sorted(self._tools)]
        whole = {"format": FORMAT, "server": self._server, "tools": tools}
        return json.dumps(whole, ensure_ascii=False, indent=1).encode() + b"\n"

    def write(self, path: Path) -> None:
        """Durably in the place of what is there. UsageError where that cannot be done."""
        beside = path.with_name(f"{path.name}.{os.getpid()}.new")
        try:
            with beside.open("xb") as file:
                file.write(self.dump())
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise UsageError(
                f"cannot write the pins {path}: {error.strerror}; name a file in a directory of yours"
            ) from None


def pinned(server: str, listed: Iterable[Any]) -> Pins:
    """All that is listed. UsageError for a listing that cannot be pinned."""
    tools: dict[str, Mapping[str, Any]] = {}
    try:
        for tool in listed:
            name = tool_name(tool)
            if name in tools:
                raise ValueError(f"the tool {_short(name)} twice")
            tools[name] = tool
        return Pins(server, tools)
    except ValueError as error:
        raise UsageError(f"the server lists what cannot be pinned: {error}") from None


def load_pins(path: Path, server: str) -> Pins | None:
    """The pins of this server; None where there is no such file.

    Raises:
        UsageError: it cannot be read, is no such file, or another server's.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise UsageError(f"the pins {path} are larger than 64 MiB; name another file")
        whole = strictjson.parse_object(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"cannot read the pins {path}: {error.strerror}") from None
    except Malformed as error:
        raise UsageError(f"the pins {path}: {error}; write them anew with --accept-pins") from None
    if (
        whole.keys() != {"format", "server", "tools"}
        or whole["format"] != FORMAT
        or not isinstance(whole["tools"], list)
    ):
        raise UsageError(f"{path} is no file of pins; name another, or write it with --accept-pins")
    if whole["server"] != server:
        raise UsageError(f"the pins {path} are of the server {_short(whole['server'])}, not {server}; see --name")
    return pinned(server, whole["tools"])


def _short(value: Any) -> str:
    """Foreign text on one line, without control characters."""
    text = value if isinstance(value, str) else "nothing" if value is None else json.dumps(value, ensure_ascii=False)
    line = "".join(c if c.isprintable() else " " for c in text)
    return line if len(line) <= 200 else line[:199] + "…"
