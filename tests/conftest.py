"""Long runs are for `make soak`: tests marked `soak` are left out unless SIDECAR_SOAK=1."""

from __future__ import annotations

import os

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "soak: runs for minutes; only with SIDECAR_SOAK=1 (`make soak`)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get("SIDECAR_SOAK") == "1":
        return
    soaks = [item for item in items if item.get_closest_marker("soak")]
    if soaks:
        config.hook.pytest_deselected(items=soaks)
        items[:] = [item for item in items if item not in soaks]


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Ids that are the same in every worker: no memory addresses, no bytes that differ from run to run."""
    plain = isinstance(val, str | int | float | bool | type | None) and len(repr(val)) < 80
    return None if plain else argname
