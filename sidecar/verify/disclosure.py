"""A disclosure: the two keys of some segments, handed out by a custodian (proto/LEDGER.md, "Other formats")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.chain import strictjson
from sidecar.chain.limits import NO_SEQ
from sidecar.chain.ratchet import SegmentKeys
from sidecar.errors import Malformed
from sidecar.verify.trust import hex32

FORMAT = "sidecar/v1/disclosure"


@dataclass(frozen=True, slots=True)
class Disclosure:
    """Keys by segment number, of one chain. Whoever holds them can also make tags for those segments.

    Raises:
        Malformed: a chain id or key that is not 32 bytes.
    """

    chain_id: bytes
    segments: Mapping[int, SegmentKeys]

    def __post_init__(self) -> None:
        keys = [k for s in self.segments.values() for k in (s.mac_key, s.tag_key)]
        if any(len(v) != 32 for v in (self.chain_id, *keys)):
            raise Malformed("disclosure: chain id and keys have 32 bytes")

    def encode(self) -> bytes:
        """The file: JSON, segments in rising order."""
        segments = [
            {"segment": number, "mac_key": keys.mac_key.hex(), "tag_key": keys.tag_key.hex()}
            for number, keys in sorted(self.segments.items())
        ]
        return strictjson.dumps({"format": FORMAT, "chain": self.chain_id.hex(), "segments": segments}) + b"\n"


def parse_disclosure(data: bytes) -> Disclosure:
    """Read a disclosure.

    Raises:
        Malformed: not strict JSON (RFC 7493), not of this shape, one segment twice.
    """
    value = strictjson.parse_object(data)
    segments = value.get("segments")
    if value.keys() != {"format", "chain", "segments"} or value["format"] != FORMAT or not isinstance(segments, list):
        raise Malformed(f"disclosure: an object with format {FORMAT!r}, chain and an array segments is required")
    pairs = [_segment(each) for each in segments]
    if len(dict(pairs)) != len(pairs):
        raise Malformed("disclosure: one segment occurs twice")
    return Disclosure(hex32(value["chain"]), dict(pairs))


def _segment(value: Any) -> tuple[int, SegmentKeys]:
    if not isinstance(value, dict) or value.keys() != {"segment", "mac_key", "tag_key"}:
        raise Malformed("disclosure: each segment has the members segment, mac_key and tag_key")
    number = value["segment"]
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < NO_SEQ:
        raise Malformed("disclosure: segment is not a segment number")
    return number, SegmentKeys(hex32(value["mac_key"]), hex32(value["tag_key"]))
