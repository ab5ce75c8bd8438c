"""Before a sidecar starts an epoch: does the collector hold more of this chain than the ledger does?"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

from sidecar.chain import authority_note, note
from sidecar.chain.ack import Ack
from sidecar.chain.acts import AcceptLoss, Position
from sidecar.chain.authority_note import Grant
from sidecar.chain.note import VerifierKey
from sidecar.chain.parcel import enrol_message, pack, parcel_message
from sidecar.chain.stream import Kind
from sidecar.errors import CollectorRefused, CollectorUnavailable, LedgerBehind, Malformed, SignatureInvalid, UsageError
from sidecar.ship.link import Link, Where

log = logging.getLogger("sidecar.ship")

_ATTEMPTS, _PAUSE = 3, 0.5


class Left(Protocol):
    """The ledger as it was left: `ledger.Left`."""

    chain_id: bytes
    authority: bytes | None

    def place(self) -> Position:
        """Where the chain goes on."""

    def genesis(self) -> bytes:
        """The payload of GENESIS."""

    def leaf(self, seq: int) -> bytes | None:
        """The leaf of an entry, or None."""

    def sign(self, message: bytes) -> bytes:
        """64 bytes by the identity key."""


class Confirmation:
    """Asks the collector; ``token`` reads the enrolment token (b"": none), ``accepted`` the authority's note that
    accepts a loss (b"": none). ``stopping``: set once nobody wants to know any more. Raises from :meth:`__call__`:

    LedgerBehind: the collector holds what the ledger does not.
    UsageError: out of reach or refused, and that is not allowed.
    CollectorUnavailable: no answer came until ``stopping`` was set; that is no leave to begin.
    """

    def __init__(
        self,
        link: Link,
        key: VerifierKey,
        token: Callable[[], bytes],
        *,
        unconfirmed: bool,
        accepted: Callable[[], bytes] = lambda: b"",
        stopping: threading.Event | None = None,
    ) -> None:
        self._link, self._key, self._token = link, key, token
        self._unconfirmed, self._accepted, self._stopping = unconfirmed, accepted, stopping or threading.Event()

    def __call__(self, left: Left) -> bool | Grant:
        """Whether the collector said that the ledger is the newest; or by which grant it goes on after a loss."""
        try:
            found = self._ask(left)
        except CollectorUnavailable as error:
            if self._stopping.is_set():
                raise
            if not self._unconfirmed:
                raise UsageError(
                    f"{error}, so nobody can say that this ledger is the newest; mend that, or set "
                    "collector.unconfirmed_start"
                ) from None
            log.warning("%s: this start is unconfirmed, and OPEN says so", error)
            return False
        except CollectorRefused as error:
            if error.code in ("FORK", "ROLLBACK", "CLONE"):
                raise LedgerBehind(str(error)) from None
            raise UsageError(str(error)) from None
        try:
            check(found, left, self._key)
        except LedgerBehind:
            if not (record := self._accepted()):
                raise
            return self._go_on(record, left)
        return self._again(left) or True

    def _again(self, left: Left) -> Grant | None:
        """The collector took a loss, and the epoch that was to record it never began: the next one does."""
        try:
            grant = authority_note.read(self._accepted())
        except Malformed:
            return None
        if not isinstance(grant.act, AcceptLoss) or grant.act.kept != left.place():
            return None
        try:
            return self._go_on(grant.record, left)
        except UsageError as error:
            log.warning("collector.accept_loss_file is left out of account: %s", error)
            return None

    def lost(self, left: Left, reason: str) -> AcceptLoss:
        """What the authority would have to accept for this ledger to go on. Raises UsageError: nothing was lost."""
        try:
            found = self._ask(left)
        except (CollectorUnavailable, CollectorRefused) as error:
            raise UsageError(str(error)) from None
        ack = _acknowledged(found, left, self._key)
        kept, lost = left.place(), Position(found.segment, found.seq, ack.leaf or b"")
        try:
            return AcceptLoss(left.chain_id, kept, lost, reason)
        except Malformed as error:
            raise UsageError(f"the collector holds nothing that this ledger does not: {error}") from None

    def _go_on(self, record: bytes, left: Left) -> Grant:
        """Tell the collector that the authority accepted the loss. Raises LedgerBehind, UsageError: it is not so."""
        try:
            grant = authority_note.verify(record, left.chain_id, left.authority or b"")
        except (Malformed, SignatureInvalid) as error:
            raise UsageError(f"collector.accept_loss_file: {error}") from None
        act, kept = grant.act, left.place()
        if not isinstance(act, AcceptLoss) or act.kept != kept:
            raise UsageError(
                f"collector.accept_loss_file: it accepts no loss for a ledger that goes on at entry {kept.seq}, "
                f"segment {kept.segment}; ask for another with `sidecar loss`"
            )
        parcel = pack([(Kind.AUTHORITY, record)])
        try:
            signature = left.sign(parcel_message(left.chain_id, parcel))
            check(self._link.ship(left.chain_id, parcel, signature), left, self._key)
        except (CollectorUnavailable, CollectorRefused) as error:
            raise UsageError(f"the collector does not take the accepted loss: {error}") from None
        log.warning("entries %d to %d were lost; the authority accepted it", kept.seq, act.lost.seq - 1)
        return grant

    def _ask(self, left: Left) -> Where:
        for attempt in range(_ATTEMPTS):
            try:
                return self._where(left)
            except CollectorUnavailable:
                if attempt == _ATTEMPTS - 1:
                    raise
                self._stopping.wait(_PAUSE)
        raise AssertionError("unreachable")

    def _where(self, left: Left) -> Where:
        try:
            return self._link.where(left.chain_id)
        except CollectorRefused as error:
            if error.code != "UNKNOWN_CHAIN":
                raise
        enrol(self._link, left, self._token())
        return self._link.where(left.chain_id)


def enrol(link: Link, left: Left, token: bytes) -> None:
    """Make the chain known. Raises CollectorUnavailable, CollectorRefused."""
    genesis = left.genesis()
    link.enrol(genesis, token, left.sign(enrol_message(genesis, token)))


def acknowledged(found: Where, chain_id: bytes, key: VerifierKey) -> Ack:
    """What the collector's log says it holds. Raises CollectorUnavailable: not signed by the pinned log."""
    try:
        ack = Ack.parse(note.verify_single(found.acknowledgement, key.name, key.public_key))
    except (Malformed, SignatureInvalid) as error:
        raise CollectorUnavailable(f"what answers is not the collector of the pinned log ({error})") from None
    if ack.chain_id != chain_id:
        raise CollectorUnavailable("the collector answers about another chain")
    if (found.segment, found.seq) != (ack.segment, 0 if ack.seq is None else ack.seq + 1):
        raise CollectorUnavailable("the collector names another place to go on from than the one that it signed")
    return ack


def check(found: Where, left: Left, key: VerifierKey) -> None:
    """Hold the collector's word against the ledger. Raises LedgerBehind, UsageError."""
    ack = _acknowledged(found, left, key)
    if ack.seq is None:
        return
    ours = left.leaf(ack.seq)
    if ours is None:
        raise LedgerBehind(
            f"the collector holds entry {ack.seq} of this chain, and the ledger does not: it was restored from an old "
            "copy; bring back the newest, have the authority accept the loss (`sidecar loss`), or start a new chain"
        )
    if ours != ack.leaf:
        raise LedgerBehind(
            f"the collector holds another entry {ack.seq} of this chain than the ledger: it was cloned, or two "
            "sidecars ran on it; keep both, and start a new chain"
        )


def _acknowledged(found: Where, left: Left, key: VerifierKey) -> Ack:
    try:
        return acknowledged(found, left.chain_id, key)
    except CollectorUnavailable as error:
        raise UsageError(str(error)) from None
