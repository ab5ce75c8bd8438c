"""A log over HTTP on loopback, as tlog-tiles wants it served."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from sidecar.collector import FleetLog, published
from sidecar.collector.storage import Storage


@contextlib.contextmanager
def served(storage: Storage, log: FleetLog) -> Iterator[str]:
    """The URL prefix of the log."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = published(storage, log.signed, self.path.removeprefix("/fleet/"))
            if found is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", found[1])
            self.send_header("Content-Length", str(len(found[0])))
            self.end_headers()
            self.wfile.write(found[0])

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/fleet"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
