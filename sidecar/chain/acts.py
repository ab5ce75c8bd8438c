"""What an authority may allow: the bodies of its notes (proto/LEDGER.md, "Authority note").

Strict JSON, no member more or less. A body is also the request that somebody without the key writes down for the
authority to sign.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, NamedTuple, Protocol

from sidecar.chain import strictjson
from sidecar.errors import Malformed

MAX_RANGES: Final = 256
MAX_REASON: Final = 1_024
_HEX16: Final = re.compile(r"\A[0-9a-f]{32}\Z")
_HEX32: Final = re.compile(r"\A[0-9a-f]{64}\Z")
_REASON: Final = re.compile(r"\A[^\x00-\x1f\x7f-\x9f]{1,1024}\Z")


class Act(Protocol):
    """The body of one note."""

    ACT: ClassVar[str]

    @property
    def chain_id(self) -> bytes:
        """The chain it is about."""

    def encode(self) -> bytes:
        """Its JSON: the one that is signed."""


@dataclass(frozen=True, slots=True)
class Run:
    """Segments ``first`` to ``last``, both included; ``seal``: hash of the text of the seal of ``last``, which fixes
    every entry up to it."""

    first: int
    last: int
    seal: bytes


@dataclass(frozen=True, slots=True)
class Prune:
    """Payloads of these segments may go. ``reason``: for people, 1 to 1,024 characters without control characters.

    Raises:
        Malformed: no run or too many, one that is backwards or does not follow the one before, or no proper reason.
    """

    ACT: ClassVar[str] = "prune"
    chain_id: bytes
    runs: tuple[Run, ...]
    reason: str

    def __post_init__(self) -> None:
        _check_reason(self.reason)
        if not 1 <= len(self.runs) <= MAX_RANGES:
            raise Malformed(f"prune: 1 to {MAX_RANGES} runs of segments are required")
        before = -1
        for run in self.runs:
            if not before < run.first <= run.last:
                raise Malformed("prune: runs of segments must rise and not overlap")
            before = run.last

    def covers(self, segment: int) -> bool:
        """Whether payloads of this segment may go."""
        return any(run.first <= segment <= run.last for run in self.runs)

    def encode(self) -> bytes:
        """The body that is signed."""
        runs = [{"first": run.first, "last": run.last, "seal": run.seal.hex()} for run in self.runs]
        return _encode(self.ACT, self.chain_id, {"segments": runs, "reason": self.reason})


class Position(NamedTuple):
    """A place in a chain (proto/SHIPPING.md, "Place"): the open segment, the number of the entry to come, and the leaf
    of the entry before it."""

    segment: int
    seq: int
    leaf: bytes


@dataclass(frozen=True, slots=True)
class AcceptLoss:
    """A chain may go on from ``kept`` though its collector had it up to ``lost``. ``reason`` as in :class:`Prune`.

    Raises:
        Malformed: nothing was lost between the two, nothing was kept, or no proper reason.
    """

    ACT: ClassVar[str] = "accept-loss"
    chain_id: bytes
    kept: Position
    lost: Position
    reason: str

    def __post_init__(self) -> None:
        _check_reason(self.reason)
        kept, lost = self.kept, self.lost
        if not kept.seq or not kept[:2] < lost[:2] or lost.seq < kept.seq:
            raise Malformed("accept-loss: what was lost must lie beyond what was kept")

    def encode(self) -> bytes:
        """The body that is signed."""
        return _encode(
            self.ACT, self.chain_id, {"kept": _position(self.kept), "lost": _position(self.lost), "reason": self.reason}
        )


@dataclass(frozen=True, slots=True)
class Erase:
    """The key of this data subject, 16 bytes, may be destroyed. ``reason`` as in :class:`Prune`; it must name nobody.

    Raises:
        Malformed: no proper reason.
    """

    ACT: ClassVar[str] = "erase"
    chain_id: bytes
    subject: bytes
    reason: str

    def __post_init__(self) -> None:
        _check_reason(self.reason)

    def encode(self) -> bytes:
        """The body that is signed."""
        return _encode(self.ACT, self.chain_id, {"subject": self.subject.hex(), "reason": self.reason})


def parse(body: bytes) -> Act:
    """Read a body.

    Raises:
        Malformed: not strict JSON, another member than its table has, or a value out of range.
    """
    value = strictjson.parse_object(body)
    form = value.get("format")
    read = BODIES.get(form.removeprefix(_PREFIX)) if isinstance(form, str) and form.startswith(_PREFIX) else None
    if read is None:
        raise Malformed("authority note: the body's format is of no known act")
    return read(value)


def _prune(value: Mapping[str, Any]) -> Prune:
    _members(value, {"format", "chain", "segments", "reason"})
    if not isinstance(value["segments"], list) or len(value["segments"]) > MAX_RANGES:
        raise Malformed("prune: segments must be a list, and not too long")
    return Prune(_digest(value["chain"]), tuple(map(_run, value["segments"])), value["reason"])


def _run(value: Any) -> Run:
    _members(value, {"first", "last", "seal"})
    return Run(_number(value["first"]), _number(value["last"]), _digest(value["seal"]))


def _erase(value: Mapping[str, Any]) -> Erase:
    _members(value, {"format", "chain", "subject", "reason"})
    if not isinstance(value["subject"], str) or not _HEX16.match(value["subject"]):
        raise Malformed("erase: the subject is not 16 bytes in lower-case hex")
    return Erase(_digest(value["chain"]), bytes.fromhex(value["subject"]), value["reason"])


def _accept_loss(value: Mapping[str, Any]) -> AcceptLoss:
    _members(value, {"format", "chain", "kept", "lost", "reason"})
    kept, lost = _read_position(value["kept"]), _read_position(value["lost"])
    return AcceptLoss(_digest(value["chain"]), kept, lost, value["reason"])


def _read_position(value: Any) -> Position:
    _members(value, {"segment", "seq", "leaf"})
    return Position(_number(value["segment"]), _number(value["seq"]), _digest(value["leaf"]))


def _position(place: Position) -> dict[str, Any]:
    return {"segment": place.segment, "seq": place.seq, "leaf": place.leaf.hex()}


_PREFIX: Final = "sidecar/v1/"
BODIES: Final[Mapping[str, Callable[[Mapping[str, Any]], Act]]] = {
    Prune.ACT: _prune,
    Erase.ACT: _erase,
    AcceptLoss.ACT: _accept_loss,
}
"""How the body of each act is read."""


def _encode(act: str, chain_id: bytes, members: Mapping[str, Any]) -> bytes:
    return strictjson.dumps({"format": _PREFIX + act, "chain": chain_id.hex(), **members})


def _members(value: Any, names: set[str]) -> None:
    if not isinstance(value, dict) or value.keys() != names:
        raise Malformed(f"authority note: the body must have exactly {', '.join(sorted(names))}")


def _digest(value: Any) -> bytes:
    if not isinstance(value, str) or not _HEX32.match(value):
        raise Malformed("authority note: a digest in the body is not 32 bytes in lower-case hex")
    return bytes.fromhex(value)


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= strictjson.MAX_INTEGER:
        raise Malformed("authority note: a number in the body is not an integer from 0 on")
    return value


def _check_reason(value: Any) -> None:
    if not isinstance(value, str) or not _REASON.match(value):
        raise Malformed(f"authority note: a reason is 1 to {MAX_REASON} characters without control characters")
