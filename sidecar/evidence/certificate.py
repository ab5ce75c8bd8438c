"""The certificate of custody: an in-toto Statement in a DSSE envelope (proto/CERTIFICATE.md, "Certificate")."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from sidecar.chain.signing import public_spki
from sidecar.chain.statement import key_id
from sidecar.errors import UsageError

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT: Final = "https://in-toto.io/Statement/v1"
PREDICATE: Final = "urn:decision-sidecar:v1:custody"
CERTIFICATE: Final = "data/certificate.dsse.json"
REPORT: Final = "data/report.pdf"


@dataclass(frozen=True, slots=True)
class ExporterKey:
    """Who signs certificates. ``id``: hex, SHA-256 of its SPKI."""

    private: Ed25519PrivateKey

    @property
    def id(self) -> str:
        """By which an auditor knows it."""
        return key_id(public_spki(self.private))

    @classmethod
    def from_pem(cls, pem: bytes) -> ExporterKey:
        """An unencrypted PKCS #8 PEM, as `sidecar keys exporter` makes it. Raises UsageError."""
        try:
            private = load_pem_private_key(pem, None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            private = None
        if not isinstance(private, Ed25519PrivateKey):
            raise UsageError("not an Ed25519 private key in an unencrypted PEM; make one: sidecar keys exporter")
        return cls(private)


def certificate(predicate: Mapping[str, Any], files: Mapping[str, str], key: ExporterKey) -> bytes:
    """The envelope's file. ``files``: SHA-256 in hex by name; the certificate and the report are not among its
    subjects."""
    subject = [
        {"name": name, "digest": {"sha256": digest}}
        for name, digest in sorted(files.items())
        if name not in (CERTIFICATE, REPORT)
    ]
    statement = {"_type": STATEMENT, "subject": subject, "predicateType": PREDICATE, "predicate": predicate}
    payload = orjson.dumps(statement)
    signature = key.private.sign(encoded(PAYLOAD_TYPE, payload))
    envelope = {
        "payload": b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": key.id, "sig": b64encode(signature).decode()}],
    }
    return orjson.dumps(envelope) + b"\n"


def encoded(kind: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what is signed."""
    return b"DSSEv1 %d %b %d %b" % (len(kind.encode()), kind.encode(), len(payload), payload)


def digest_of(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()
