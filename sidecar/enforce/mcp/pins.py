"""Pins: what a person allowed a server to tell a model, in a file (`proto/DOORS.md`). The file is read once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from sidecar import files
from sidecar.chain import strictjson
from sidecar.enforce.mcp.canonical import canonical
from sidecar.enforce.mcp.kinds import KINDS, TOOL, Kind, digest_of, name_of, storable
from sidecar.errors import Malformed, UsageError

FORMAT: Final = "sidecar/v1/mcp-pins"
_MOST_BYTES: Final = 64 << 20

Pin = Literal["pinned", "changed", "new"]
Listing = Mapping[Kind, Sequence[Any]]
"""What a server lists, of each kind."""


class Pins:
    """What one server may tell a model: ``about`` itself (`kinds.told`), and of the ``things`` it has, by name."""

    def __init__(
        self, server: str, about: Mapping[str, Any], things: Mapping[Kind, Mapping[str, Mapping[str, Any]]]
    ) -> None:
        self._server, self._about = server, about
        self._things = {kind: dict(things.get(kind, {})) for kind in KINDS}
        self._digests = {
            kind: {name: digest_of(kind, thing) for name, thing in named.items()}
            for kind, named in self._things.items()
        }

    def judge(self, kind: Kind, name: str, digest: str) -> Pin:
        """How a listed thing stands to the one of that name that was allowed."""
        known = self._digests[kind].get(name)
        return "new" if known is None else "pinned" if known == digest else "changed"

    def withheld(self, about: Mapping[str, Any]) -> list[str]:
        """Which members of what a server now says of itself were not allowed."""
        return [name for name, value in about.items() if not _same(value, self._about.get(name))]

    def schema(self, name: str) -> Any:
        """The input schema of a tool that was allowed; None where there is none."""
        return self._things[TOOL].get(name, {}).get("inputSchema")

    def differences(self, about: Mapping[str, Any], listed: Listing) -> list[str]:
        """What a person has to look at: what is new, changed (and in what), or gone."""
        return [*_changes("", self._about, about), *(line for kind in KINDS for line in self._of(kind, listed[kind]))]

    def _of(self, kind: Kind, listed: Sequence[Any]) -> Iterator[str]:
        before, now = self._things[kind], {name_of(kind, thing): thing for thing in listed}
        for name, thing in now.items():
            how = self.judge(kind, name, digest_of(kind, thing))
            if how == "new":
                yield f"new      {kind.word} {name}: {_short(thing.get('description'))}"
            elif how == "changed":
                parts = sorted(p for p in {*before[name], *thing} if not _same(before[name].get(p), thing.get(p)))
                yield f"changed  {kind.word} {name}: {', '.join(map(_short, parts))}"
                yield from _changes("  ", before[name], thing)
        yield from (f"gone     {kind.word} {name}" for name in before if name not in now)

    def dump(self) -> bytes:
        """The file's bytes."""
        lists = {kind.listed: [named[name] for name in sorted(named)] for kind, named in self._things.items()}
        whole = {"format": FORMAT, "server": self._server, "about": self._about, **lists}
        return json.dumps(whole, ensure_ascii=False, indent=1).encode() + b"\n"

    def write(self, path: Path) -> None:
        """Durably in the place of what is there. UsageError where that cannot be done."""
        try:
            files.put(path, self.dump(), 0o644)
        except OSError as error:
            raise UsageError(
                f"cannot write the pins {path}: {error.strerror}; name a file in a directory of yours"
            ) from None


def pinned(server: str, about: Mapping[str, Any], listed: Listing) -> Pins:
    """All of it. UsageError for what cannot be pinned."""
    try:
        storable(about)
        return Pins(server, about, {kind: _named(kind, things) for kind, things in listed.items()})
    except ValueError as error:
        raise UsageError(f"the server tells what cannot be pinned: {error}") from None


def _named(kind: Kind, things: Sequence[Any]) -> dict[str, Mapping[str, Any]]:
    named: dict[str, Mapping[str, Any]] = {}
    for thing in things:
        name = name_of(kind, thing)
        if name in named:
            raise ValueError(f"the {kind.word} {_short(name)} twice")
        named[name] = thing
    return named


def counted(listed: Listing) -> str:
    """How many of each, in words."""
    return ", ".join(f"{len(listed[kind])} {kind.word}{'' if len(listed[kind]) == 1 else 's'}" for kind in KINDS)


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
    lists = [kind.listed for kind in KINDS]
    if (
        whole.keys() != {"format", "server", "about", *lists}
        or whole["format"] != FORMAT
        or not isinstance(whole["about"], dict)
        or not all(isinstance(whole[each], list) for each in lists)
    ):
        raise UsageError(f"{path} is no file of pins; name another, or write it with --accept-pins")
    if whole["server"] != server:
        raise UsageError(f"the pins {path} are of the server {_short(whole['server'])}, not {server}; see --name")
    return pinned(server, whole["about"], {kind: whole[kind.listed] for kind in KINDS})


def _same(one: Any, other: Any) -> bool:
    try:
        return canonical(one) == canonical(other)
    except ValueError:
        return False


def _changes(indent: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for part in sorted({*before, *now}):
        if not _same(before.get(part), now.get(part)):
            lead = indent or "changed  "
            yield f"{lead}{_short(part)}: {_short(before.get(part))} -> {_short(now.get(part))}"


def _short(value: Any) -> str:
    """Foreign text on one line, without control characters."""
    text = value if isinstance(value, str) else "nothing" if value is None else json.dumps(value, ensure_ascii=False)
    line = "".join(c if c.isprintable() else " " for c in text)
    return line if len(line) <= 200 else line[:199] + "…"
