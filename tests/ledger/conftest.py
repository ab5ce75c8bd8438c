from __future__ import annotations

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
