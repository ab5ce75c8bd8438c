"""A glance at a ledger beside whoever has it open: a few facts, read by a child process (`facts`)."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sidecar.errors import Malformed
from sidecar.ledger.look import refuse_absent
from sidecar.ledger.reader import child_stream

_MOST: Final = 4 << 20  # bytes of the answer
_SILENCE: Final = 60.0


@dataclass(frozen=True, slots=True)
class Glance:
    """``genesis`` and ``policy`` (None: none yet) are payloads; ``used``: bytes in use; times in ns since 1970.

    ``next_seq``: of the entry to come; ``anchored``: the first entry after the receipted segment; ``decisions``: how
    many entries from there on are decisions; ``waits_since``: the wall clock of the first of these entries, None where
    there is none; ``leaf``: of the entry asked for, b"" where it is not there.
    """

    chain: bytes
    genesis: dict[str, Any]
    policy: dict[str, Any] | None
    next_seq: int
    last_wall: int
    used: int
    anchored: int
    decisions: int
    waits_since: int | None
    leaf: bytes


def glance_at(directory: Path, segment: int | None = None, seq: int | None = None) -> Glance:
    """Look. Raises LedgerUnknown: no ledger there; Malformed: it is damaged."""
    refuse_absent(directory)
    numbers = [str(-1 if each is None else each) for each in (segment, seq)]
    command = [sys.executable, "-P", "-m", "sidecar.ledger.facts", str(directory.absolute()), *numbers]
    told = bytearray()
    with child_stream(command, silence=_SILENCE) as read:
        while data := read(1 << 16):
            told += data
            if len(told) > _MOST:
                raise Malformed("ledger.mdb has an entry that is too long")
    value = json.loads(told)
    raw = {name: bytes.fromhex(value[name]) for name in ("chain", "leaf")}
    return Glance(**{**value, **raw})
