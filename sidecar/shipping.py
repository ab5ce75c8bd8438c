"""The sidecar's shipping put together from its configuration. Belongs to `main.py`: see there."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from pathlib import Path

import grpc
from cryptography import x509

from sidecar.chain import note
from sidecar.chain.ack import Ack
from sidecar.chain.acts import AcceptLoss
from sidecar.chain.authority_note import Grant
from sidecar.client import Source, Tls, TlsFiles, TlsSpiffe, open_source
from sidecar.config import MIB, Config, read_file
from sidecar.errors import LedgerError, Malformed, UsageError
from sidecar.ledger import Ledger, Left
from sidecar.ship import Backlog, Bounds, Confirmation, GrpcLink, Receipts, Shipper, acknowledged

log = logging.getLogger("sidecar.ship")

_SVID_SECONDS = 20.0
_ROLL_SECONDS = 60.0  # between two questions for the newest roll-call, where nothing else is asked


class Shipping:
    """Shipping as configured, from before the ledger opens to after its last seal; without an address it does nothing.

    Raises:
        UsageError: a key or file that cannot be used.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._source: Source[grpc.ChannelCredentials] | None = None
        self._shipper: Shipper | None = None
        self.backlog: Backlog | None = None
        self._stopping = threading.Event()
        if config.collector_address:
            self._key = _log_key(config.collector_log_key)
            tls = _tls(config)
            self._source = open_source(tls) if tls else None
            self._link = GrpcLink(config.collector_address, self._shown, config.collector_server_name)

    def _shown(self) -> grpc.ChannelCredentials | None:
        """What the collector is shown now; waits for the SPIFFE agent's first SVID. Raises UsageError."""
        if self._source is None:
            return None
        self._source.wait(_SVID_SECONDS)
        return self._source.current()

    def confirm(self, left: Left) -> bool | Grant:
        """As `ledger.Confirm`: whether the collector said that this ledger is the newest; True without a collector."""
        if not self._config.collector_address:
            return True
        word = self._confirmation()(left)
        if isinstance(word, Grant) and isinstance(word.act, AcceptLoss):
            # before the epoch begins: after a crash in it nobody would know that these are of what was lost
            Receipts(Path(self._config.data_dir), self._key).set_aside(word.act.kept.segment)
        return word

    def lost(self, left: Left, reason: str) -> AcceptLoss:
        """What the authority would have to accept. Raises UsageError."""
        if not self._config.collector_address:
            raise UsageError("collector.address is not set: only a collector can say what was lost")
        return self._confirmation().lost(left, reason)

    def _confirmation(self) -> Confirmation:
        allowed, path = self._config.collector_unconfirmed_start, self._config.collector_accept_loss_file

        def accepted() -> bytes:
            return read_file(Path(path), "authority note") if path else b""

        return Confirmation(
            self._link, self._key, self._token, stopping=self._stopping, unconfirmed=allowed, accepted=accepted
        )

    def break_off(self) -> None:
        """What `confirm` asks is answered no more: the end was asked for. On another thread."""
        self._stopping.set()
        if self._config.collector_address:
            self._link.expire(0.0)
            self._link.close()
        if self._source is not None:
            self._source.close()

    def begin(self, ledger: Ledger, on_failure: Callable[[LedgerError], None]) -> None:
        """Ship from now on."""
        config = self._config
        if not config.collector_address:
            return
        bounds = Bounds(
            config.collector_max_unshipped_entries,
            config.collector_max_unshipped_seconds,
            int(config.collector_max_unshipped_mib * MIB),
            config.collector_unshipped == "deny",
        )
        receipts = Receipts(Path(config.data_dir), self._key)

        def recorded() -> tuple[int, int]:
            at = ledger.position()
            return at.next_seq, at.written

        first, before = ledger.position().next_seq, ledger.usage().bytes_used
        self.backlog = Backlog(recorded, bounds, first=first, before=before)
        self._shipper = Shipper(
            ledger.book(),
            ledger.left,
            self._link,
            self._key,
            receipts,
            self.backlog,
            self._token,
            period=config.collector_period,
            roll_seconds=_ROLL_SECONDS,
            on_failure=on_failure,
        )

    def check(self) -> None:
        """Raises Unshipped where no decision may be made."""
        if self.backlog is not None:
            self.backlog.check()

    def end(self, ledger: Ledger, *, failed: bool) -> None:
        """The ledger's end: seal it, ship the rest and have its receipts, where nothing failed."""
        if self._shipper is not None:
            self._shipper.close()
        ledger.end()
        if self._shipper is not None and not failed:
            linger = self._config.collector_linger
            self._link.expire(linger)  # one call to a collector that is slow could take longer than all there is
            if not self._shipper.finish(linger):
                log.warning("not all receipts of the ledger's end were had in time; the next start asks for them")
        self.let_go()

    def acknowledged(self, chain_id: bytes) -> Ack:
        """What the collector holds of a chain, signed by its log. Raises CollectorUnavailable, CollectorRefused."""
        return acknowledged(self._link.where(chain_id), chain_id, self._key)

    def let_go(self) -> None:
        """Close what was opened."""
        if self._config.collector_address:
            self._link.close()
        if self._source is not None:
            self._source.close()

    # --- what metrics show

    @property
    def watched(self) -> bool:
        """Whether there is anything to show."""
        return self._shipper is not None

    @property
    def certificate_end(self) -> float:
        """When the certificate ends that the collector is shown from a file, seconds since 1970; nan: it is none."""
        try:
            pem = Path(self._config.collector_tls_cert_file).read_bytes()
            return x509.load_pem_x509_certificate(pem).not_valid_after_utc.timestamp()
        except (OSError, ValueError):
            return math.nan

    @property
    def _at_work(self) -> tuple[Shipper, Backlog]:
        assert self._shipper is not None and self.backlog is not None
        return self._shipper, self.backlog

    @property
    def anchored(self) -> int:
        """The number of the first entry that no receipt covers."""
        return self._at_work[0].anchored

    @property
    def unshipped_entries(self) -> int:
        """Entries that the collector has not acknowledged."""
        return self._at_work[1].entries

    @property
    def unshipped_bytes(self) -> int:
        """Bytes of them, as they are stored."""
        return self._at_work[1].size

    @property
    def unshipped_age_seconds(self) -> float:
        """Age at most of the oldest of them."""
        return self._at_work[1].age

    @property
    def unshipped_exceeded(self) -> bool:
        """Whether that is more than may be."""
        return self._at_work[1].exceeded

    @property
    def acknowledged_entries(self) -> int:
        """Entries that the collector acknowledged."""
        return self._at_work[1].acknowledged

    @property
    def shipped_bytes(self) -> int:
        """Bytes of parcels sent in this run."""
        return self._at_work[0].bytes

    @property
    def let_go_entries(self) -> int:
        """Entries that left the ledger in this run."""
        return self._at_work[0].trimmed

    @property
    def ship_failures(self) -> int:
        """Attempts in a row that failed."""
        return self._at_work[0].failures

    @property
    def ship_refused(self) -> int:
        """Refusals in this run."""
        return self._at_work[0].refused

    @property
    def unreceipted_age_seconds(self) -> float:
        """Since the oldest note was shipped that has no receipt."""
        return self._at_work[0].unanchored

    def _token(self) -> bytes:
        path = self._config.collector_token_file
        return read_file(Path(path), "enrolment token").strip() if path else b""


def _log_key(vkey: str) -> note.VerifierKey:
    try:
        return note.parse_vkey(vkey)
    except Malformed as error:
        raise UsageError(f"collector.log_key: {error}") from None


def _tls(config: Config) -> Tls | None:
    if config.collector_spiffe_socket:
        names = config.collector_spiffe_trust_domain, config.collector_server_name
        return TlsSpiffe(config.collector_spiffe_socket, *names)
    if config.collector_tls_ca_file:
        files = config.collector_tls_cert_file, config.collector_tls_key_file, config.collector_tls_ca_file
        return TlsFiles(*files, config.collector_server_name)
    return None
