"""Signing what an agent sends (proto/SIGNING.md): each attempt anew, for the chain and epoch that the sidecar is in."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import grpc

from sidecar.chain.digests import Approval, Outcome, read_digest
from sidecar.chain.statement import Statement, key_id
from sidecar.client.failure import code_of
from sidecar.client.refusals import NoDecision, one_line
from sidecar.client.wire import request_digest
from sidecar.errors import Malformed, UsageError
from sidecar.v1 import decision_pb2 as pb

if TYPE_CHECKING:
    from sidecar.chain.signing import PrivateKey

HEAD: Final = "/sidecar.v1.LedgerService/Head"
_OUTDATED: Final = "epoch: "
_STATUSES: Final = {
    pb.OUTCOME_STATUS_EXECUTED: "executed",
    pb.OUTCOME_STATUS_BLOCKED: "blocked",
    pb.OUTCOME_STATUS_FAILED: "failed",
}

_VERDICTS: Final = {pb.APPROVAL_VERDICT_APPROVE: "approve", pb.APPROVAL_VERDICT_REJECT: "reject"}

Single = (
    pb.DecideRequest | pb.ReportOutcomeRequest | pb.ListApprovalsRequest | pb.ApproveRequest | pb.WatchApprovalRequest
)
Signed = Single | pb.DecideBatchRequest | pb.DecideStreamRequest


class Signer(Protocol):
    """A key that signs: in a file (`AgentKey`), a token, an agent of its own."""

    @property
    def spki(self) -> bytes:
        """Its public half: DER SubjectPublicKeyInfo, Ed25519 or P-256 as proto/SIGNING.md spells it."""
        ...

    def sign(self, message: bytes) -> bytes:
        """64 bytes, as proto/SIGNING.md, "Keys"."""
        ...


class AgentKey:
    """An Ed25519 or P-256 key held in this process."""

    def __init__(self, private: PrivateKey) -> None:
        from sidecar.chain.signing import public_spki  # cryptography is slow to import, and only signing needs it

        self._private = private
        self.spki = public_spki(private)

    @classmethod
    def from_file(cls, path: str | Path) -> AgentKey:
        """The key in an unencrypted PKCS #8 PEM, as `sidecar keys agent` makes it. Raises UsageError."""
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            private = load_pem_private_key(Path(path).read_bytes(), None)
        except OSError as error:
            raise UsageError(f"cannot read agent key {path}: {error.strerror}") from None
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise UsageError(f"agent key {path}: not an unencrypted PKCS #8 PEM of a private key") from None
        try:
            return cls(private)  # type: ignore[arg-type]  # any kind of key: what is none of ours is refused
        except (Malformed, AttributeError):
            raise UsageError(f"agent key {path}: neither Ed25519 nor P-256; make one: sidecar keys agent") from None

    def sign(self, message: bytes) -> bytes:
        """As `Signer.sign`."""
        from sidecar.chain.signing import sign

        return sign(self._private, message)


class Signing:
    """Signs one principal's messages. ``chain``: hex id of the only chain to sign for; None: the first that answers."""

    def __init__(self, by: str, key: Signer, chain: str | None) -> None:
        try:
            self._chain = None if chain is None else bytes.fromhex(chain)
        except ValueError:
            self._chain = b""
        if self._chain is not None and len(self._chain) != 32:
            raise UsageError("chain is not a chain's id: 64 hex digits, as `sidecar init` prints it")
        self._by, self._key, self._key_id = by, key, key_id(key.spki)
        self._epoch = 0
        self._stale = True

    @property
    def ready(self) -> bool:
        """Whether chain and epoch are known; else somebody must ask Head, and :meth:`learn`."""
        return not self._stale

    def learn(self, head: pb.HeadResponse) -> None:
        """Chain and epoch as the sidecar says them. NoDecision for another chain than the one known."""
        if self._chain is not None and head.chain_id != self._chain:
            raise NoDecision(
                "refused", f"the sidecar keeps another chain, {head.chain_id.hex()}; nothing is signed for it"
            )
        self._chain, self._epoch, self._stale = head.chain_id, head.epoch, False

    def outdated(self, code: int, message: str) -> bool:
        """Whether a refusal says that the sidecar has begun another epoch; then it must be asked for it."""
        old = code == grpc.StatusCode.UNAUTHENTICATED.value[0] and message.startswith(_OUTDATED)
        self._stale = self._stale or old
        return old

    def outdated_by(self, error: Exception) -> bool:
        """As :meth:`outdated`, of a failed call."""
        code = code_of(error)
        details = error.details() if hasattr(error, "details") else None
        return code is not None and self.outdated(code.value[0], details or "")

    def sign(self, message: Signed) -> None:
        """Put fresh signatures into a message. Raises NoDecision where the key cannot sign."""
        for each in _parts(message):
            kind, digest = _said(each)
            try:
                text = self._statement(kind, digest)
                each.signature.CopyFrom(pb.Signature(statement=text, signature=self._key.sign(text)))
            except Exception as error:
                raise NoDecision("refused", f"the request cannot be signed: {one_line(str(error))}") from error

    def _statement(self, kind: str, digest: bytes) -> bytes:
        assert self._chain is not None
        nonce = os.urandom(16)
        said = Statement(kind, self._chain, self._epoch, self._by, self._key_id, digest, time.time_ns(), nonce)
        return said.encode()


def _parts(message: Signed) -> Sequence[Single]:
    if isinstance(message, pb.DecideBatchRequest):
        return list(message.requests)
    if isinstance(message, pb.DecideStreamRequest):
        return [question.request for question in message.questions]
    return [message]


def _said(message: Single) -> tuple[str, bytes]:
    """The statement's kind, and the message's digest."""
    if isinstance(message, pb.DecideRequest):
        return "request", request_digest(message)
    if isinstance(message, pb.ListApprovalsRequest):
        return "read", read_digest(message.by, "approvals", "")
    if isinstance(message, pb.WatchApprovalRequest):
        return "read", read_digest(message.by, "watch", message.decision_id)
    if isinstance(message, pb.ApproveRequest):
        return "approval", Approval(
            message.by, message.decision_id, _VERDICTS[message.verdict], message.action_digest,
            message.arguments_digest, message.bundle_digest, message.policy_revision, message.comment,
        ).digest()  # fmt: skip
    m = message
    return "outcome", Outcome(
        m.agent, m.decision_id, _STATUSES[m.status], m.response, m.response_digest, m.permit, m.arguments_digest,
        m.downstream_status, m.started_ns, m.duration_ns,
    ).digest()  # fmt: skip
