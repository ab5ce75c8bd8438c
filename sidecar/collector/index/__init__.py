"""The index: what the collector would else have to look for in the objects. It is vouched for by nothing.

SQLite or PostgreSQL, the same statements. A lost or poisoned index is rebuilt from the objects.
"""

from sidecar.collector.index.port import Alarm, Index, Tip
from sidecar.collector.index.sqlite import open_sqlite

__all__ = ["Alarm", "Index", "Tip", "open_sqlite"]
