"""Openings: salts and values of sealed personal fields, by entry (proto/LEDGER.md, "Openings")."""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from sidecar.chain import strictjson
from sidecar.chain.note import to_base64
from sidecar.errors import Malformed
from sidecar.verify.trust import hex32

FORMAT: Final = "sidecar/v1/openings"
MAX_OPENINGS: Final = 16 * 1024 * 1024
"""The longest file, bytes."""


@dataclass(frozen=True, slots=True)
class ChainOpenings:
    """Openings of one chain's entries, by seq. ``complete``: those of all its sealed fields in what goes with them."""

    entries: Mapping[int, bytes] = field(default_factory=dict)
    complete: bool = False


@dataclass(frozen=True, slots=True)
class Openings:
    """Openings by chain id."""

    chains: Mapping[bytes, ChainOpenings]

    def encode(self) -> bytes:
        """The file: JSON, entries in rising order."""
        chains = [
            {
                "chain": chain_id.hex(),
                "complete": each.complete,
                "entries": [{"seq": seq, "opening": to_base64(data)} for seq, data in sorted(each.entries.items())],
            }
            for chain_id, each in sorted(self.chains.items())
        ]
        return strictjson.dumps({"format": FORMAT, "chains": chains}) + b"\n"


def parse_openings(data: bytes) -> Openings:
    """Read openings; none of them is held against a commitment here.

    Raises:
        Malformed: over the limit, not strict JSON, not of this shape, a chain twice, or entries that do not rise.
    """
    if len(data) > MAX_OPENINGS:
        raise Malformed(f"openings: over {MAX_OPENINGS} bytes")
    value = strictjson.parse_object(data)
    chains = value.get("chains")
    if value.keys() != {"format", "chains"} or value["format"] != FORMAT or not isinstance(chains, list):
        raise Malformed(f"openings: an object with format {FORMAT!r} and an array chains is required")
    pairs = [_chain(each) for each in chains]
    if len(dict(pairs)) != len(pairs):
        raise Malformed("openings: one chain occurs twice")
    return Openings(dict(pairs))


def _chain(value: Any) -> tuple[bytes, ChainOpenings]:
    if not isinstance(value, dict) or value.keys() != {"chain", "complete", "entries"}:
        raise Malformed("openings: each chain has the members chain, complete and entries")
    if not isinstance(value["complete"], bool) or not isinstance(value["entries"], list):
        raise Malformed("openings: complete is a boolean, entries an array")
    pairs = [_entry(each) for each in value["entries"]]
    if any(before[0] >= after[0] for before, after in pairwise(pairs)):
        raise Malformed("openings: entries do not rise by seq")
    return hex32(value["chain"]), ChainOpenings(dict(pairs), value["complete"])


def _entry(value: Any) -> tuple[int, bytes]:
    if not isinstance(value, dict) or value.keys() != {"seq", "opening"} or not isinstance(value["opening"], str):
        raise Malformed("openings: each entry has the members seq and opening")
    seq = value["seq"]
    if type(seq) is not int or seq < 0:
        raise Malformed("openings: seq is not an entry's number")
    try:
        opening = binascii.a2b_base64(value["opening"], strict_mode=True)
    except ValueError:
        opening = b""
    if not opening or to_base64(opening) != value["opening"]:
        raise Malformed("openings: an opening is not canonical base64")
    return seq, opening
