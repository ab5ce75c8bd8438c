"""Unix sockets that cannot be had: refused in one line that says why."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.api.server import claim
from sidecar.errors import UsageError


@pytest.fixture
def short() -> Iterator[Path]:
    """pytest's own directory can be too long for a socket's path."""
    with tempfile.TemporaryDirectory() as place:
        yield Path(place)


def test_what_cannot_be_listened_on_is_said(short: Path) -> None:
    (short / "file").write_text("")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(short / "taken"))
        other.listen()
        for name, why in (
            ("n" * 108, "a unix socket at most 107"),
            ("absent/s", "its directory does not exist"),
            ("file", "a file that is not a socket"),
            ("taken", "another process listens there"),
        ):
            with pytest.raises(UsageError, match=why):
                claim(short / name)


def test_a_dead_socket_is_taken_away(short: Path) -> None:
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(short / "dead"))
    claim(short / "dead")
    assert not (short / "dead").exists()
