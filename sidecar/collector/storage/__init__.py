"""Where objects come to rest: files or S3. What a store must promise stands in `port`."""

from sidecar.collector.storage.files import FileStorage
from sidecar.collector.storage.port import Storage

__all__ = ["FileStorage", "Storage"]
