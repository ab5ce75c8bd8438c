"""What a soak run found, for its closing summary."""

from __future__ import annotations

import os

import pytest

FIGURES = pytest.StashKey[list[str]]()


def wanted(name: str, default: int) -> int:
    """How many, from the environment's ``SIDECAR_SOAK_<name>``."""
    return int(os.environ.get(f"SIDECAR_SOAK_{name}", default))


def tell(config: pytest.Config, line: str) -> None:
    """Have a line printed at the end of the run, whatever becomes of the test."""
    config.stash.setdefault(FIGURES, []).append(line)
