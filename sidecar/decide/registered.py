"""The registry in force, as entries name it, and the REGISTRY entries that put it there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sidecar.chain.entry import EntryType
from sidecar.chain.registry import Principal, Registry
from sidecar.chain.request import Request
from sidecar.chain.statement import is_principal
from sidecar.errors import RequestError
from sidecar.ledger import Draft


@dataclass(frozen=True, slots=True)
class Registered:
    """A registry with where it came from; ``revision``: the commit it came with, or ""."""

    read: Registry
    kind: str
    place: str
    revision: str = ""

    def member(self) -> dict[str, str]:
        """The ``registry`` member of payloads."""
        return {"revision": self.revision, "digest": self.read.digest}

    def draft(self, before: Registered | None, *, resumed: bool = False) -> Draft:
        """The entry that puts it in force."""
        payload = {
            "type": "REGISTRY",
            "event": "resumed" if resumed else "activated",
            "digest": self.read.digest,
            "revision": self.revision,
            "source": {"kind": self.kind, "place": self.place},
            "from": None if before is None else before.read.digest,
            "cause": "",
            "registry": self.read.text.decode(),
        }
        return Draft(EntryType.REGISTRY, payload)


def executor_of(registry: Registered | None, request: Request) -> dict[str, Any] | None:
    """The executor that a request names, as entries and policies know it; None where it names none.

    Raises:
        RequestError: it is not an active executor, or the agent's name is none that a permit can carry.
    """
    if not request.executor:
        return None
    known = None if registry is None else registry.read.principals.get(request.executor)
    if known is None or known.kind != "executor" or known.status != "active":
        raise RequestError("executor", "is not an active executor in the registry in force")
    if not is_principal(request.agent):
        raise RequestError("agent", "is not the id of a principal; where an executor is named it must be")
    return {"id": known.id, "roles": list(known.roles), "attributes": dict(known.attributes)}


def refused(kind: str, place: str, cause: str, before: Registered | None) -> Draft:
    """The entry that says that what was found there was not put in force."""
    source, was = {"kind": kind, "place": place}, None if before is None else before.read.digest
    payload: dict[str, Any] = {"type": "REGISTRY", "event": "refused", "digest": "", "revision": "", "source": source}
    return Draft(EntryType.REGISTRY, {**payload, "from": was, "cause": cause[:1024], "registry": ""})


def known(principal: Principal) -> dict[str, Any]:
    """What a policy is told of a principal, and payloads keep: the registry's word."""
    return {"id": principal.id, "roles": list(principal.roles), "attributes": dict(principal.attributes)}
