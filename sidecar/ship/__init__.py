"""The sidecar's half of shipping: the ledger's records to a collector, its receipts back (proto/SHIPPING.md).

Rules: it reads the ledger through its public reader and never holds up a decision; nothing that a collector answers is
believed before it is checked against the log's pinned key; gRPC is in `grpc` alone.
"""

from sidecar.ship.backlog import Backlog, Bounds
from sidecar.ship.grpc import GrpcLink
from sidecar.ship.link import Link
from sidecar.ship.receipts import Receipts, anchored_in
from sidecar.ship.shipper import Shipper
from sidecar.ship.start import Confirmation, acknowledged

__all__ = [
    "Backlog",
    "Bounds",
    "Confirmation",
    "GrpcLink",
    "Link",
    "Receipts",
    "Shipper",
    "acknowledged",
    "anchored_in",
]
