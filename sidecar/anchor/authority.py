"""Timestamp authorities (RFC 3161, extra ``anchor``): asking for a timestamp on a checkpoint, and checking one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from cryptography import x509
from rfc3161_client import (
    HashAlgorithm,
    TimestampRequestBuilder,
    VerificationError,
    VerifierBuilder,
    decode_timestamp_response,
)

from sidecar.anchor.door import Door
from sidecar.chain import note
from sidecar.chain.timestamp import Timestamp
from sidecar.errors import AnchorRefused, AnchorUnavailable, Malformed

_SHA256 = x509.ObjectIdentifier("2.16.840.1.101.3.4.2.1")
_ASKED, _OK = "application/timestamp-query", 200


def roots_of(certificates: Sequence[bytes]) -> list[x509.Certificate]:
    """Root certificates from DER. Raises Malformed."""
    try:
        return [x509.load_der_x509_certificate(each) for each in certificates]
    except ValueError:
        raise Malformed("a timestamp authority's root is not a certificate in DER") from None


def check(stamp: Timestamp, roots: Sequence[x509.Certificate]) -> int:
    """When the authority saw the checkpoint, POSIX seconds.

    Raises:
        AnchorRefused: it is for other bytes, has another nonce, was not granted, or no root leads to its signer.
    """
    if not roots:
        raise AnchorRefused("timestamp: no root of an authority is given")
    builder = VerifierBuilder(nonce=stamp.nonce)
    for root in roots:
        builder = builder.add_root_certificate(root)
    try:
        response = decode_timestamp_response(stamp.response)
        if response.tst_info.message_imprint.hash_algorithm != _SHA256:
            raise AnchorRefused("timestamp: its imprint is not of SHA-256")
        builder.build().verify(response, sha256(stamp.checkpoint.encode()).digest())
        return int(response.tst_info.gen_time.timestamp())
    except VerificationError as error:
        raise AnchorRefused(f"timestamp: {error}") from None
    except ValueError as error:
        raise AnchorRefused(f"timestamp: not a response that was granted: {error}") from None


@dataclass(frozen=True, slots=True)
class Authority:
    """One authority: where it is asked, and the roots that its answers are checked by, DER.

    Raises:
        Malformed: a root that is no certificate.
    """

    door: Door
    roots: tuple[bytes, ...]

    def __post_init__(self) -> None:
        roots_of(self.roots)

    @property
    def name(self) -> str:
        """What logs and metrics call it."""
        return self.door.url

    def vouch(self, signed: bytes) -> Timestamp:
        """A timestamp on a checkpoint's text, checked.

        Raises:
            AnchorUnavailable: it does not answer, or not with a timestamp response.
            AnchorRefused: what it answered is no timestamp of what was asked.
        """
        text = note.parse(signed).text
        query = TimestampRequestBuilder().data(text.encode()).hash_algorithm(HashAlgorithm.SHA256).build()
        assert query.nonce is not None
        status, answer = self.door.post(query.as_bytes(), _ASKED)
        if status != _OK:
            raise AnchorUnavailable(f"{self.name}: it answers with status {status}")
        stamp = Timestamp(text, query.nonce, answer)
        check(stamp, roots_of(self.roots))
        return stamp
