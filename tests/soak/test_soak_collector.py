"""Sidecar and collector killed again and again."""

from __future__ import annotations

from tests.collector.test_kills import test_killed_at_random_nothing_answered_is_lost

__all__ = ["test_killed_at_random_nothing_answered_is_lost"]
