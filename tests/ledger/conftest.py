from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.chain.seeds import Custodian, Custody
from tests.ledger.worlds import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A new ledger with one custodian, on a clock that stands still."""
    made = World(tmp_path / "ledger", Custody("any", (Custodian("auditor", "hpke", b"a key nobody uses here"),)))
    made.create()
    return made


@pytest.fixture
def public_place() -> Iterator[Path]:
    """A directory that other users may enter, unlike pytest's own."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    try:
        yield place
    finally:
        shutil.rmtree(place)
