"""Where a call comes from, and what its client certificate proves, once for each connection's certificate."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import grpc.aio
from google.protobuf.message import Message

from sidecar.errors import CallerUnproved, CertificateEnded
from sidecar.identity import Bundles, Shown, Transport, Verified, verify_chain
from sidecar.v1 import decision_pb2 as pb

Context = grpc.aio.ServicerContext[bytes, Message]

_REMEMBERED = 256  # certificates; 32 KiB each at the very most


def _now() -> datetime:
    return datetime.now(UTC)


class Transports:
    """``bundles`` gives who vouches for callers now, or None where callers show no certificate; ``ends``: when the
    certificate ends that callers are shown, in seconds since 1970. Then none is answered, on no connection.

    What was verified holds until a certificate of the chain ends, and while the bundles are the same.
    """

    def __init__(
        self,
        bundles: Callable[[], Bundles | None] = lambda: None,
        now: Callable[[], datetime] = _now,
        ends: Callable[[], float] = lambda: math.inf,
    ) -> None:
        self._bundles, self._now, self._ends = bundles, now, ends
        self._verified: OrderedDict[tuple[bytes, bytes], tuple[Bundles, Verified]] = OrderedDict()

    def of(self, context: Any) -> Transport:
        """What the transport proves of this call (gRPC's servicer context). Raises CallerUnproved, CertificateEnded."""
        if self._ends() <= self._now().timestamp():
            raise CertificateEnded("the certificate that is shown here has ended, so nobody is answered; renew it")
        bundles = self._bundles()
        if bundles is None:
            return Transport(peer_of(context))
        shown = context.auth_context()
        leaf, rest = (b"".join(shown.get(name, ())) for name in ("x509_pem_cert", "x509_pem_cert_chain"))
        if not leaf:
            raise CallerUnproved("certificate: is missing; connect with a client certificate", "no certificate")
        return Transport(peer_of(context), self._judged(leaf, rest, bundles).certificate)

    def shown(self, context: Any, signature: pb.Signature) -> Shown:
        """What comes with a message besides itself. Raises CallerUnproved."""
        return Shown(self.of(context), signature.statement, signature.signature)

    def _judged(self, leaf: bytes, rest: bytes, bundles: Bundles) -> Verified:
        now = self._now()
        known = self._verified.get((leaf, rest))
        if known is not None and known[0] is bundles and now < known[1].not_after:
            return known[1]
        self._verified.pop((leaf, rest), None)
        verified = verify_chain(leaf, rest, bundles, now)
        self._verified[leaf, rest] = bundles, verified
        if len(self._verified) > _REMEMBERED:
            self._verified.popitem(last=False)
        return verified


def peer_of(context: Any) -> str:
    """What the transport knows of the caller, without the port, so that one host is one peer."""
    peer = str(context.peer())
    if peer.startswith(("ipv4:", "ipv6:")):
        peer = peer.rpartition(":")[0]
    return peer[:256] or "unknown"


def trace_parent_of(context: Any) -> str:
    """The W3C `traceparent` that came with the call, as it came; "" without one."""
    return next((str(value) for key, value in context.invocation_metadata() or () if key == "traceparent"), "")
