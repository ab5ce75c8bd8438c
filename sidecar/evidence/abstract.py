"""What a report and a certificate say of a stream: who produced and sealed it, how many of what, what stands out.

Taken along while a stream is read; memory is bounded, whatever the stream says.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sidecar.chain import note
from sidecar.chain.entry import EntryType, Header
from sidecar.chain.payload import parse as parse_payload
from sidecar.chain.seal import Seal
from sidecar.chain.seeds import Custodian, custody_of
from sidecar.chain.stream import Kind
from sidecar.errors import Malformed

from . import rows
from .recorded import Recorded

_MOST: Final = 100  # of epochs and crashes that are named
_NAMES: Final = 1_000  # agents and policies that are counted by name
_NOTABLE: Final = 8  # of each kind
OTHERS: Final = "others"
_TYPES: Final = {kind: kind.name for kind in EntryType}  # Python 3.11 takes long to look them up

Payload = Mapping[str, Any]

NOTABLE: Final = {
    "undecided": "Denied for want of a decision: the policy gave none",
    "approved": "Allowed under approvals",
    "waits": "Required an approval",
    "failed": "Allowed, and failed when it was carried out",
    "shadow": "Not allowed, and carried out all the same under shadow enforcement",
    "impure": "Decided by a policy that is no function of its input: cannot be re-run exactly",
    "refused_outcome": "Reports that were refused",
    "policy_refused": "Policies that were found and refused",
    "unconfirmed": "Starts that nobody could confirm",
}


@dataclass(slots=True)
class Abstract:
    """One chain's part of a bundle."""

    chain: str
    entries: int = 0
    first: Header | None = None
    last: Header | None = None
    types: Counter[str] = field(default_factory=Counter)
    effects: Counter[str] = field(default_factory=Counter)
    causes: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    proofs: Counter[str] = field(default_factory=Counter)
    agents: Counter[str] = field(default_factory=Counter)
    without_payload: int = 0
    sealed_values: int = 0
    erasures: int = 0
    refusals: int = 0
    clock_steps: int = 0
    policies: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    epochs: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_MOST))
    notable: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    notable_counts: Counter[str] = field(default_factory=Counter)
    sealed: int = 0
    sealed_first: int | None = None
    sealed_last: int | None = None
    crashed: list[int] = field(default_factory=list)
    genesis: dict[str, Any] | None = None
    allowed: list[dict[str, Any]] = field(default_factory=list)
    _shadow: dict[int, dict[str, Any]] = field(default_factory=dict)

    def record(self, kind: Kind, body: bytes) -> None:
        """A record of the stream that is no entry."""
        try:
            if kind is Kind.SEAL:
                self._seal(Seal.parse(note.parse(body).text))
            elif kind is Kind.GENESIS:
                self.genesis = parse_payload(EntryType.GENESIS, body)
            elif kind is Kind.AUTHORITY and len(self.allowed) < _MOST and (act := rows.authority(body)) is not None:
                self.allowed.append(act)
        except Malformed:
            return  # `judged` has it

    def _seal(self, seal: Seal) -> None:
        self.sealed += 1
        self.sealed_first = seal.time if self.sealed_first is None else self.sealed_first
        self.sealed_last = seal.time
        if seal.reason == "crash" and len(self.crashed) < _MOST:
            self.crashed.append(seal.segment)

    def take(self, entry: Recorded) -> None:
        """The next entry."""
        header, payload = entry.header, entry.payload
        self.entries += 1
        self.first, self.last = self.first or header, header
        self.types[_TYPES[header.type]] += 1
        if payload is None:
            self.without_payload += 1
            return
        self.sealed_values += len(rows.sealed(payload))
        self.erasures += header.type is EntryType.TOMBSTONE
        take = _TAKE.get(header.type)
        if take is not None:
            take(self, header, payload)

    def _genesis(self, _: Header, payload: Payload) -> None:
        self.genesis = dict(payload)

    def _open(self, header: Header, payload: Payload) -> None:
        place = {"epoch": header.epoch, "time": rows.at(header.wall_ns), "seq": rows.number(header.seq)}
        self.epochs.append({**place, "software": payload["software"]})
        if payload.get("unconfirmed"):
            self._stands_out("unconfirmed", header, "", "the collector was out of reach")

    def _decision(self, header: Header, payload: Payload) -> None:
        agent, asked = payload["agent"]["id"], payload["request"]
        self.effects[payload["effect"]] += 1
        self.proofs[payload["agent"]["proof"]] += 1
        self.agents[agent if agent in self.agents or len(self.agents) < _NAMES else OTHERS] += 1
        said = payload["policy"]
        if (known := self.policies.get((said["revision"], said["bundle_digest"]))) is not None:
            known["decisions"] += 1
        if _is_plain(payload):
            return  # most are: nothing stands out
        target = f"{asked['action']} {asked['resource']['type']}:{asked['resource']['id']}"
        because = "; ".join(reason["message"] for reason in payload["reasons"])
        told = f"{payload['effect']} {target}: {because}"
        if payload["cause"] != "policy":
            self.causes[payload["cause"]] += 1
            self._stands_out("undecided", header, agent, told)
        elif payload["effect"] == "REQUIRE_APPROVAL":
            self._stands_out("waits", header, agent, told)
        elif payload["approval"] and payload["effect"] == "ALLOW":
            by = ", ".join(each["by"]["id"] for each in payload["approval"]["approvals"])
            self._stands_out("approved", header, agent, f"{target}, approved by {by}")
        if payload.get("impure_builtins"):
            self._stands_out("impure", header, agent, f"{target}, uses {', '.join(payload['impure_builtins'])}")
        if not payload["enforced"] and payload["effect"] != "ALLOW" and len(self._shadow) < _NAMES:
            self._shadow[header.seq] = {"agent": agent, "told": told}

    def _outcome(self, header: Header, payload: Payload) -> None:
        self.statuses[payload["status"]] += 1
        status = payload["downstream_status"]
        if payload["status"] == "failed":
            told = f"the outcome of entry {header.ref_seq}{f', downstream status {status}' if status else ''}"
            self._stands_out("failed", header, payload["agent"]["id"], told)
        shadowed = self._shadow.pop(header.ref_seq, None)
        if shadowed is not None and payload["status"] != "blocked":
            self._stands_out("shadow", header, shadowed["agent"], shadowed["told"])

    def _rejected(self, header: Header, payload: Payload) -> None:
        self.refusals += payload["count"]
        if payload["call"] == "ReportOutcome":
            self._stands_out("refused_outcome", header, payload["principal"] or "nobody proved", payload["cause"])

    def _policy(self, header: Header, payload: Payload) -> None:
        if payload["event"] == "refused":
            failed = [step["step"] for step in payload["gate"] if step["outcome"] == "failed"]
            told = f"revision {payload['revision'] or 'unknown'}, at {', '.join(failed) or 'its source'}"
            self._stands_out("policy_refused", header, "", told)
            return
        name = payload["revision"], payload["bundle_digest"]
        if name not in self.policies and len(self.policies) < _NAMES:
            known = rows.policy(header, payload)
            named = {"revision": name[0], "bundle_digest": name[1], "engine": payload["engine"], "decisions": 0}
            self.policies[name] = {**named, "time": rows.at(header.wall_ns), **known}

    def _clock(self, _: Header, __: Payload) -> None:
        self.clock_steps += 1

    def _stands_out(self, kind: str, header: Header, agent: str, said: str) -> None:
        self.notable_counts[kind] += 1
        kept = self.notable.setdefault(kind, [])
        if len(kept) < _NOTABLE:
            place = {"chain": self.chain, "seq": header.seq, "time": rows.at(header.wall_ns)}
            kept.append({**place, "agent": agent, "said": said[:400]})

    def custody(self) -> dict[str, Any]:
        """What a certificate says of who produced and sealed it."""
        genesis = self.genesis or {"identity": None, "custodians": [], "authority": None}
        try:
            custodians = custody_of(genesis).custodians if genesis["custodians"] else ()
        except Malformed:
            custodians = ()
        times = (self.sealed_first, self.sealed_last)
        first, last = (None if each is None else rows.at(each) for each in times)
        return {
            "identity": genesis["identity"],
            "custodians": [_custodian(each) for each in custodians],
            "authority": genesis["authority"],
            "allowed": self.allowed,
            "produced": list(self.epochs),
            "sealed": {"segments": self.sealed, "first": first, "last": last, "crashed": self.crashed},
        }

    def to_json(self) -> dict[str, Any]:
        """All that is told of it, for another process of this program."""
        told = {name: getattr(self, name) for name in self.__slots__ if not name.startswith("_")}
        places = {name: told[name] and told[name].encode().hex() for name in _PLACES}
        policies = [[*name, known] for name, known in self.policies.items()]
        return {**told, **places, "policies": policies, "epochs": list(self.epochs)}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Abstract:
        """What `to_json` gave."""
        made = cls(**told)
        for name in _PLACES:
            if told[name]:
                setattr(made, name, Header.decode(bytes.fromhex(told[name])))
        for name in _COUNTED:
            setattr(made, name, Counter(told[name]))
        made.policies = {(revision, digest): known for revision, digest, known in told["policies"]}
        made.epochs = deque(told["epochs"], _MOST)
        return made


_PLACES: Final = ("first", "last")
_COUNTED: Final = ("types", "effects", "causes", "statuses", "proofs", "agents", "notable_counts")


def _is_plain(payload: Payload) -> bool:
    """Whether a decision is an ALLOW or DENY, enforced, by a policy that is a function of its input, unapproved."""
    usual = payload["cause"] == "policy" and payload["effect"] != "REQUIRE_APPROVAL" and not payload["approval"]
    return bool(usual and not payload.get("impure_builtins") and payload["enforced"])


def _custodian(known: Custodian) -> dict[str, str]:
    return {"name": known.name, "kem": known.kem, "spki": hashlib.sha256(known.spki).hexdigest()}


_TAKE: Final = {
    EntryType.GENESIS: Abstract._genesis,
    EntryType.OPEN: Abstract._open,
    EntryType.DECISION: Abstract._decision,
    EntryType.OUTCOME: Abstract._outcome,
    EntryType.REJECTED: Abstract._rejected,
    EntryType.POLICY: Abstract._policy,
    EntryType.CLOCK: Abstract._clock,
}
