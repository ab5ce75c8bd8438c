"""Every error the sidecar raises on purpose, named by who is at fault.

Each carries one line that names the cause and the mend. At the edge that line becomes a gRPC status or an exit code;
nothing else of the exception leaves the process. No message ever holds a key, a seed or a payload's content.
"""

from __future__ import annotations


class SidecarError(Exception):
    """Root of all errors raised on purpose.

    ``principal`` and ``decision_id``: who was proved to ask, and what decision it is about, where that is known.
    """

    principal = ""
    decision_id = ""


class UsageError(SidecarError):
    """The operator's: a flag, a configuration value or a file given to us. Exit code 2."""


class RequestError(SidecarError):
    """The caller's: a request that breaks the protocol. INVALID_ARGUMENT.

    ``field`` is the offending field's path as in the `.proto`, for instance ``alternatives[2].arguments``.
    """

    def __init__(self, field: str, cause: str) -> None:
        super().__init__(f"{field}: {cause}")
        self.field = field
        self.cause = cause


class CallerUnproved(SidecarError):
    """The caller's: who it is could not be established. UNAUTHENTICATED.

    ``why`` is a stable word for metrics.
    """

    def __init__(self, message: str, why: str = "unproved") -> None:
        super().__init__(message)
        self.why = why


class OtherEpoch(CallerUnproved):
    """What the caller signed is for another epoch than the chain is in, ``epoch``."""

    def __init__(self, message: str, epoch: int) -> None:
        super().__init__(message, "epoch")
        self.epoch = epoch


class NotPermitted(SidecarError):
    """The caller's: who it is is proved, ``principal``, and that one may not do this. PERMISSION_DENIED.

    ``why`` is a stable word for metrics.
    """

    def __init__(self, message: str, why: str = "delegation", principal: str = "") -> None:
        super().__init__(message)
        self.why, self.principal = why, principal


class NotFound(SidecarError):
    """The caller's: what it asks for is not in the ledger. NOT_FOUND."""


class Gone(NotFound):
    """The caller's: it was recorded, and is not here any more. NOT_FOUND."""


class WrongState(SidecarError):
    """The caller's: right, but not now (an outcome for a DENY, a proof of an open segment). FAILED_PRECONDITION."""


class OutcomeRefused(WrongState):
    """The reporter's: an outcome that does not go with its decision. ``why`` is a stable word for metrics."""

    def __init__(self, message: str, why: str) -> None:
        super().__init__(message)
        self.why = why


class TooMany(SidecarError):
    """The callers': more at a time than is held for them. RESOURCE_EXHAUSTED."""


class CertificateEnded(SidecarError):
    """Ours: the certificate that is shown where the call came has ended. UNAVAILABLE."""


class EngineError(SidecarError):
    """The policy engine's or the policy's: no usable decision came back. Always answered with DENY.

    ``cause`` is a stable word for entries and metrics.
    """

    cause = "engine_error"


class EngineTimeout(EngineError):
    """The engine did not answer within the time it was given."""

    cause = "engine_timeout"


class EngineUnavailable(EngineError):
    """The engine could not be reached."""

    cause = "engine_unavailable"


class PolicyUndefined(EngineError):
    """The policy says nothing about this input: the entry point is undefined."""

    cause = "policy_undefined"


class PolicyMisshaped(EngineError):
    """The policy answered something that is not a decision."""

    cause = "policy_misshaped"


class PolicyNotActive(EngineError):
    """The engine answered by a policy that nothing put in force."""

    cause = "policy_not_active"


class PolicyStale(EngineError):
    """The policy's source could not be asked for longer than is allowed."""

    cause = "policy_stale"


class Unshipped(EngineError):
    """More is recorded than the collector may be behind, and the configuration says deny."""

    cause = "unshipped"


class PolicyLoadError(UsageError):
    """A bundle that cannot be loaded: not a bundle, no Wasm, no such entry point."""


class PolicySourceError(SidecarError):
    """The place that policies come from: it cannot be reached or read. The policy in force stays."""


class LedgerError(SidecarError):
    """The ledger's: it cannot record. No answer may leave. UNAVAILABLE."""


class LedgerFull(LedgerError):
    """The ledger is near its limit and refuses before it would fail. RESOURCE_EXHAUSTED."""


class LedgerBusy(LedgerError):
    """Another process has this ledger open."""


class LedgerUnknown(LedgerError):
    """Not a ledger, or one of a version this program does not know."""


class LedgerOtherVersion(LedgerUnknown):
    """A ledger of a version this program does not know."""


class LedgerDamaged(LedgerError):
    """What is stored contradicts itself: somebody changed it from outside, or the disk did."""


class LedgerBehind(LedgerError):
    """The collector acknowledged more of this chain than the ledger holds, or something else: it is an old copy."""


class StorageError(SidecarError):
    """The collector's store or index cannot be read or written; whether a write persisted is not known. UNAVAILABLE."""


class LogRefused(SidecarError):
    """The fleet log will not sign: what is stored is older than, or other than, what was signed before."""


class AnchorUnavailable(SidecarError):
    """A timestamp authority's or witness's: it could not be reached or did not answer as its protocol asks."""


class AnchorRefused(SidecarError):
    """A timestamp authority's or witness's: it answered, and what it answered proves nothing or proves us wrong."""


class Malformed(SidecarError):
    """Bytes that are not what their place requires. The producer's fault; never ours to repair."""


class Oversize(Malformed):
    """Bytes beyond the limit of their place; nothing beyond it was looked at."""


class CollectorUnavailable(SidecarError):
    """The collector's: it could not be reached, or its answer is none. Asked again later."""


class CollectorRefused(SidecarError):
    """The collector answered, and refuses. ``code``: as in collector.proto, without its prefix."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"the collector refuses ({code}): {message}")
        self.code, self.cause = code, message


class CustodyError(SidecarError):
    """A custodian's key or share that does not open what it should; names the culprit."""


class CustodianMissing(CustodyError):
    """Keys that a chain's seeds need were not given. The operator's to mend; it says nothing about the ledger."""


class ProofRejected(SidecarError):
    """A proof of the right shape that does not lead to the root."""


class SignatureInvalid(SidecarError):
    """A signature of the right shape that does not verify."""
