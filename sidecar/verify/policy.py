"""Which logs and witnesses a verifier believes (C2SP tlog-policy)::

log log.example.org/fleet+9fb2…+AaJ3…
witness w1 witness.example/w1+8d66…+BPk0…
witness w2 witness.example/w2+0c11…+BDv8…
group both all w1 w2
quorum both
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sidecar.chain import checkpoint, cosignature, note
from sidecar.chain.checkpoint import Checkpoint
from sidecar.chain.note import VerifierKey
from sidecar.errors import Malformed

MOST = 64
"""Logs, witnesses and groups each."""

MAX_TEXT = 262_144
NONE = "none"
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f]")
_SPACES = re.compile("[ \t]+")


class NotListed(Malformed):
    """A checkpoint of a log that the policy does not list."""


@dataclass(frozen=True, slots=True)
class Vouched:
    """A checkpoint that a listed log signed. ``witnesses``: POSIX seconds by the names of those that cosigned it;
    ``enough``: they reach the quorum."""

    checkpoint: Checkpoint
    witnesses: Mapping[str, int]
    enough: bool


@dataclass(slots=True)
class Policy:
    """A policy as its lines build it up."""

    logs: list[VerifierKey] = field(default_factory=list)
    witnesses: dict[str, VerifierKey] = field(default_factory=dict)
    groups: dict[str, tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    quorum: str | None = None

    @classmethod
    def parse(cls, text: str) -> Policy:
        """Read a policy.

        Raises:
            Malformed: a line that is none of its kinds, in its wrong place, or over the limits.
        """
        if len(text) > MAX_TEXT or _CONTROL.search(text) or (text and not text.endswith("\n")):
            raise Malformed("policy: too long, with control characters, or its last line has no end")
        made = cls()
        for row in text.split("\n"):
            items = [item for item in _SPACES.split(row) if item]
            if items and not items[0].startswith("#"):
                made._line(items)
        if made.quorum is None:
            raise Malformed("policy: it needs one quorum line")
        return made

    def _line(self, items: Sequence[str]) -> None:
        kind, count = items[0], len(items)
        if kind == "log" and count in (2, 3):
            self._log(items[1])
        elif kind == "witness" and count in (3, 4):
            self._witness(items[1], items[2])
        elif kind == "group" and count >= 4:
            self._group(items[1], items[2], tuple(items[3:]))
        elif kind == "quorum" and count == 2:
            self._quorum(items[1])
        else:
            raise Malformed(f"policy: a line {kind!r} with {count - 1} values is not known")

    def _log(self, vkey: str) -> None:
        key = note.parse_vkey(vkey)
        if self._stands(key) or len(self.logs) == MOST:
            raise Malformed(f"policy: one key twice, or more than {MOST} logs")
        self.logs.append(key)

    def _stands(self, key: VerifierKey) -> bool:
        """Whether this key is there already. A log that is its own witness would be two names for one word."""
        return any(key.public_key == each.public_key for each in (*self.logs, *self.witnesses.values()))

    def _witness(self, name: str, vkey: str) -> None:
        key = cosignature.witness_key(vkey)
        if self._stands(key) or len(self.witnesses) == MOST:
            raise Malformed(f"policy: one key twice, or more than {MOST} witnesses")
        self._new(name)
        self.witnesses[name] = key

    def _new(self, name: str) -> None:
        if name == NONE or name in self.witnesses or name in self.groups:
            raise Malformed(f"policy: the name {name!r} is taken")

    def _group(self, name: str, wanted: str, members: tuple[str, ...]) -> None:
        self._new(name)
        taken = {each for _, listed in self.groups.values() for each in listed}
        for each in members:
            if (each not in self.witnesses and each not in self.groups) or each in taken:
                raise Malformed(f"policy: {each!r} is not defined before, or is a member already")
            taken.add(each)
        words = {"all": len(members), "any": 1}
        count = words.get(wanted)
        if count is None:
            count = int(wanted) if re.fullmatch("[1-9][0-9]{0,3}", wanted) else 0
        if not 1 <= count <= len(members) or len(self.groups) == MOST:
            raise Malformed(f"policy: group {name!r} wants more members than it has, or there are more than {MOST}")
        self.groups[name] = count, members

    def _quorum(self, name: str) -> None:
        if self.quorum is not None or (name != NONE and name not in self.witnesses and name not in self.groups):
            raise Malformed("policy: a second quorum, or one of a name that is not defined before")
        self.quorum = name

    def reached(self, witnesses: Mapping[str, int]) -> bool:
        """Whether the witnesses of these names are a quorum."""
        return self.quorum == NONE or self._has(str(self.quorum), witnesses)

    def _has(self, name: str, witnesses: Mapping[str, int]) -> bool:
        if name not in self.groups:
            return name in witnesses
        count, members = self.groups[name]
        return sum(self._has(each, witnesses) for each in members) >= count

    def judge(self, data: bytes) -> Vouched:
        """Hold a signed checkpoint against the policy.

        Raises:
            NotListed: of a log that is not listed.
            Malformed: no checkpoint.
            SignatureInvalid: not signed by its log, or a line of a listed key that does not verify.
        """
        signed = note.parse(data)
        read = Checkpoint.parse(signed.text)
        keys = [key for key in self.logs if key.name == read.origin]
        if not keys:
            raise NotListed(f"log {read.origin} is not one that the trust file lists")
        # A log that changes its key is listed with both; its checkpoint needs one, and no wrong one.
        present = [key for key in keys if note.by_key(signed, key)]
        for key in present or keys:
            checkpoint.verify(data, key)
        times = {name: cosignature.verify(signed, key) for name, key in self.witnesses.items()}
        vouching = {name: time for name, time in times.items() if time is not None}
        return Vouched(read, vouching, self.reached(vouching))
