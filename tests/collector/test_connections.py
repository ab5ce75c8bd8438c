"""More connections than a collector may have: some are closed, and it goes on."""

from __future__ import annotations

import socket
from pathlib import Path

from tests.collecting import collecting
from tests.collector.test_ingest import Sender, two

FEW_FILES = ("sh", "-c", 'ulimit -n 256; exec "$@"', "sh")


def test_more_connections_than_may_be_leave_it_its_files(tmp_path: Path) -> None:
    """Whoever holds all connections there are takes none of the files that objects, index and log need."""
    with collecting(tmp_path / "collector", within=FEW_FILES) as collector:
        s, _ = two("crowded")
        sender = Sender(s, collector)
        host, _, port = collector.address.rpartition(":")
        opened = [socket.create_connection((host, int(port)), timeout=20) for _ in range(300)]
        assert sum(map(closed, opened)) >= 300 - 128
        sender.ship(s.records)
        assert sender.held().leaf == s.leaf
        for each in opened:
            each.close()
        assert collector.stop() == 0


def closed(connection: socket.socket) -> bool:
    """Whether the other side closes it without having said anything; an HTTP/2 server's settings come first."""
    try:
        return not connection.recv(1)
    except ConnectionResetError:
        return True
