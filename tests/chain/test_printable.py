"""What a line that a person reads may hold, and how it counts."""

from __future__ import annotations

import pytest

from sidecar.chain.printable import number_of


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "0 entries"), (1, "1 entry"), (2, "2 entries"), (1_000, "1,000 entries"), (1_000_001, "1,000,001 entries")],
)
def test_a_number_has_the_noun_that_goes_with_it(number: int, said: str) -> None:
    assert number_of(number, "entry", "entries") == said


def test_most_nouns_take_an_s() -> None:
    assert [number_of(each, "segment") for each in (0, 1, 2)] == ["0 segments", "1 segment", "2 segments"]
