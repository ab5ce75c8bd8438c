"""The one path from a request to a recorded answer: authenticate, evaluate, record, answer; outcomes.

Rules: no grpc, protobuf or lmdb here; whoever comes through a door is served by the same path. Nothing is answered
before it is durable, and whatever goes wrong is a DENY that is recorded or an error that permits nothing.
"""

from sidecar.decide.approvals import CAUSES as APPROVAL_CAUSES
from sidecar.decide.approvals import Pending
from sidecar.decide.approving import Approvals, State
from sidecar.decide.ask import Limits, check_size
from sidecar.decide.entries import Answer, Caller, Judgement, Origin, Refusal, Terms, named_in, policy_inputs
from sidecar.decide.erasure import Erasure
from sidecar.decide.faults import FAILED, FAULTS, refusal_of
from sidecar.decide.follow import Follower, Period
from sidecar.decide.follow_registry import RegistryFollower
from sidecar.decide.ids import new_decision_id
from sidecar.decide.in_force import InForce, Staleness
from sidecar.decide.observer import Observer, Stages, Unobserved
from sidecar.decide.outcomes import WHYS as OUTCOME_WHYS
from sidecar.decide.outcomes import why as outcome_why
from sidecar.decide.path import DecisionPath, Settings
from sidecar.decide.registered import Registered
from sidecar.decide.tracing import Span, Tracing, Untraced

__all__ = [
    "APPROVAL_CAUSES",
    "FAILED",
    "FAULTS",
    "OUTCOME_WHYS",
    "Answer",
    "Approvals",
    "Caller",
    "DecisionPath",
    "Erasure",
    "Follower",
    "InForce",
    "Judgement",
    "Limits",
    "Observer",
    "Origin",
    "Pending",
    "Period",
    "Refusal",
    "Registered",
    "RegistryFollower",
    "Settings",
    "Span",
    "Stages",
    "Staleness",
    "State",
    "Terms",
    "Tracing",
    "Unobserved",
    "Untraced",
    "check_size",
    "named_in",
    "new_decision_id",
    "outcome_why",
    "policy_inputs",
    "refusal_of",
]
