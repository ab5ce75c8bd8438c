"""Sealing and opening seeds: any of the custodians, or all of them; what is wrong is wrong with somebody by name."""

from __future__ import annotations

import dataclasses
import itertools
import os
from functools import cache

import pytest
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from sidecar.chain.seeds import Custodian, Custody, SealedShare, join, share_commit
from sidecar.custody import PrivateKey, generate_custodian, load_custodian, load_private, open_seed, seal_shares
from sidecar.custody.kems import X25519Key
from sidecar.errors import CustodyError

CHAIN = bytes(range(32))
SEED = os.urandom(32)
EPOCH = 7


@cache
def _keys(n: int, kinds: str = "xxr") -> tuple[tuple[PrivateKey, ...], tuple[Custodian, ...]]:
    pairs = [generate_custodian({"x": "x25519", "r": "rsa"}[k]) for k in itertools.islice(itertools.cycle(kinds), n)]
    names = ("ada", "bob", "cyd", "dan")
    privates = tuple(load_private(private) for private, _ in pairs)
    return privates, tuple(load_custodian(public, name) for (_, public), name in zip(pairs, names, strict=False))


def _stranger() -> PrivateKey:
    return load_private(generate_custodian("x25519")[0])


def _custody(mode: str, n: int = 3) -> tuple[tuple[PrivateKey, ...], Custody]:
    keys, custodians = _keys(n)
    return keys, Custody(mode, custodians)


def _sealed(custody: Custody, epoch: int = EPOCH) -> list[SealedShare]:
    return seal_shares(custody, CHAIN, epoch, SEED, os.urandom)


def test_in_mode_any_each_opens_alone() -> None:
    keys, custody = _custody("any")
    shares = _sealed(custody)
    for key in keys:
        assert open_seed([key], custody, CHAIN, EPOCH, shares) == SEED


@pytest.mark.parametrize("n", [1, 2, 3])
def test_in_mode_all_they_open_together_in_any_order(n: int) -> None:
    keys, custody = _custody("all", n)
    shares = _sealed(custody)
    for order in itertools.permutations(keys):
        assert open_seed(order, custody, CHAIN, EPOCH, shares) == SEED


def test_in_mode_all_the_missing_are_named_and_nobody_else() -> None:
    keys, custody = _custody("all")
    shares = _sealed(custody)
    with pytest.raises(CustodyError, match=r"missing: custodian 1 \(bob\), custodian 2 \(cyd\)$"):
        open_seed(keys[:1], custody, CHAIN, EPOCH, shares)


def test_in_mode_all_no_proper_subset_of_shares_tells_the_seed() -> None:
    _, custody = _custody("all")
    drawn = [os.urandom(32) for _ in range(2)]
    shares = custody.split(SEED, drawn)
    assert join(shares) == SEED and SEED not in shares
    assert shares[:2] == drawn  # the first two are the random ones: alone they know nothing of the seed


def test_the_entropy_given_is_what_splits() -> None:
    _, custody = _custody("all")
    asked: list[int] = []

    def entropy(n: int) -> bytes:
        asked.append(n)
        return bytes([len(asked)]) * n

    shares = seal_shares(custody, CHAIN, EPOCH, SEED, entropy)
    assert asked == [32, 32]
    ctx = custody.context(CHAIN, EPOCH, 0)
    assert shares[0].commit == share_commit(ctx, b"\x01" * 32)


def test_a_bad_share_names_its_custodian() -> None:
    keys, custody = _custody("all")
    good = _sealed(custody)
    for index, name in enumerate(("ada", "bob", "cyd")):
        broken = bytearray(good[index].sealed)
        broken[-1] ^= 1
        shares = list(good)
        shares[index] = dataclasses.replace(good[index], sealed=bytes(broken))
        with pytest.raises(CustodyError, match=rf"custodian {index} \({name}\)"):
            open_seed(keys, custody, CHAIN, EPOCH, shares)


def test_a_share_that_opens_but_is_another_one_names_its_custodian() -> None:
    # Attack 18: a custodian set that is honest but for one share, properly sealed and bound, of another value.
    keys, custody = _custody("all")
    for index, name in enumerate(("ada", "bob", "cyd")):
        good = _sealed(custody)
        other = seal_shares(custody, CHAIN, EPOCH, os.urandom(32), os.urandom)
        good[index] = SealedShare(good[index].commit, other[index].sealed)
        with pytest.raises(CustodyError, match=rf"custodian {index} \({name}\).*committed"):
            open_seed(keys, custody, CHAIN, EPOCH, good)


def test_swapped_shares_do_not_open() -> None:
    for mode in ("any", "all"):
        keys, custody = _custody(mode)
        first, second, third = _sealed(custody)
        with pytest.raises(CustodyError, match=r"custodian 0 \(ada\)"):
            open_seed(keys, custody, CHAIN, EPOCH, [second, first, third])


@pytest.mark.parametrize("mode", ["any", "all"])
def test_shares_of_another_place_do_not_open(mode: str) -> None:
    keys, custody = _custody(mode)
    shares = _sealed(custody)
    other_mode = Custody("all" if mode == "any" else "any", custody.custodians)
    for where in ((custody, CHAIN, EPOCH + 1), (custody, bytes(32), EPOCH), (other_mode, CHAIN, EPOCH)):
        with pytest.raises(CustodyError, match=r"custodian 0 \(ada\)"):
            open_seed(keys, *where, shares)


def test_an_rsa_share_of_another_epoch_is_known_by_its_context() -> None:
    # OAEP has no `info`: only the context inside the plaintext binds it.
    keys, custody = _custody("any")
    shares = _sealed(custody, epoch=EPOCH + 1)
    with pytest.raises(CustodyError, match=r"custodian 2 \(cyd\).*another place"):
        open_seed(keys[2:], custody, CHAIN, EPOCH, shares)


def test_a_strangers_key_is_told_so() -> None:
    _, custody = _custody("any")
    stranger = _stranger()
    with pytest.raises(CustodyError, match="belongs to no custodian"):
        open_seed([stranger], custody, CHAIN, EPOCH, _sealed(custody))
    with pytest.raises(CustodyError, match="belongs to no custodian"):
        open_seed([], custody, CHAIN, EPOCH, _sealed(custody))


def test_a_strangers_key_beside_the_right_one_does_no_harm() -> None:
    keys, custody = _custody("any")
    shares = _sealed(custody)
    assert open_seed([_stranger(), keys[1]], custody, CHAIN, EPOCH, shares) == SEED


def test_without_custodians_nothing_is_sealed_and_nobody_opens() -> None:
    for mode in ("any", "all"):
        nobody = Custody(mode, ())
        assert seal_shares(nobody, CHAIN, EPOCH, SEED, os.urandom) == []
        with pytest.raises(CustodyError, match="no custodians"):
            open_seed([_stranger()], nobody, CHAIN, EPOCH, [])


def test_another_number_of_shares_is_refused() -> None:
    keys, custody = _custody("any")
    with pytest.raises(CustodyError, match="2 wrapped seeds for 3 custodians"):
        open_seed(keys, custody, CHAIN, EPOCH, _sealed(custody)[:2])


def test_the_layout_is_the_specifications() -> None:
    # enc[32] ‖ ciphertext of share ‖ ctx under AES-GCM; opened here without our code's opening.
    keys, custody = _custody("any")
    sealed = _sealed(custody)[0].sealed
    assert len(sealed) == 32 + 64 + 16
    ctx = custody.context(CHAIN, EPOCH, 0)
    key = keys[0]
    assert isinstance(key, X25519Key)
    suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    assert suite.decrypt(sealed, key.private, ctx) == SEED + ctx
    assert len(_sealed(custody)[2].sealed) == 3072 // 8


def test_a_sealed_share_that_is_no_ciphertext_is_bad_not_a_crash() -> None:
    keys, custody = _custody("any")
    for index in (0, 2):
        for junk in (b"", b"x", bytes(31), bytes(112), bytes(384), bytes(1000)):
            shares = _sealed(custody)
            shares[index] = dataclasses.replace(shares[index], sealed=junk)
            with pytest.raises(CustodyError, match=f"custodian {index}"):
                open_seed([keys[index]], custody, CHAIN, EPOCH, shares)
