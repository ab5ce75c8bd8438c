"""The registry in force, as entries name it, and the REGISTRY entries that put it there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sidecar.chain.entry import EntryType
from sidecar.chain.registry import Principal, Registry
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


def refused(kind: str, place: str, cause: str, before: Registered | None) -> Draft:
    """The entry that says that what was found there was not put in force."""
    source, was = {"kind": kind, "place": place}, None if before is None else before.read.digest
    payload: dict[str, Any] = {"type": "REGISTRY", "event": "refused", "digest": "", "revision": "", "source": source}
    return Draft(EntryType.REGISTRY, {**payload, "from": was, "cause": cause[:1024], "registry": ""})


def known(principal: Principal) -> dict[str, Any]:
    """What a policy is told of a principal, and payloads keep: the registry's word."""
    return {"id": principal.id, "roles": list(principal.roles), "attributes": dict(principal.attributes)}
