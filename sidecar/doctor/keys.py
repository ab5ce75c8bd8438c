"""Keys and certificates: the ledger's identity, the custodians', those of TLS."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
)

from sidecar.api import half
from sidecar.client import WorkloadSource
from sidecar.config import read_file
from sidecar.custody import load_custodian
from sidecar.doctor.finding import Finding, careful, ok, skipped, unexamined, wrong
from sidecar.doctor.patient import Patient
from sidecar.doors import listeners
from sidecar.errors import SidecarError, UsageError
from sidecar.ledger import load_identity

_SHORT_RSA: Final = 3072
_SOON: Final = 14 * 86_400  # seconds before a certificate's end
_SVID_SECONDS: Final = 10.0
_FILES: Final = 1_000  # looked at in one directory
_LARGEST: Final = 64 << 10


def check_identity(patient: Patient) -> Iterator[Finding]:
    """The key by which the ledger's epochs are signed."""
    if not patient.founded:
        yield skipped("identity", "there is no ledger yet")
        return
    path = patient.directory / "identity.pem"
    load_identity(patient.directory, bytes.fromhex(patient.ledger.genesis["identity"]))
    found = True
    for each, least in ((path, 0o600), (patient.directory, 0o700)):
        mode = stat.S_IMODE(each.stat().st_mode)
        if mode & ~least:
            found = False
            yield wrong("identity", f"{each} has mode {mode:04o}", f"chmod {least:04o} {each}")
    if found:
        yield ok("identity", f"{path} is the chain's, for its owner alone")


def check_custodians(patient: Patient) -> Iterator[Finding]:
    """Whether they are the ledger's, strong enough, and their private keys elsewhere."""
    if not patient.founded:
        yield skipped("custodians", "there is no ledger yet")
        return
    theirs = [base64.b64decode(each["spki"]) for each in patient.ledger.genesis["custodians"]]
    known, found = {_fingerprint(spki) for spki in theirs}, False
    for path in map(Path, patient.config.custodians):
        spki = load_custodian(read_file(path, "custodian key"), path.stem).spki
        if _fingerprint(spki) not in known:
            found = True
            mend = "name the ledger's custodians, or have the authority change them"
            yield wrong("custodians", f"{path} is none of the ledger's custodians: nothing is sealed for it", mend)
    for spki in theirs:
        public: Any = load_der_public_key(spki)
        if isinstance(public, rsa.RSAPublicKey) and public.key_size < _SHORT_RSA:
            found = True
            mend = f"take one of {_SHORT_RSA} bits or X25519 for the next ledger"
            yield careful("custodians", f"{_fingerprint(spki)[:16]}… is RSA of {public.key_size} bits", mend)
    for path in _private_beside(patient.directory, known | _authority(patient)):
        found = True
        mend = "move it off this host: who has it reads all, and who reads it here needs no custodian"
        yield wrong("custodians", f"the private key of a custodian or the authority lies at {path}", mend)
    if not found:
        short = ", ".join(f"{each[:16]}…" for each in sorted(known))
        yield ok("custodians", f"{len(known)}, as GENESIS names them: {short}; no private key of theirs beside it")


def _authority(patient: Patient) -> set[str]:
    key = patient.ledger.genesis.get("authority")
    if not key:
        return set()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    return {_fingerprint(_spki(Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))))}


def _private_beside(directory: Path, known: set[str]) -> Iterator[Path]:
    """Files in the ledger's directory, or that above it, that hold a private key of one of these."""
    for place in (directory.absolute(), directory.absolute().parent):
        for path in sorted(place.iterdir())[:_FILES]:
            try:
                if not path.is_file() or path.stat().st_size > _LARGEST:
                    continue
                private = load_pem_private_key(path.read_bytes(), None)
            except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
                continue
            if _fingerprint(_spki(private.public_key())) in known:
                yield path


def check_certificates(patient: Patient) -> Iterator[Finding]:
    """When they end; keys whose files others can read are found by `check_separation`."""
    config, doors = patient.config, listeners(patient.config)
    files = [
        ("tls.cert_file", config.tls_cert_file), ("tls.client_ca_file", config.tls_client_ca_file),
        ("collector.tls_cert_file", config.collector_tls_cert_file),
        ("collector.tls_ca_file", config.collector_tls_ca_file),
        *((f"doors.{door.name}.tls_cert_file", door.files[0]) for door in doors),
        *((f"doors.{door.name}.tls_client_ca_file", door.files[2]) for door in doors),
    ]  # fmt: skip
    named = [(name, Path(path)) for name, path in files if path]
    agents = {config.spiffe_socket, config.collector_spiffe_socket, *(door.workload for door in doors)} - {""}
    if not named and not agents:
        yield skipped("certificates", "there are none")
    yield from (_svid(socket, patient.now) for socket in sorted(agents))
    yield from (_certificate(name, path, patient.now) for name, path in named)


def _certificate(name: str, path: Path, now: float) -> Finding:
    try:
        ends = [each.not_valid_after_utc for each in x509.load_pem_x509_certificates(read_file(path, name))]
    except ValueError:
        return wrong("certificates", f"{name}: {path} holds no certificate in PEM", "put one there")
    except SidecarError as error:
        return wrong("certificates", f"{name}: {error}", "put it there, readable for the sidecar")
    first = min(ends)
    day, left = first.astimezone(UTC).strftime("%Y-%m-%d"), first.timestamp() - now
    if left <= 0:
        return wrong("certificates", f"{name}: {path} ended on {day}", "renew it")
    if left < _SOON:
        at = datetime.fromtimestamp(now, UTC)
        return careful("certificates", f"{name}: {path} ends on {day}, in {(first - at).days} days", "renew it")
    return ok("certificates", f"{name}: {path}, to {day}")


def _svid(socket: str, now: float) -> Finding:
    try:
        with contextlib.closing(WorkloadSource(socket, half(mutual=True))) as source:
            source.wait(_SVID_SECONDS)
            end = source.current().not_after
    except UsageError as error:
        return unexamined("certificates", error)
    if end.timestamp() <= now:
        return wrong("certificates", f"the SVID from {socket} ended at {end:%H:%M}", "see to the SPIFFE agent")
    return ok("certificates", f"an SVID from {socket}, to {end:%Y-%m-%d %H:%M}")


def _spki(public: Any) -> bytes:
    found: bytes = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return found


def _fingerprint(spki: bytes) -> str:
    return hashlib.sha256(spki).hexdigest()
