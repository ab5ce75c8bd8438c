"""How much may be unshipped: by number, by age, and what is done about it."""

from __future__ import annotations

import pytest

from sidecar.errors import Unshipped
from sidecar.ship import Backlog, Bounds


class World:
    def __init__(self, bounds: Bounds) -> None:
        self.recorded, self.time = 10, 0.0
        self.backlog = Backlog(lambda: self.recorded, bounds, lambda: self.time)


def test_entries_and_age_are_those_of_what_is_not_acknowledged() -> None:
    world = World(Bounds())
    backlog = world.backlog
    world.time = 5.0
    assert (backlog.entries, backlog.age, backlog.exceeded) == (10, 5.0, False)
    backlog.shipped(4, None)  # a part of what there is: the rest is as old as before
    assert (backlog.entries, backlog.age) == (6, 5.0)
    backlog.shipped(10, 5.0)
    assert (backlog.entries, backlog.age) == (0, 0.0)
    world.recorded, world.time = 12, 7.0
    assert (backlog.entries, backlog.age) == (2, 2.0)
    backlog.shipped(3, None)  # an answer that came late
    assert backlog.acknowledged == 10
    backlog.check()


@pytest.mark.parametrize("bounds", [Bounds(entries=3, deny=True), Bounds(seconds=4.0, deny=True)])
def test_beyond_a_bound_nothing_may_be_decided(bounds: Bounds) -> None:
    world = World(bounds)
    world.backlog.shipped(10, 0.0)
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
