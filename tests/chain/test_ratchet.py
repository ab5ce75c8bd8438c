"""The keys: what follows from what, and what does not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.chain import ratchet
from sidecar.chain.ratchet import Ratchet, SegmentKeys
from tests.scribe import entry_tag

CHAIN, SEED = b"c" * 32, b"s" * 32


def run(chain: bytes = CHAIN, epoch: int = 0, seed: bytes = SEED, first: int = 0, count: int = 3) -> list[SegmentKeys]:
    r = Ratchet(chain, epoch, seed, first)
    return [r.advance() for _ in range(count)]


def test_the_same_seed_gives_the_same_keys() -> None:
    assert run() == run()


def test_every_key_is_another() -> None:
    runs = [run(), run(chain=b"d" * 32), run(epoch=1), run(seed=b"t" * 32), run(first=7)]
    keys = [k for segments in runs for s in segments for k in (s.mac_key, s.tag_key)]
    assert len(set(keys)) == len(keys) == 30
    assert all(len(k) == 32 for k in keys)


def test_a_later_start_does_not_give_the_same_segment() -> None:
    """Segment 1 of an epoch that began at 0 is not segment 1 of one that began at 1: the ratchet has moved."""
    assert run(first=0)[1] != run(first=1)[0]


def test_evolving_never_returns() -> None:
    seen, key = set(), SEED
    for _ in range(1000):
        assert key not in seen
        seen.add(key)
        key = ratchet.evolve(key)


def test_keys_are_not_printed() -> None:
    (keys,) = run(count=1)
    assert keys.mac_key.hex() not in repr(keys) and repr(keys.mac_key) not in repr(keys)


def test_a_wiped_ratchet_gives_other_keys() -> None:
    r = Ratchet(CHAIN, 0, SEED, 0)
    r.wipe()
    assert r.advance() != run()[0]


def test_commitments_have_their_own_domains() -> None:
    assert ratchet.mac_key_commit(SEED) != ratchet.tag_key_commit(SEED)
    assert ratchet.seed_commit(CHAIN, 0, SEED) != ratchet.seed_commit(CHAIN, 1, SEED)


def test_agent_tag_depends_on_place_and_name() -> None:
    tags = {ratchet.agent_tag(SEED, seq, name) for seq in (0, 1) for name in ("a", "b", "é")}
    assert len(tags) == 6 and all(len(t) == 16 for t in tags)


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=300))
def test_tag_and_next_are_the_two_macs(key: bytes, header: bytes) -> None:
    assert ratchet.tag_and_next(key, header) == (entry_tag(key, header), ratchet.evolve(key))
