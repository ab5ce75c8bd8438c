"""How much may be unshipped: by number, by age, and what is done about it."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.errors import Unshipped
from sidecar.ship import Backlog, Bounds


class World:
    def __init__(self, bounds: Bounds) -> None:
        self.recorded, self.time = 10, 0.0
        # Each entry has 100 bytes; this run began with entry 8, and what was there before takes 5,000 on disk.
        stored = lambda: (self.recorded, (self.recorded - 8) * 100)  # noqa: E731
        self.backlog = Backlog(stored, bounds, lambda: self.time, first=8, before=5_000)

    def shipped(self, acknowledged: int, all_before: float | None) -> None:
        self.backlog.shipped(acknowledged, all_before, lambda first, after: max(0, after - first) * 100)


def test_entries_and_age_are_those_of_what_is_not_acknowledged() -> None:
    world = World(Bounds())
    backlog = world.backlog
    world.time = 5.0
    assert (backlog.entries, backlog.age, backlog.exceeded) == (10, 5.0, False)
    world.shipped(4, None)  # a part of what there is: the rest is as old as before
    assert (backlog.entries, backlog.age) == (6, 5.0)
    world.shipped(10, 5.0)
    assert (backlog.entries, backlog.age) == (0, 0.0)
    world.recorded, world.time = 12, 7.0
    assert (backlog.entries, backlog.age) == (2, 2.0)
    world.shipped(3, None)  # an answer that came late
    assert backlog.acknowledged == 10
    backlog.check()


@pytest.mark.parametrize("bounds", [{"entries": 3}, {"seconds": 4.0}, {"size": 300}])
def test_beyond_a_bound_nothing_may_be_decided(bounds: dict[str, Any]) -> None:
    world = World(Bounds(**bounds, deny=True))
    world.shipped(10, 0.0)
    world.recorded, world.time = 13, 4.0
    assert not world.backlog.exceeded
    world.backlog.check()
    world.recorded, world.time = 14, 4.5
    assert world.backlog.exceeded
    with pytest.raises(Unshipped):
        world.backlog.check()


def test_a_warning_denies_nothing() -> None:
    world = World(Bounds(entries=3, seconds=1.0))
    world.time = 2.0
    assert world.backlog.exceeded
    world.backlog.check()


def test_bytes_are_those_of_what_is_not_acknowledged() -> None:
    """Until the collector says how far it is, all that is on disk counts; then what it lacks."""
    world = World(Bounds())
    assert world.backlog.size == 5_200
    world.shipped(4, None)
    assert world.backlog.size == 600
    world.shipped(9, None)
    assert world.backlog.size == 100
    world.recorded = 20
    world.shipped(7, None)  # an answer that came late
    assert world.backlog.size == 1_100
    world.shipped(20, 1.0)
    assert world.backlog.size == 0
