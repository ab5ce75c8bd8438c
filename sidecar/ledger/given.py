"""What a ledger gives to those who ask: an entry, a proof, how much is taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Entry:
    """One recorded entry: its parts as stored, the payload uncompressed."""

    seq: int
    segment: int
    header: bytes
    tag: bytes
    salt: bytes
    payload: bytes


@dataclass(frozen=True, slots=True)
class Decision:
    """A recorded DECISION, read once. ``wall_ns``: when, ns since 1970. ``stored``: its payload as it is stored.

    ``payload``: the same with its personal fields, unless they were erased (`unopened`).
    """

    seq: int
    wall_ns: int
    stored: Mapping[str, Any]
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Proof:
    """That an entry is leaf ``index`` under its segment's signed seal (RFC 6962 section 2.1.1)."""

    leaf_input: bytes
    index: int
    path: list[bytes]
    seal: bytes


@dataclass(frozen=True, slots=True)
class Usage:
    """How much is taken, in bytes, and how far the ledger is.

    ``bytes_left``: what entries may still take before they are refused, the reserve kept; negative once it is touched.
    """

    bytes_used: int
    bytes_limit: int
    bytes_free_on_disk: int
    bytes_left: int
    entries: int
    segment: int
    queue_depth: int
