"""The agents' SDK: ask the sidecar before an action, run the action only on ALLOW, report what became of it.

Owns the guards (`Guard`, `AsyncGuard`), the plain values of an answer and the refusals. Cheap to import: gRPC and the
stubs, nothing else. Imports only v1, errors, files, chain and verify, so it can be carried out of this project with
the stubs.

Rules: no answer is no permission. Deny, error, timeout, no sidecar, an effect or an obligation this client does not
know, or a receipt that contradicts its answer: it raises and the action does not run. Nothing is decided twice: a
question is asked again only with the same bytes under the same idempotency key. Every call has a deadline. What an
agent passes as arguments is never written to a log or an error.

    guard = Guard("unix:/run/sidecar.sock", agent="billing-agent")

    @guard.guarded("payments.transfer", resource=lambda amount, to: ("account", to))
    def transfer(amount: int, to: str) -> str: ...
"""

from typing import TYPE_CHECKING

from sidecar.client.aio import AsyncGuard, AsyncHandler
from sidecar.client.decision import (
    Alternative,
    AlternativeVerdict,
    ApprovalTerms,
    Decision,
    Effect,
    Obligation,
    PolicyVersion,
    Reason,
)
from sidecar.client.guard import Guard, Handler
from sidecar.client.guarded import AsyncGuarded, Guarded
from sidecar.client.material import FileSource, Material, Source, pem_of
from sidecar.client.outcome import Permit, Status, UnreportedOutcome
from sidecar.client.refusals import ApprovalRequired, Denied, NoDecision, NotApproved, Refused, UnmetObligation
from sidecar.client.signing import AgentKey, Signer
from sidecar.client.stream import DecisionStream
from sidecar.client.target import dialled
from sidecar.client.tls import Tls, TlsFiles, TlsSpiffe, open_source
from sidecar.client.tracing import trace_parent
from sidecar.client.wire import Ask
from sidecar.client.workload import WorkloadSource

if TYPE_CHECKING:
    from sidecar.client.approver import Approver, AsyncApprover, Pending
    from sidecar.client.delegating import delegate, dump_delegation, load_delegation

__all__ = [
    "AgentKey",
    "Alternative",
    "AlternativeVerdict",
    "ApprovalRequired",
    "ApprovalTerms",
    "Approver",
    "Ask",
    "AsyncApprover",
    "AsyncGuard",
    "AsyncGuarded",
    "AsyncHandler",
    "Decision",
    "DecisionStream",
    "Denied",
    "Effect",
    "FileSource",
    "Guard",
    "Guarded",
    "Handler",
    "Material",
    "NoDecision",
    "NotApproved",
    "Obligation",
    "Pending",
    "Permit",
    "PolicyVersion",
    "Reason",
    "Refused",
    "Signer",
    "Source",
    "Status",
    "Tls",
    "TlsFiles",
    "TlsSpiffe",
    "UnmetObligation",
    "UnreportedOutcome",
    "WorkloadSource",
    "delegate",
    "dialled",
    "dump_delegation",
    "load_delegation",
    "open_source",
    "pem_of",
    "trace_parent",
]


def __getattr__(name: str) -> object:
    """What approvers and delegators use is imported when used: it reads JSON strictly, and that is not cheap."""
    if name in ("Approver", "AsyncApprover", "Pending"):
        from sidecar.client import approver

        return getattr(approver, name)
    if name in ("delegate", "dump_delegation", "load_delegation"):
        from sidecar.client import delegating

        return getattr(delegating, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
