"""Who asks: the facts of the transport, the registry of principals, signed requests.

Rules: nothing a caller merely asserts is taken for identity; whoever cannot be proved is refused. This room reads no
network and no clock: certificates come in verified, the time is an argument.
"""

from sidecar.identity.certificates import PRIVATE, Bundles, Verified, verify_chain
from sidecar.identity.spiffe_id import SpiffeId
from sidecar.identity.transport import Certificate, Transport

__all__ = ["PRIVATE", "Bundles", "Certificate", "SpiffeId", "Transport", "Verified", "verify_chain"]
