"""Who asks: the facts of the transport, the registry of principals, signed requests.

Rules: nothing a caller merely asserts is taken for identity; whoever cannot be proved is refused. This room reads no
network and no clock: certificates come in verified, the time is an argument.
"""

from sidecar.identity.transport import Certificate, Transport

__all__ = ["Certificate", "Transport"]
