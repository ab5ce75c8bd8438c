"""The sidecar's own gRPC services: thin, without rules.

Rules: bytes are parsed here, so that what does not parse is refused by field and recorded; whatever is decided, is
decided in `decide`. Our errors become statuses in one place.
"""

from sidecar.api.server import Server
from sidecar.api.services import Services

__all__ = ["Server", "Services"]
