"""Who spoke, by the registries that the ledger itself holds, and what that is worth (proto/LEDGER.md rule 10)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any, Final

from sidecar.chain import registry, strictjson
from sidecar.chain.entry import EntryType
from sidecar.chain.printable import number_of
from sidecar.chain.registry import Principal, Registry
from sidecar.chain.statement import key_id
from sidecar.errors import Malformed
from sidecar.verify.coverage import Coverage
from sidecar.verify.plain import AGENTS, Plain
from sidecar.verify.report import Findings, Verdict
from sidecar.verify.statements import speaker
from sidecar.verify.trust import Trust

KINDS: Final = frozenset({EntryType.DECISION, EntryType.OUTCOME, EntryType.APPROVAL, EntryType.REGISTRY})
_LAST: Final = 2  # since a call may be under way when the registry changes
_REGISTERED: Final = "registered"  # named by somebody else: nothing of it is proved
_WITH_SPIFFE: Final = frozenset({"mtls", "signature+mtls", "gateway"})
_WORTH: Final = {"asserted": "asserted", "mtls": "authenticated_in_transit", "gateway": "vouched"}


class Principals:
    """Holds each speaker against the registry in force: one of the last two, since a call may be under way when it
    changes."""

    def __init__(self, trust: Trust | None, findings: Findings, coverage: Coverage) -> None:
        self._trust, self._findings, self._coverage = trust, findings, coverage
        self._known: list[Registry] = []  # the last two that were put in force
        self._unknown = 0
        self._blind = self._settled = False
        self._sound: dict[bytes, tuple[str, str]] = {}
        self.decisions = dict.fromkeys(
            ("non_repudiable", "signed", "authenticated_in_transit", "vouched", "unopened", "asserted"), 0
        )

    def entry(self, kind: EntryType, value: Mapping[str, Any], segment: int, seq: int) -> None:
        """One entry of :data:`KINDS` whose payload is in order, its statement too."""
        if kind is EntryType.REGISTRY:
            self._put_in_force(value, segment, seq)
            return
        if kind is EntryType.DECISION:
            self._count(self._worth(value))
            fault = self._decision(value)
        else:
            fault = self._reporter(speaker(kind, value))
        if fault:
            self._findings.add(Verdict.TAMPERED, segment, seq, fault)

    def plain(self, told: Plain, segment: int, seq: int) -> str:
        """As :meth:`entry`, of a plain DECISION; the agent's id. Of agents that are the same to the byte, and not long,
        one is held against the registries in force."""
        found = self._sound.get(told.who)
        if found is None:
            return self._plain(told, segment, seq)
        self._count(found[0])
        return found[1]

    def _plain(self, told: Plain, segment: int, seq: int) -> str:
        value, unknown = told.value(), self._unknown
        worth, agent = self._count(self._worth(value)), str(value["agent"]["id"])
        fault = self._decision(value)
        if fault:
            self._findings.add(Verdict.TAMPERED, segment, seq, fault)
        elif unknown == self._unknown:
            if len(self._sound) >= AGENTS:
                self._sound.clear()
            self._sound[told.who] = worth, agent
        return agent

    def _count(self, worth: str) -> str:
        self.decisions[worth] += 1
        if worth == "asserted":
            self._coverage.asserted += 1
        return worth

    def registries(self, digest: str | None) -> list[Registry]:
        """The registry of this digest, if it is one of the last two; None: both."""
        return [read for read in self._known if digest in (None, read.digest)]

    @property
    def all_known(self) -> bool:
        """Whether the last two registries that were put in force are known, if there were any."""
        return self._settled or (self._coverage.whole and not self._blind)

    def before(self, text: bytes) -> None:
        """A registry that was in force before the stream. Raises Malformed."""
        self._force(registry.parse(text))

    def blind(self) -> None:
        """A REGISTRY entry is withheld: which registries are in force is not known from here on."""
        self._blind, self._settled = True, False
        self._known.clear()
        self._sound.clear()

    def finish(self) -> None:
        """The stream has ended."""
        if self._unknown:
            entries = number_of(self._unknown, "entry", "entries")
            self._coverage.leave(f"whose key it is, in {entries}: the registry is not here")

    def _put_in_force(self, value: Mapping[str, Any], segment: int, seq: int) -> None:
        if value["event"] == "refused":
            return
        text = value["registry"].encode()
        if hashlib.sha256(text).hexdigest() != value["digest"]:
            self._findings.add(Verdict.TAMPERED, segment, seq, "its digest is not that of the registry in it")
            return
        try:
            read = registry.parse(text)
        except Malformed as error:
            self._findings.add(Verdict.MALFORMED, segment, seq, str(error))
            return
        self._force(read)
        self._settled = self._settled or len(self._known) == _LAST

    def _force(self, read: Registry) -> None:
        self._sound.clear()
        self._known = [*self._known, read][-_LAST:]

    def _decision(self, value: Mapping[str, Any]) -> str | None:
        agent, named = value["agent"], value["registry"]
        if named is None:
            if value["executor"] is not None:
                return "it names an executor, and no registry that knows it"
            proved = agent["proof"] == "gateway" or agent["proof"].startswith("signature")
            return "it names no registry by which its agent was proved" if proved else None
        return self._speaker(agent, named["digest"]) or self._executor(value["executor"], named["digest"])

    def _reporter(self, by: Mapping[str, Any]) -> str | None:
        if by["proof"] == "gateway" and by["gateway"] != by["id"]:
            return f"{by['gateway']} reported in the name of {by['id']}"
        return self._speaker(by, None)

    def _executor(self, executor: Mapping[str, Any] | None, digest: str) -> str | None:
        return None if executor is None else self._speaker({**executor, "proof": _REGISTERED}, digest)

    def _speaker(self, by: Mapping[str, Any], digest: str | None) -> str | None:
        """What is wrong with who spoke. ``digest``: of the registry that the entry names, if it names one."""
        known = self.registries(digest)
        if digest is None and by["proof"] == "asserted" and not known:
            return None
        faults = [_fault(by, each) for each in known]
        if not all(faults):
            return None
        if not self.all_known and (not known or digest is None):
            self._unknown += 1
            return None
        return faults[-1] if faults else "the registry that it names was not in force"

    def _worth(self, value: Mapping[str, Any]) -> str:
        agent = value["agent"]
        known = _WORTH.get(agent["proof"])
        if known is None and value["sealed"]:
            return "unopened"
        return known or ("non_repudiable" if self._pinned(agent) else "signed")

    def _pinned(self, by: Mapping[str, Any]) -> bool:
        return self._trust is not None and key_id(base64.b64decode(by["key"])) in self._trust.keys_of(by["id"])


def _fault(by: Mapping[str, Any], read: Registry) -> str | None:
    principal = read.principals.get(by["id"])
    if principal is None:
        if by["proof"] == "asserted" and not by["roles"] and not by["attributes"]:
            return None
        return f"{by['id']} is not in the registry in force"
    if not is_as(principal, by):
        return f"roles or attributes of {by['id']} are not those of the registry in force"
    acting = by["id"] if by["proof"] == _REGISTERED else by["gateway"] if by["proof"] == "gateway" else None
    if acting is not None and not _is_executor(read.principals.get(acting)):
        return f"{acting} is no active executor in the registry in force"
    if by["proof"].startswith("signature"):
        key = principal.keys.get(key_id(base64.b64decode(by["key"])))
        if key is None or key.revoked:
            return f"the key is not one of {by['id']} in the registry in force"
    if by["proof"] in _WITH_SPIFFE and by["spiffe_id"] and by["spiffe_id"] not in principal.spiffe_ids:
        return f"the SPIFFE id is not one of {by['id']} in the registry in force"
    return None


def is_as(principal: Principal, said: Mapping[str, Any]) -> bool:
    """Whether roles and attributes in an entry are those of the registry: as JSON, where `true` is not 1, nor 1.0."""
    known = {"roles": principal.roles, "attributes": principal.attributes}
    return strictjson.same(known, {name: said[name] for name in known})


def _is_executor(principal: Principal | None) -> bool:
    return principal is not None and (principal.kind, principal.status) == ("executor", "active")
