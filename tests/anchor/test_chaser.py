"""Going after an outside party: never in the way, again and again, with an age to look at."""

from __future__ import annotations

import queue
import threading

from sidecar.anchor import Chaser, Pauses
from sidecar.errors import AnchorRefused, AnchorUnavailable, StorageError

PATIENCE = 60.0  # seconds; only a failing test waits so long
QUICK = Pauses(first=0.001, longest=0.002)


class Party:
    """Answers as told, one answer for each question; ``asked`` are the questions."""

    name = "party"

    def __init__(self) -> None:
        self.asked: queue.Queue[bytes] = queue.Queue()
        self.answers: queue.Queue[object] = queue.Queue()

    def vouch(self, signed: bytes) -> str:
        self.asked.put(signed)
        answer = self.answers.get(timeout=PATIENCE)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)


def test_it_asks_again_until_it_is_answered_and_tells_the_age() -> None:
    party, said, clock = Party(), queue.Queue[tuple[bytes, str]](), [100.0]
    chaser = Chaser(party, lambda signed, answer: said.put((signed, answer)), pauses=QUICK, now=lambda: clock[0])
    assert chaser.age() == 0.0
    chaser.offer(b"one")
    clock[0] += 7
    for failure in (AnchorUnavailable("down"), AnchorRefused("lies"), AnchorUnavailable("down again")):
        assert party.asked.get(timeout=PATIENCE) == b"one"
        assert chaser.age() == 7.0
        party.answers.put(failure)
    assert party.asked.get(timeout=PATIENCE) == b"one"
    assert chaser.error == "down again" and chaser.refused == 1
    party.answers.put("seen")
    assert said.get(timeout=PATIENCE) == (b"one", "seen")
    chaser.close()
    assert chaser.age() == 0.0 and chaser.error is None


def test_it_never_waits_and_asks_only_about_the_newest() -> None:
    party, said = Party(), queue.Queue[bytes]()
    chaser = Chaser(party, lambda signed, answer: said.put(signed), pauses=QUICK)
    for each in (b"1", b"2", b"3"):
        chaser.offer(each)
        if each == b"1":
            assert party.asked.get(timeout=PATIENCE) == b"1"
    party.answers.put("seen")
    assert party.asked.get(timeout=PATIENCE) == b"3"
    assert said.get(timeout=PATIENCE) == b"1"
    assert chaser.age() > 0
    party.answers.put("seen")
    assert said.get(timeout=PATIENCE) == b"3"
    chaser.close()
    assert chaser.age() == 0


def test_what_could_not_be_kept_is_asked_for_again() -> None:
    party, kept = Party(), queue.Queue[str]()
    failing = [StorageError("the store is down")]

    def keep(signed: bytes, answer: str) -> None:
        if failing:
            raise failing.pop()
        kept.put(answer)

    chaser = Chaser(party, keep, pauses=QUICK)
    chaser.offer(b"1")
    party.answers.put("first")
    party.answers.put("second")
    assert kept.get(timeout=PATIENCE) == "second"
    chaser.close()


def test_it_ends_while_it_waits() -> None:
    party = Party()
    chaser = Chaser(party, lambda signed, answer: None, pauses=Pauses(first=3_600))
    chaser.offer(b"1")
    party.asked.get(timeout=PATIENCE)
    party.answers.put(AnchorUnavailable("down"))
    closing = threading.Thread(target=chaser.close)
    closing.start()
    closing.join(PATIENCE)
    assert not closing.is_alive()


def test_pauses_double_up_to_a_bound_and_differ() -> None:
    pauses = Pauses(first=1.0, longest=300.0, between=5.0)
    assert pauses.after(0) == 5.0
    for failures, whole in ((1, 1), (2, 2), (5, 16), (20, 300), (10**6, 300)):
        found = {pauses.after(failures) for _ in range(50)}
        assert len(found) > 1 and all(whole / 2 <= each <= whole for each in found)
