"""A log over HTTP on loopback, as tlog-tiles wants it served."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from sidecar.collector import FleetLog, published
from sidecar.collector.storage import Storage
from tests.servers.running import Quiet, listening


@contextlib.contextmanager
def served(storage: Storage, log: FleetLog) -> Iterator[str]:
    """The URL prefix of the log."""

    class Handler(Quiet):
        def do_GET(self) -> None:
            found = published(storage, log.signed, self.path.removeprefix("/fleet/"))
            if found is None:
                self.answer(404, b"")
            else:
                self.answer(200, found[0], Content_Type=found[1])

    with listening(Handler) as url:
        yield f"{url}/fleet"
