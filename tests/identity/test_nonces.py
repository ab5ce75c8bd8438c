"""Nonces: bounded, forgotten with their window, and never taken twice, wherever the clock goes."""

from __future__ import annotations

import tracemalloc

import pytest

from sidecar.errors import CallerUnproved
from sidecar.identity import Nonces

SECOND = 1_000_000_000
WINDOW = 60 * SECOND
NOW = 1_764_100_000 * SECOND


def nonce(number: int) -> bytes:
    return number.to_bytes(16, "big")


def took(nonces: Nonces, key: str, number: int, time: int, now: int, keys: tuple[str, ...] = ()) -> str:
    """Why it was refused, or ""."""
    try:
        nonces.check(key, nonce(number), time, now, keys or (key,))
    except CallerUnproved as error:
        return error.why
    nonces.take(key, nonce(number), time)
    return ""


def test_once_for_each_key() -> None:
    nonces = Nonces(WINDOW)
    assert took(nonces, "a", 1, NOW, NOW) == ""
    assert took(nonces, "a", 1, NOW, NOW) == "replayed"
    assert took(nonces, "b", 1, NOW, NOW) == ""
    assert took(nonces, "a", 2, NOW, NOW) == ""


@pytest.mark.parametrize("away", [-WINDOW - 1, WINDOW + 1, -(10**18)])
def test_outside_of_the_window(away: int) -> None:
    nonces = Nonces(WINDOW)
    assert took(nonces, "a", 1, NOW + away, NOW) == "window"
    assert took(nonces, "a", 1, NOW - WINDOW, NOW) == took(nonces, "a", 2, NOW + WINDOW, NOW) == ""


def test_as_long_as_its_statement_could_be_taken_it_is_remembered() -> None:
    for ahead in range(-60, 61, 5):
        nonces = Nonces(WINDOW)
        time = NOW + ahead * SECOND
        assert took(nonces, "a", 1, time, NOW) == ""
        for later in range(0, 130, 3):
            assert took(nonces, "a", 1, time, NOW + later * SECOND) in ("replayed", "window"), (ahead, later)


def test_a_clock_put_back_brings_nothing_back() -> None:
    nonces = Nonces(WINDOW)
    assert took(nonces, "a", 1, NOW, NOW) == ""
    assert took(nonces, "a", 2, NOW + 600 * SECOND, NOW + 600 * SECOND) == ""
    assert took(nonces, "a", 1, NOW, NOW) == "window"


def test_a_hundred_thousand_of_a_key_and_no_more() -> None:
    nonces = Nonces(WINDOW, per_principal=100_000)
    tracemalloc.start()
    for number in range(100_000):
        assert took(nonces, "a", number, NOW, NOW) == ""
    full, _ = tracemalloc.get_traced_memory()
    for number in range(100_000, 101_000):
        assert took(nonces, "a", number, NOW, NOW) == "too many"
    assert took(nonces, "b", 1, NOW, NOW) == ""  # another's calls are none the worse for it
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - full < 100_000
    assert full < 20 << 20
    assert took(nonces, "a", 200_000, NOW + 3 * WINDOW, NOW + 3 * WINDOW) == ""
    assert len(nonces) == 1


def test_a_bound_on_all_keys_together() -> None:
    nonces = Nonces(WINDOW, per_principal=10, in_all=25)
    taken = [took(nonces, f"k{n % 5}", n, NOW, NOW) for n in range(50)]
    assert taken == [""] * 25 + ["too many"] * 25


def test_who_has_several_keys_has_no_more_room() -> None:
    nonces = Nonces(WINDOW, per_principal=10, in_all=25)
    keys = ("k0", "k1", "k2", "k3")
    taken = [took(nonces, f"k{n % 4}", n, NOW + n % 2 * WINDOW, NOW, keys) for n in range(30)]
    assert taken == [""] * 10 + ["too many"] * 20
    assert took(nonces, "other", 1, NOW, NOW) == ""
