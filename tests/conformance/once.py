"""The published bundles as files, made once in a run of the tests: by the worker that needs them first."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conformance.make import make
from tests.kept import kept


def published(temporary: pytest.TempPathFactory) -> Path:
    """The directory that :func:`make` writes."""
    place = temporary.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent  # the run's, where the base is one worker's
    return kept(place / "published", make)
