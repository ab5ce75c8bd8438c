"""The collector: one append-only log of every chain's epoch notes and seals, on storage that only creates.

Rules: objects are the only truth, the index is rebuilt from them; nothing is signed before it is durable, or that does
not extend what was signed before. No import of the ledger or of policies. A driver of a cloud or database is imported
in its own file, when it is used.
"""

from sidecar.collector.log import FleetLog, Taken
from sidecar.collector.published import published
from sidecar.collector.rebuild import reindex

__all__ = ["FleetLog", "Taken", "published", "reindex"]
