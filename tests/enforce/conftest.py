"""What the frameworks' tests share: a sidecar for each file, and a desk of tools for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.enforce.frameworks.doors import Desk
from tests.enforce.frameworks.place import Place, placed


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with placed(tmp_path_factory.mktemp("served")) as served:
        yield served


@pytest.fixture
def desk(place: Place, tmp_path: Path) -> Desk:
    work = tmp_path / "work"
    work.mkdir()
    return Desk(place.server.address, work)
