"""`case.json`: what a bundle says it is (proto/EVIDENCE.md, "Case")."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, NoReturn

from sidecar.chain import strictjson
from sidecar.chain.payload import policy_time, wall_ns_of
from sidecar.chain.printable import plain, without_zeros
from sidecar.errors import Malformed
from sidecar.verify.trust import hex32

FORMAT: Final = "sidecar/v1/evidence"
PROFILES: Final = ("full", "external")
SOURCES: Final = ("ledger", "collector")
MAX_CASE: Final = 200
MAX_CHAINS = MAX_AGENTS = 1_024
MAX_STATEMENTS: Final = 16_384
_NAMED: Final = 20
_MOST: Final = 2**53 - 1
_TIME = re.compile(r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{9}Z\Z")
_MEMBERS = {"format", "case", "from", "to", "agents", "profile", "exporter", "exported", "source", "chains"}


@dataclass(frozen=True, slots=True)
class Claim:
    """What is claimed of one chain's stream. ``through``: ns since 1970, None: nothing is."""

    chain_id: bytes
    first_segment: int
    last_segment: int
    entries: int
    through: int | None

    def to_json(self) -> dict[str, Any]:
        """As a member of ``chains``."""
        return {
            "chain": self.chain_id.hex(),
            "first_segment": self.first_segment,
            "last_segment": self.last_segment,
            "entries": self.entries,
            "through": None if self.through is None else policy_time(self.through),
        }


@dataclass(frozen=True, slots=True)
class Part:
    """What a bundle says of one stream: the claim, the window (ns, its end excluded), and of whom it is."""

    claim: Claim
    start: int
    end: int
    agents: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Statement:
    """What the exporter knows is not proved; ``chain`` None: of the whole bundle."""

    chain: bytes | None
    kind: str
    text: str

    def to_json(self) -> dict[str, Any]:
        """As a member of ``statements``."""
        return {"chain": None if self.chain is None else self.chain.hex(), "kind": self.kind, "text": self.text}


@dataclass(frozen=True, slots=True)
class Case:
    """The case. ``start`` and ``end`` (excluded) are the window and ``exported`` a time, ns since 1970; ``agents``
    None: everything."""

    name: str
    start: int
    end: int
    agents: tuple[str, ...] | None
    profile: str
    exporter: str
    exported: int
    source: tuple[str, str]
    claims: tuple[Claim, ...]
    statements: tuple[Statement, ...]

    def scope(self) -> str:
        """What it is about, in a sentence: whoever exports chooses it, so a reader must see it."""
        start, end = (without_zeros(policy_time(ns)) for ns in (self.start, self.end))
        whose = "everything that was recorded"
        if self.agents is not None:
            more = f" and {len(self.agents) - _NAMED:,} more" if len(self.agents) > _NAMED else ""
            whose = f"agents {', '.join(map(plain, self.agents[:_NAMED]))}{more}, without what concerns others"
        return f"It is about {whose}, from {start} to {end}, and about nothing else."

    def to_json(self) -> dict[str, Any]:
        """The file's JSON object."""
        return {
            "format": FORMAT,
            "case": self.name,
            "from": policy_time(self.start),
            "to": policy_time(self.end),
            "agents": None if self.agents is None else list(self.agents),
            "profile": self.profile,
            "exporter": self.exporter,
            "exported": policy_time(self.exported),
            "source": {"kind": self.source[0], "place": self.source[1]},
            "chains": [each.to_json() for each in self.claims],
            "statements": [each.to_json() for each in self.statements],
        }

    def encode(self) -> bytes:
        """The file."""
        return strictjson.dumps(self.to_json()) + b"\n"


def parse_case(data: bytes) -> Case:
    """Read a case.

    Raises:
        Malformed: not strict JSON (RFC 7493), or not of this shape.
    """
    value = strictjson.parse_object(data)
    if value.keys() != _MEMBERS | {"statements"} or value["format"] != FORMAT:
        _refuse(f"an object with format {FORMAT!r} and exactly its members is required")
    start, end = _time(value["from"]), _time(value["to"])
    if start >= end or value["profile"] not in PROFILES or len(_text(value["case"])) > MAX_CASE:
        _refuse("its window, profile or name is none")
    source = _exact(value["source"], {"kind", "place"})
    if source["kind"] not in SOURCES:
        _refuse("its source is none")
    claims = tuple(_claim(each, start, end) for each in _array(value["chains"], MAX_CHAINS))
    if not claims or any(a.chain_id >= b.chain_id for a, b in pairwise(claims)):
        _refuse("it has no chain, or they do not rise")
    return Case(
        value["case"], start, end, _agents(value["agents"]), value["profile"], _text(value["exporter"]),
        _time(value["exported"]), (source["kind"], _text(source["place"])), claims,
        tuple(_statement(each) for each in _array(value["statements"], MAX_STATEMENTS)),
    )  # fmt: skip


def _refuse(why: str) -> NoReturn:
    raise Malformed(f"case.json: {why}")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else _refuse("a string is required")


def _array(value: Any, most: int) -> list[Any]:
    return value if isinstance(value, list) and len(value) <= most else _refuse(f"an array of at most {most}")


def _exact(value: Any, names: set[str]) -> dict[str, Any]:
    return value if isinstance(value, dict) and value.keys() == names else _refuse(f"members {sorted(names)}")


def _time(value: Any) -> int:
    return wall_ns_of(value) if isinstance(value, str) and _TIME.match(value) else _refuse("a time that is none")


def _number(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST:
        return value
    _refuse("a number that is none")


def _agents(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    agents = tuple(_text(each) for each in _array(value, MAX_AGENTS))
    if not agents or any(a >= b for a, b in pairwise(agents)):
        _refuse("agents is empty, or they do not rise")
    return agents


def _claim(value: Any, start: int, end: int) -> Claim:
    named = _exact(value, {"chain", "first_segment", "last_segment", "entries", "through"})
    through = None if named["through"] is None else _time(named["through"])
    first, last = _number(named["first_segment"]), _number(named["last_segment"])
    if first > last or (through is not None and not start < through <= end):
        _refuse("what it claims of a chain is not within its window, or ends before it starts")
    return Claim(hex32(named["chain"]), first, last, _number(named["entries"]), through)


def _statement(value: Any) -> Statement:
    named = _exact(value, {"chain", "kind", "text"})
    chain = None if named["chain"] is None else hex32(named["chain"])
    return Statement(chain, _text(named["kind"]), _text(named["text"]))
