"""Sidecar and collector killed again and again; hosts cut off and killed for SIDECAR_SOAK_PARTITION_SECONDS."""

from __future__ import annotations

import pytest

from tests.collector.test_crowd import test_each_of_a_crowd_has_its_receipts
from tests.collector.test_kills import test_killed_at_random_nothing_answered_is_lost
from tests.collector.test_partitions import test_cut_off_and_killed_at_random_nothing_is_lost

pytestmark = pytest.mark.soak
__all__ = [
    "test_cut_off_and_killed_at_random_nothing_is_lost",
    "test_each_of_a_crowd_has_its_receipts",
    "test_killed_at_random_nothing_answered_is_lost",
]
