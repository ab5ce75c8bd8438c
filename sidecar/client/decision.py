"""What a sidecar answers, as plain values: no message types of the wire reach the agent's code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sidecar.client.wire import Ask


class Effect(StrEnum):
    """What may be done. Only ALLOW lets an action run."""

    ALLOW = "ALLOW"
    DENY = "DENY"
    REQUIRE_APPROVAL = "REQUIRE_APPROVAL"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why: ``code`` is stable and for programs, ``message`` is for people."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Obligation:
    """Something that must be done before or with an allowed action."""

    kind: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Alternative:
    """Something the agent could do instead; asked along with the action itself."""

    action: str
    resource: tuple[str, str]
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AlternativeVerdict:
    """What the policy says of one alternative. To do it, ask for it: this verdict is no permission."""

    alternative: Alternative
    effect: Effect
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """Which policy answered, as in the `.proto`; empty where the engine does not show it."""

    engine: str
    engine_version: str
    entrypoint: str
    revision: str
    bundle_digest: str


@dataclass(frozen=True, slots=True)
class ApprovalTerms:
    """What an approval takes: so many approvers, each with one of these roles if there are any, and until when."""

    count: int
    roles: tuple[str, ...]
    expires_ns: int


class Leave:
    """What is left of a decision: it is acted on once, and with its obligations ``met``."""

    __slots__ = ("_left", "met")

    def __init__(self) -> None:
        self.met = False
        self._left = [True]

    def take(self) -> bool:
        """Whether it was there still; of many who take it at once, one gets it."""
        try:
            return self._left.pop()
        except IndexError:
            return False


@dataclass(frozen=True, slots=True)
class Decision:
    """One answer of the sidecar.

    ``receipt`` is the signed head that names this decision (`proto/LEDGER.md`): with it anybody can show that this
    answer was given. ``seq`` is the entry's place in the chain, from 0. ``agent_proof`` is how the agent was proved;
    "asserted" means not at all. ``enforced`` False: the sidecar runs in shadow; `may_go_on` says what follows.
    ``arguments`` are the bytes that were asked about. Where an ``executor`` was named, an ALLOW has its ``permit``:
    hand it over with the arguments, byte for byte. It acts at most once, and reports.
    ``approval``: with REQUIRE_APPROVAL, what that takes. ``asked``: the question, for asking it again once approved.
    """

    action: str
    decision_id: str
    effect: Effect
    reasons: tuple[Reason, ...]
    obligations: tuple[Obligation, ...]
    alternatives: tuple[AlternativeVerdict, ...]
    policy: PolicyVersion
    seq: int
    receipt: bytes
    agent_proof: str
    enforced: bool = True
    arguments: bytes = b"{}"
    executor: str = ""
    permit: bytes = b""
    approval: ApprovalTerms | None = None
    asked: Ask | None = field(default=None, repr=False, compare=False)
    leave: Leave = field(default_factory=Leave, repr=False, compare=False)

    def may_go_on(self, *, shadow: bool) -> bool:
        """Whether the action may run: on ALLOW; always, where sidecar and guard are both configured for shadow."""
        return self.effect is Effect.ALLOW or (shadow and not self.enforced)
