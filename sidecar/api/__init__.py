"""The sidecar's own gRPC services: thin, without rules; and what is told of them, in numbers and in the log.

Rules: bytes are parsed here, so that what does not parse is refused by field and recorded; whatever is decided, is
decided in `decide`. Our errors become statuses in one place. No label and no line of the log holds what a caller wrote.
"""

from sidecar.api.decision_log import DecisionLog
from sidecar.api.handshakes import FailedHandshakes
from sidecar.api.health import Health
from sidecar.api.metrics import Metrics
from sidecar.api.scraping import scraped
from sidecar.api.server import Server, answers, bound_unix, claim
from sidecar.api.services import NAMES, Services
from sidecar.api.tls import ServerTls, half
from sidecar.api.transports import Transports, peer_of

__all__ = [
    "NAMES",
    "DecisionLog",
    "FailedHandshakes",
    "Health",
    "Metrics",
    "Server",
    "ServerTls",
    "Services",
    "Transports",
    "answers",
    "bound_unix",
    "claim",
    "half",
    "peer_of",
    "scraped",
]
