"""Who asks: the facts of the transport, the registry of principals, signed requests.

Rules: nothing a caller merely asserts is taken for identity; whoever cannot be proved is refused. This room reads no
network and no clock: certificates come in verified, the time is an argument.
"""

from sidecar.identity.certificates import PRIVATE, Bundles, Verified, verify_chain
from sidecar.identity.gateways import Voucher
from sidecar.identity.nonces import Nonces
from sidecar.identity.proving import AGENTS, ANYBODY, REPORTERS, WHYS, Claim, Proved, Prover, Shown, Terms, owner_of
from sidecar.identity.registry_file import RegistryFile
from sidecar.identity.spiffe_id import SpiffeId
from sidecar.identity.transport import Certificate, Transport

__all__ = [
    "AGENTS",
    "ANYBODY",
    "PRIVATE",
    "REPORTERS",
    "WHYS",
    "Bundles",
    "Certificate",
    "Claim",
    "Nonces",
    "Proved",
    "Prover",
    "RegistryFile",
    "Shown",
    "SpiffeId",
    "Terms",
    "Transport",
    "Verified",
    "Voucher",
    "owner_of",
    "verify_chain",
]
