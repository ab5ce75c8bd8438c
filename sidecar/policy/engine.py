"""The engine port: what decides, as the rest of the sidecar sees it.

An engine takes the policy input document and gives back whatever the policy said, unjudged; `verdict.interpret`
judges it. The document is the same for every engine::

    {"agent": {"id": "billing-agent", "proof": "asserted", "roles": [], "attributes": {}},
     "action": "payments.transfer", "resource": {"type": "account", "id": "acct-17"},
     "arguments": {}, "context": {}, "purpose": "", "time": "2026-11-23T17:00:00.123456789Z"}

`time` is the only clock a policy may read, so that a past decision can be run again exactly.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final, Protocol

from sidecar.errors import UsageError

_ENTRYPOINT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*")
_DIGEST: Final = re.compile(r"([0-9a-f]{64})?")


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """Which engine answered, under which policy.

    ``engine`` is "opa" or "wasm", ``entrypoint`` the rule's path ("agents/decision"), ``revision`` the bundle's
    revision as the engine reported it, ``bundle_digest`` the SHA-256 of the bundle file in hex. What the engine does
    not tell is "".
    """

    engine: str
    engine_version: str
    entrypoint: str
    revision: str
    bundle_digest: str

    def __post_init__(self) -> None:
        check_entrypoint(self.entrypoint)
        if not _DIGEST.fullmatch(self.bundle_digest):
            raise ValueError("bundle_digest must be 64 hex digits or empty")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the policy said: ``result`` is the whole decision document as parsed JSON, not yet judged."""

    result: object
    version: PolicyVersion


class Engine(Protocol):
    """Anything that can evaluate a policy. Implementations: `OpaEngine`, `WasmEngine`."""

    @property
    def version(self) -> PolicyVersion:
        """The best known version, without asking anybody."""
        ...

    async def evaluate(self, document: dict[str, Any], timeout: float) -> Evaluation:
        """Evaluate ``document`` within ``timeout`` seconds, all waiting included.

        Raises `EngineError` or a subclass, and nothing else, when no decision document came back:
        `EngineTimeout`, `EngineUnavailable`, `PolicyUndefined`, `PolicyMisshaped`. Cancelling is passed on at once.
        """
        ...

    async def ready(self) -> None:
        """Return when the engine can decide now; raise `EngineError` when it cannot.

        Asks the policy about an agent nobody knows, so an entry point that does not exist, or has no default, is
        found before the first real request.
        """
        ...

    async def close(self) -> None:
        """Release connections, threads and memory. Evaluating afterwards raises `EngineUnavailable`."""
        ...


READY_TIMEOUT: Final = 2.0  # seconds, for the question `ready` asks

# Nobody's agent: a policy that is there answers DENY.
READY_PROBE: Final[dict[str, Any]] = {
    "agent": {"id": "sidecar-ready-probe", "proof": "asserted", "roles": [], "attributes": {}},
    "action": "sidecar.ready",
    "resource": {"type": "sidecar", "id": "ready"},
    "arguments": {},
    "context": {},
    "purpose": "readiness probe",
    "time": "2000-01-03T12:00:00.000000000Z",
}


def check_entrypoint(entrypoint: str) -> None:
    """Raise `UsageError` unless ``entrypoint`` is a rule's path such as "agents/decision"."""
    if not _ENTRYPOINT.fullmatch(entrypoint):
        raise UsageError(f"policy entry point {entrypoint!r} is not a rule's path; write it like agents/decision")
