"""The writer's inbox: what waits, and when the writer is woken for it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from sidecar.chain.entry import EntryType
from sidecar.ledger.clock import Moment
from sidecar.ledger.draft import Prepared
from sidecar.ledger.inbox import Inbox, Item

PATIENCE = 60.0
ITEMS = [Item(Prepared(EntryType.REJECTED, b"{}%d" % number)) for number in range(3)]


class Asleep:
    """A clock whose waiting can be waited for."""

    def __init__(self) -> None:
        self.waiting = threading.Event()

    def now(self) -> Moment:
        raise AssertionError("not asked here")

    def wait(self, condition: threading.Condition, until_mono_ns: int) -> None:
        self.waiting.set()
        assert condition.wait(PATIENCE)


def test_a_sleeping_writer_takes_together_what_came_before_it_was_woken() -> None:
    inbox, clock = Inbox(10), Asleep()
    with ThreadPoolExecutor(1) as threads:
        taken = threads.submit(inbox.take, 10, clock, 0)
        assert clock.waiting.wait(PATIENCE)
        assert [inbox.put(item) for item in ITEMS] == [True] * 3
        assert not taken.done()
        inbox.wake()
        assert taken.result(PATIENCE) == (ITEMS, False)


def test_a_writer_at_work_needs_no_waking() -> None:
    inbox, clock = Inbox(10), Asleep()
    assert [inbox.put(item) for item in ITEMS] == [False] * 3
    assert inbox.take(2, clock, 0) == (ITEMS[:2], False)
    assert inbox.take(2, clock, 0) == (ITEMS[2:], False)
