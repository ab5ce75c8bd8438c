"""Custodians: how a seed is split, joined and bound to them."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.chain import seeds
from sidecar.chain.seeds import Custodian, Custody, SealedShare
from sidecar.errors import Malformed

SEED = bytes(range(32))
CHAIN = b"c" * 32


def custodian(i: int, kem: str = "hpke") -> Custodian:
    return Custodian(f"c{i}", kem, bytes((i,)) * 44)


def custody(mode: str, n: int) -> Custody:
    return Custody(mode, tuple(custodian(i) for i in range(n)))


@pytest.mark.parametrize("n", range(1, 17))
def test_any_opens_alone(n: int) -> None:
    c = custody("any", n)
    assert all(c.combine([share]) == SEED for share in c.split(SEED, []))


@given(st.lists(st.binary(min_size=32, max_size=32), min_size=16, max_size=16), st.integers(1, 16))
def test_all_opens_together(randomness: list[bytes], n: int) -> None:
    c = custody("all", n)
    shares = c.split(SEED, randomness)
    assert len(shares) == n and c.combine(shares) == SEED


def test_all_but_one_know_nothing() -> None:
    """Without one share the rest is the same for every seed, up to that share."""
    c = custody("all", 3)
    randomness = [b"a" * 32, b"b" * 32]
    one, other = c.split(SEED, randomness), c.split(bytes(32), randomness)
    assert one[:2] == other[:2] and one[2] != other[2]
    assert all(c.combine(one[:i] + one[i + 1 :]) != SEED for i in range(3))


def test_no_custodian_no_share() -> None:
    for mode in ("any", "all"):
        assert custody(mode, 0).split(SEED, []) == []


def test_what_a_share_is_bound_to() -> None:
    contexts = [
        custody("any", 2).context(CHAIN, 0, 0),
        custody("all", 2).context(CHAIN, 0, 0),
        custody("any", 3).context(CHAIN, 0, 0),
        custody("any", 2).context(CHAIN, 1, 0),
        custody("any", 2).context(CHAIN, 0, 1),
        custody("any", 2).context(bytes(32), 0, 0),
        Custody("any", (custodian(5), custodian(1))).context(CHAIN, 0, 0),
    ]
    assert len(set(contexts)) == len(contexts)
    assert len({seeds.share_commit(ctx, SEED) for ctx in contexts}) == len(contexts)


def test_digest_depends_on_mode_order_kem_and_keys() -> None:
    a, b = custodian(1), custodian(2)
    sets = [Custody(m, t) for m in ("any", "all") for n in (0, 1, 2) for t in permutations((a, b), n)]
    sets.append(Custody("any", (custodian(1, "rsa-oaep"),)))
    assert len({c.digest() for c in sets}) == len(sets)
    renamed = Custody("any", (Custodian("another name", "hpke", a.spki),))
    assert renamed.digest() == Custody("any", (a,)).digest()


def test_seeds_digest_tells_where_one_share_ends() -> None:
    one = [SealedShare(b"a" * 32, b"xy"), SealedShare(b"b" * 32, b"z")]
    lists = [one, one[::-1], one[:1], [], [SealedShare(b"a" * 32, b"x"), SealedShare(b"b" * 32, b"yz")]]
    assert len({seeds.seeds_digest(shares) for shares in lists}) == len(lists)


@pytest.mark.parametrize(
    ("mode", "members"),
    [
        ("some", (custodian(1),)),
        ("any", tuple(custodian(i) for i in range(17))),
        ("any", (custodian(1), Custodian("twin", "rsa-oaep", custodian(1).spki))),
    ],
)
def test_rejected_sets(mode: str, members: tuple[Custodian, ...]) -> None:
    with pytest.raises(Malformed):
        Custody(mode, members)


def test_rejected_kem() -> None:
    with pytest.raises(Malformed):
        Custodian("x", "rsa", b"")
