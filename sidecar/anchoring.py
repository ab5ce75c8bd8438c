"""A collector's anchors put together from its configuration. Belongs to `main.py`: see there."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from sidecar.anchor import Ahead, Chaser, Door, Pauses, Rounds, Witness
from sidecar.chain import checkpoint, cosignature, merkle, note
from sidecar.chain.checkpoint import Checkpoint
from sidecar.chain.note import Signature
from sidecar.collector import FleetLog
from sidecar.collector.proofs import Proofs
from sidecar.collector_config import Collecting
from sidecar.config import read_file
from sidecar.errors import AnchorRefused, LogRefused, Malformed, SidecarError, UsageError

log = logging.getLogger("sidecar.collector")

_FIRST_SECONDS = 3.0  # for a witness that is asked before anything is signed


def witness_keys(config: Collecting) -> list[tuple[note.VerifierKey, str]]:
    """Each witness's key and URL. Raises UsageError."""
    found = []
    for line in config.witnesses:
        vkey, _, url = line.partition(" ")
        try:
            found.append((note.parse_vkey(vkey, cosignature.COSIGNATURE), url.strip()))
        except Malformed as error:
            raise UsageError(f"witnesses: {error}; each is a verifier key, a space and a URL") from None
    return found


def timestamp_roots(config: Collecting) -> list[bytes]:
    """Roots of the timestamp authorities, DER. Raises UsageError."""
    from cryptography.x509 import load_pem_x509_certificates

    try:
        return [
            each.public_bytes(Encoding.DER)
            for path in config.timestamp_roots
            for each in load_pem_x509_certificates(read_file(Path(path), "timestamp root"))
        ]
    except ValueError:
        raise UsageError("timestamp_roots: a file holds no certificate in PEM") from None


class Anchors:
    """Witnesses, in rounds; and timestamp authorities, asked about what receipts rest on. ``on_behind``: a witness has
    seen more of the log than there is. Raises UsageError."""

    def __init__(
        self, config: Collecting, fleet: FleetLog, proofs: Proofs, on_behind: Callable[[LogRefused], None]
    ) -> None:
        self._proofs, self._on_behind = proofs, on_behind
        self._witnesses: list[Chaser[Any]] = [
            self._witness(Witness(key, Door(url), fleet.consistency)) for key, url in witness_keys(config)
        ]
        self._rounds = Rounds(self._witnesses)
        self._authorities: list[Chaser[Any]] = list(_authorities(config, proofs))
        self._lock, self._stamping = threading.Lock(), b""

    @property
    def all(self) -> list[Chaser[Any]]:
        """Every party."""
        return [*self._witnesses, *self._authorities]

    def offer(self, signed: bytes) -> None:
        """This is the newest checkpoint; returns at once."""
        self._rounds.offer(signed)
        if not self._witnesses:
            self._have_stamped(signed)

    def _witness(self, witness: Witness) -> Chaser[Any]:
        def got(signed: bytes, line: Signature) -> None:
            self._proofs.cosigned(signed, line)
            self._rounds.vouched(witness.name, signed)
            self._have_stamped(self._proofs.shown())

        def refused(error: AnchorRefused) -> None:
            if isinstance(error, Ahead):
                self._on_behind(LogRefused(str(error)))

        return Chaser(witness, got, on_refused=refused)

    def _have_stamped(self, shown: bytes) -> None:
        """Once, however often it is said."""
        with self._lock:
            new, self._stamping = shown not in (b"", self._stamping), shown
        for each in self._authorities if new else ():
            each.offer(shown)


def ask_first(config: Collecting, fleet: FleetLog, key: Ed25519PrivateKey) -> None:
    """Before anything is signed: has a witness seen more of this log than there is? One that does not answer is let be.

    Raises:
        LogRefused: it has: objects and index are an old copy, however well they agree.
    """
    empty = checkpoint.sign(Checkpoint(fleet.key.name, 0, merkle.EMPTY_ROOT), key)
    for each, url in witness_keys(config):
        try:
            Witness(each, Door(url, _FIRST_SECONDS), fleet.consistency).vouch(fleet.signed or empty)
        except Ahead as error:
            raise LogRefused(f"{error}; bring back the newer objects") from None
        except SidecarError as error:
            log.warning("nobody says whether this log is the newest: %s", error)


def _authorities(config: Collecting, proofs: Proofs) -> Iterator[Chaser[Any]]:
    if config.timestamp_urls:
        try:
            from sidecar.anchor.authority import Authority
        except ImportError:
            raise UsageError("timestamp_urls needs the extra anchor: pip install 'decision-sidecar[anchor]'") from None
        roots = tuple(timestamp_roots(config))
        for url in config.timestamp_urls:
            yield Chaser(Authority(Door(url), roots), partial(proofs.stamped, url), pauses=Pauses(between=1.0))
