"""What of a chain concerns some agents, and what is withheld from a bundle about them.

proto/EVIDENCE.md, "Bare entry".

An entry of somebody else keeps its header and tag: the chain stands, and the tag key shows that it bears another
agent's name.
"""

from __future__ import annotations

from typing import Any, Final

from sidecar.chain.entry import HEADER_SIZE, TAG_SIZE, EntryType
from sidecar.chain.stream import Kind

_TYPE_AT: Final = 8
_TAGGED: Final = HEADER_SIZE + TAG_SIZE
_ABOUT_AGENTS: Final = frozenset({EntryType.DECISION, EntryType.OUTCOME, EntryType.APPROVAL})
_WITHHELD: Final = frozenset({*_ABOUT_AGENTS, EntryType.REJECTED, EntryType.REGISTRY})


class Withhold:
    """``agents`` None: nothing is withheld. ``entries``: how many were."""

    def __init__(self, agents: tuple[str, ...] | None) -> None:
        self._agents = None if agents is None else frozenset(agents)
        self.entries = 0

    def entry(self, body: bytes, payload: dict[str, Any] | None) -> tuple[Kind, bytes]:
        """The record to give in place of a stored entry. ``payload``: None where it cannot be read."""
        if self._agents is None or body[_TYPE_AT] not in _WITHHELD or self._concerns(body[_TYPE_AT], payload):
            return Kind.ENTRY, body
        self.entries += 1
        return Kind.BARE, body[:_TAGGED]

    def _concerns(self, kind: int, payload: dict[str, Any] | None) -> bool:
        assert self._agents is not None
        if kind == EntryType.REGISTRY:
            return False
        if payload is None:
            return True  # damage is shown, not hidden
        named = payload.get("principal") if kind == EntryType.REJECTED else _agent(payload)
        return named in self._agents


def _agent(payload: dict[str, Any]) -> object:
    agent = payload.get("agent")
    return agent.get("id") if isinstance(agent, dict) else None
