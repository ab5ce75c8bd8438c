"""What the log shows to the public: checkpoint, tiles, entry bundles (C2SP tlog-tiles)."""

from __future__ import annotations

from sidecar.chain.tile import Tile
from sidecar.collector import objects
from sidecar.collector.storage import Storage
from sidecar.errors import Malformed

TEXT, BYTES = "text/plain; charset=utf-8", "application/octet-stream"


def published(storage: Storage, checkpoint: bytes, path: str) -> tuple[bytes, str] | None:
    """Body and content type of what is at ``path`` below the log's URL prefix; None: nothing is.

    ``checkpoint`` is the newest one. Raises `StorageError`.
    """
    if path == "checkpoint":
        return (checkpoint, TEXT) if checkpoint else None
    try:
        which = Tile.parse(path)
    except Malformed:
        return None
    data = storage.read(objects.PREFIX + which.path(), objects.BUNDLE_BYTES)
    return None if data is None else (data, BYTES)
