"""Rounds: witnesses of different pace meet on one checkpoint; one that is away does not stop the others."""

from __future__ import annotations

from sidecar.anchor.rounds import SECONDS, Rounds


class Party:
    """A chaser that only remembers what it was asked about."""

    def __init__(self, name: str) -> None:
        self.name, self.asked = name, list[bytes]()

    def offer(self, signed: bytes) -> None:
        self.asked.append(signed)


def test_the_next_is_asked_about_once_all_have_met_on_one() -> None:
    clock, parties = [0.0], [Party("a"), Party("b")]
    rounds = Rounds(parties, now=lambda: clock[0])  # type: ignore[arg-type]
    for each in (b"1", b"2", b"3"):
        rounds.offer(each)
    assert parties[0].asked == parties[1].asked == [b"1"]
    rounds.vouched("a", b"1")
    rounds.vouched("a", b"1")
    assert parties[0].asked == [b"1"]
    rounds.vouched("b", b"1")
    assert parties[0].asked == parties[1].asked == [b"1", b"3"]
    rounds.vouched("a", b"1")  # late, of another round
    rounds.vouched("b", b"3")
    rounds.offer(b"4")
    assert parties[0].asked == [b"1", b"3"]
    rounds.vouched("a", b"3")
    assert parties[0].asked == [b"1", b"3", b"4"]


def test_one_that_is_away_holds_a_round_up_for_so_long() -> None:
    clock, parties = [0.0], [Party("a"), Party("b")]
    rounds = Rounds(parties, now=lambda: clock[0])  # type: ignore[arg-type]
    rounds.offer(b"1")
    rounds.vouched("a", b"1")
    clock[0] = SECONDS - 0.1
    rounds.offer(b"2")
    assert parties[0].asked == [b"1"]
    clock[0] = SECONDS
    rounds.offer(b"3")
    assert parties[0].asked == parties[1].asked == [b"1", b"3"]


def test_without_witnesses_nobody_is_asked() -> None:
    rounds = Rounds([])
    rounds.offer(b"1")
    rounds.offer(b"2")
