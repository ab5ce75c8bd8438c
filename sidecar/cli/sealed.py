"""Sealed personal fields as `sidecar show` has them: sealed, erased, or with their values where an opening is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from sidecar.chain import payload as payloads
from sidecar.chain import personal, pointer
from sidecar.chain.entry import EntryType, Header
from sidecar.chain.personal import Personal
from sidecar.cli.reading import entries_of, parsed
from sidecar.cli.sources import file_of
from sidecar.config import read_file
from sidecar.errors import Malformed, ProofRejected
from sidecar.verify import MAX_OPENINGS, Openings, parse_openings
from sidecar.verify.bundle_files import OPENINGS

Read = Callable[[int], bytes]


class Shown:
    """What is sealed in the entries of one stream. ``again``: reads it anew, for the TOMBSTONEs that come later."""

    def __init__(self, openings: Openings | None, again: Callable[[], AbstractContextManager[Read]]) -> None:
        self._openings, self._again = openings, again
        self._tombstones: dict[str, int] | None = None

    def put_back(self, header: Header, payload: dict[str, Any]) -> list[tuple[str, str]]:
        """As :func:`put_back`; each field's name, with what became of it, where there is no opening."""
        said = put_back(header, payload, self._openings)
        if said is None:
            return []
        state = self._state(said)
        return [(named(field.place, field.pointer), state) for field in said.fields]

    def _state(self, said: Personal) -> str:
        if self._tombstones is None:
            with self._again() as read:
                self._tombstones = dict(_tombstones(read))
        seq = self._tombstones.get(said.subject.hex())
        return "sealed" if seq is None else f"erased (TOMBSTONE {seq})"


def put_back(header: Header, payload: dict[str, Any], openings: Openings | None) -> Personal | None:
    """Put the values of an entry back in place where there is an opening; else gives what is sealed, if anything is.

    Raises:
        Malformed: an opening that is not this entry's.
    """
    said = personal.read(header.type, payload) if header.field_count else None
    chain = None if openings is None else openings.chains.get(header.chain_id)
    opening = None if chain is None else chain.entries.get(header.seq)
    if said is None or opening is None:
        return said
    try:
        parts = personal.split(opening, len(said.fields))
        said.check(header.chain_id, header.seq, parts)
    except (Malformed, ProofRejected) as error:
        raise Malformed(f"seq {header.seq}: {error}") from None
    personal.put_back(payload, said, parts)
    payloads.hold(header.type, payload)
    return None


def openings_for(path: Path, file: Path | None) -> Openings | None:
    """Those in a file, else those that an evidence bundle carries. Raises UsageError or Malformed."""
    if file is not None:
        return read_openings(file)
    carried = file_of(path, OPENINGS, MAX_OPENINGS)
    return None if carried is None else parse_openings(carried)


def read_openings(file: Path) -> Openings:
    """The openings in a file. Raises UsageError."""
    return parsed(file, read_file(file, "openings"), parse_openings)


def named(place: str, where: str) -> str:
    """A sealed field as people name it: `arguments.email`, `reasons[0].message`."""
    tokens = [*pointer.split(place), *pointer.split(where)]
    tokens = tokens[1:] if tokens[0] == "request" else tokens
    return "".join(f"[{token}]" if token.isdigit() else f".{token}" for token in tokens).lstrip(".")


def _tombstones(read: Read) -> Iterator[tuple[str, int]]:
    for header, value in entries_of(read, EntryType.TOMBSTONE):
        yield value["subject"], header.seq
