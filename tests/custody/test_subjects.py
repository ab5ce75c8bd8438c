"""Data subjects' keys on disk: durable before use, gone after an erasure, whole after a crash at any point."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.chain.seeds import Custody
from sidecar.custody import (
    CopyFile,
    PrivateKey,
    SubjectKeys,
    generate_custodian,
    load_custodian,
    load_private,
    open_copy,
    seal_shares,
    wrap_copy,
)
from sidecar.errors import CustodianMissing, CustodyError, LedgerError, Malformed, UsageError

CHAIN, ANN, BOB = b"c" * 32, b'"ann"', b"4711"


def bytes_of(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file())


def test_a_key_is_the_same_again_and_for_readers(tmp_path: Path) -> None:
    keys = SubjectKeys.open(tmp_path / "k", CHAIN)
    ann, bob = keys.of(ANN), keys.of(BOB)
    assert keys.of(ANN) == ann and ann != bob and (len(ann[0]), len(ann[1])) == (16, 32)
    for other in (SubjectKeys.open(tmp_path / "k", CHAIN), SubjectKeys.read(tmp_path / "k", CHAIN)):
        assert other.of(ANN) == ann and other.key(bob[0]) == bob[1] and other.named(BOB) == bob[0]
        assert other.subjects() == [(ann[0], ANN), (bob[0], BOB)]
    assert keys.named(b'"4711"') is None  # a text is not the number that reads the same
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in (tmp_path / "k").iterdir())
    assert (tmp_path / "k").stat().st_mode & 0o777 == 0o700


def test_an_erased_key_is_nowhere(tmp_path: Path) -> None:
    """Not in the files, neither plain nor under the key that is there; and who comes back is somebody new."""
    keys = SubjectKeys.open(tmp_path, CHAIN)
    ann, bob = keys.of(ANN), keys.of(BOB)
    kek, records = keys.copy()
    keys.erase([ann[0]])
    now = bytes_of(tmp_path)
    assert not any(secret in now for secret in (ann[0], ann[1], kek, records[:80], ANN))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kek.1", "keys.1"]
    for each in (keys, SubjectKeys.open(tmp_path, CHAIN)):
        assert each.key(ann[0]) is None and each.named(ANN) is None and each.of(BOB) == bob
    assert keys.of(ANN)[0] != ann[0]
    keys.erase([ann[0]])  # nothing left to erase
    assert (tmp_path / "keys.1").exists()


@pytest.mark.parametrize("cut", [1, 29, 30, 60, 81])
def test_a_torn_record_is_let_go(cut: int, tmp_path: Path) -> None:
    keys = SubjectKeys.open(tmp_path, CHAIN)
    ann = keys.of(ANN)
    whole = (tmp_path / "keys.0").read_bytes()
    keys.of(BOB)
    torn = (tmp_path / "keys.0").read_bytes()[: len(whole) + cut]
    for after in (torn, torn[: len(whole)] + bytes(cut + 100)):  # written in part, or not at all
        (tmp_path / "keys.0").write_bytes(after)
        again = SubjectKeys.open(tmp_path, CHAIN)
        assert again.subjects() == [(ann[0], ANN)] and (tmp_path / "keys.0").read_bytes() == whole


@pytest.mark.parametrize("name", ["kek.0", "keys.0"])
def test_what_is_damaged_or_somebody_elses_is_refused(name: str, tmp_path: Path) -> None:
    keys = SubjectKeys.open(tmp_path / "k", CHAIN)
    keys.of(ANN)
    keys.of(BOB)
    data = bytearray((tmp_path / "k" / name).read_bytes())
    with pytest.raises(CustodyError, match="another chain"):
        SubjectKeys.open(tmp_path / "k", b"d" * 32)
    data[-70 if name == "keys.0" else 3] ^= 1
    (tmp_path / "k" / name).write_bytes(data)
    for opened in (SubjectKeys.open, SubjectKeys.read):
        with pytest.raises(CustodyError):
            opened(tmp_path / "k", CHAIN)
    (tmp_path / "k" / name).write_bytes(b"x")
    with pytest.raises(CustodyError):
        SubjectKeys.open(tmp_path / "k", CHAIN)
    (tmp_path / "k" / name).unlink()
    if name == "kek.0":
        with pytest.raises(LedgerError):
            SubjectKeys.open(tmp_path / "k", CHAIN)


def test_where_there_are_none(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(UsageError):
            SubjectKeys.read(place, CHAIN)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LedgerError):
        SubjectKeys.open(tmp_path / "file", CHAIN)


class Stop(BaseException):
    """The process is killed here."""


def test_a_crash_anywhere_in_an_erasure(tmp_path: Path) -> None:
    """Killed at each draw of randomness and after each file that appears or goes: opened again there is one whole
    generation, either before or after, and the erasure can be done again. Nothing of another generation is left."""
    before = SubjectKeys.open(tmp_path / "k", CHAIN)
    ann, bob = before.of(ANN), before.of(BOB)
    seen = set()
    for stop in range(40):
        place = tmp_path / f"crash-{stop}"
        shutil.copytree(tmp_path / "k", place)
        finished = _killed(lambda entropy, place=place: SubjectKeys.open(place, CHAIN, entropy).erase([ann[0]]), stop)
        again = SubjectKeys.open(place, CHAIN)
        seen.add(again.key(ann[0]) is not None)
        assert again.of(BOB) == bob
        again.erase([ann[0]])
        assert again.key(ann[0]) is None and len(list(place.iterdir())) == 2
        assert ann[1] not in bytes_of(place)
        if finished:
            break
    assert finished and seen == {True, False}


def _killed(run: Callable[[Callable[[int], bytes]], None], stop: int) -> bool:
    """Whether it came to its end before the ``stop``-th draw."""
    drawn = 0

    def entropy(n: int) -> bytes:
        nonlocal drawn
        drawn += 1
        if drawn > stop:
            raise Stop
        return os.urandom(n)

    try:
        run(entropy)
    except Stop:
        return False
    return True


def test_an_erasure_that_cannot_be_written_changes_nothing_and_is_done_later(tmp_path: Path) -> None:
    keys = SubjectKeys.open(tmp_path, CHAIN)
    ann = keys.of(ANN)
    (tmp_path / "keys.1.new").mkdir()  # what cannot be written over
    with pytest.raises(LedgerError):
        keys.erase([ann[0]])
    assert keys.key(ann[0]) == ann[1]
    (tmp_path / "keys.1.new").rmdir()
    keys.erase([ann[0]])
    assert keys.key(ann[0]) is None and ann[1] not in bytes_of(tmp_path)


# --- the copy


def custodians(mode: str) -> tuple[Custody, list[PrivateKey]]:
    pairs = [generate_custodian("x25519"), generate_custodian("rsa")]
    named = tuple(load_custodian(public, str(n)) for n, (_, public) in enumerate(pairs))
    return Custody(mode, named), [load_private(private) for private, _ in pairs]


@pytest.mark.parametrize("mode", ["any", "all"])
def test_a_copy_opens_for_custodians_alone(mode: str, tmp_path: Path) -> None:
    custody, private = custodians(mode)
    keys = SubjectKeys.open(tmp_path / "k", CHAIN)
    ann, bob = keys.of(ANN), keys.of(BOB)
    data = wrap_copy(keys.copy(), custody, CHAIN, os.urandom)
    assert not any(secret in data for secret in (ANN, ann[1], base64.b64encode(ann[1])[:40]))
    assert open_copy(data, private, custody, CHAIN) == ({ANN: ann, BOB: bob}, 0)
    restored = SubjectKeys.restore(tmp_path / "again", CHAIN, open_copy(data, private, custody, CHAIN)[0])
    assert restored.subjects() == SubjectKeys.open(tmp_path / "again", CHAIN).subjects() == keys.subjects()
    with pytest.raises(UsageError, match="there are keys"):
        SubjectKeys.restore(tmp_path / "again", CHAIN, {})
    if mode == "all":
        with pytest.raises(CustodianMissing):
            open_copy(data, private[:1], custody, CHAIN)
    with pytest.raises(CustodianMissing):
        open_copy(data, custodians("any")[1], custody, CHAIN)
    with pytest.raises(CustodyError):
        wrap_copy(keys.copy(), Custody("any", ()), CHAIN, os.urandom)


def test_no_other_copy_opens(tmp_path: Path) -> None:
    custody, private = custodians("any")
    keys = SubjectKeys.open(tmp_path / "k", CHAIN)
    keys.of(ANN)
    data = wrap_copy(keys.copy(), custody, CHAIN, os.urandom)
    line, _, records = data.partition(b"\n")
    value = json.loads(line)
    seed = seal_shares(custody, CHAIN, 0, keys.copy()[0], os.urandom)[0]  # made for an epoch, not for this
    lies: list[dict[str, object]] = [
        {"format": "x"}, {"chain": "00" * 32}, {"more": 1}, {"kek": None}, {"kek": [1]}, {"kek": []}, {"keys": ""},
        {"kek": [{"commit": "x", "sealed": ""}]},
        {"kek": [{"commit": seed.commit.hex(), "sealed": base64.b64encode(seed.sealed).decode()}, value["kek"][1]]},
    ]  # fmt: skip
    for lie in lies:
        with pytest.raises((Malformed, CustodyError)):
            open_copy(json.dumps(value | lie).encode() + b"\n" + records, private, custody, CHAIN)
    for damaged in (line, data[:-40] + bytes([data[-40] ^ 1]) + data[-39:]):
        with pytest.raises((Malformed, CustodyError)):
            open_copy(damaged, private, custody, CHAIN)
    assert open_copy(data, private, custody, CHAIN)[1] == 0


def test_a_key_is_in_the_copy_before_it_is_given(tmp_path: Path) -> None:
    """Read at once, as by whoever finds it after the pod has died; a record cut short is one that nobody was given."""
    custody, private = custodians("any")
    file, keys = tmp_path / "copy", SubjectKeys.open(tmp_path / "k", CHAIN)

    def copied() -> dict[bytes, tuple[bytes, bytes]]:
        held, left = open_copy(file.read_bytes(), private, custody, CHAIN)
        assert not left
        return held

    first = keys.of(ANN)
    keys.copy_to(CopyFile(file, custody, CHAIN, os.urandom))
    assert copied() == {ANN: first} and file.stat().st_mode & 0o777 == 0o600
    before = file.read_bytes()
    bob = keys.of(BOB)
    assert copied() == {ANN: first, BOB: bob}
    assert file.read_bytes().startswith(before)  # appended: what is added costs what one record does
    for cut in range(len(before) + 1, file.stat().st_size):
        assert open_copy(file.read_bytes()[:cut], private, custody, CHAIN) == ({ANN: first}, cut - len(before))
    keys.erase([first[0]])
    again = keys.of(ANN)
    assert copied() == {BOB: bob, ANN: again} and again != first


def test_a_start_writes_the_copy_anew_only_where_it_is_another(tmp_path: Path) -> None:
    custody, private = custodians("any")
    file, place = tmp_path / "copy", tmp_path / "k"

    def started() -> tuple[SubjectKeys, bool]:
        """The keys as after a start; whether the copy is the very file that was there before."""
        before = file.stat().st_ino if file.exists() else None
        keys = SubjectKeys.open(place, CHAIN)
        keys.copy_to(CopyFile(file, custody, CHAIN, os.urandom))
        held, left = open_copy(file.read_bytes(), private, custody, CHAIN)
        assert (held, left) == ({who: keys.of(who) for _, who in keys.subjects()}, 0)
        return keys, file.stat().st_ino == before

    keys, same = started()
    ann = keys.of(ANN)
    assert not same and started()[1]
    keys = started()[0]
    bob = keys.of(BOB)  # appended to what was found
    assert started()[1]
    whole = file.read_bytes()
    line, _, records = whole.partition(b"\n")
    other = wrap_copy(SubjectKeys.open(tmp_path / "other", CHAIN).copy(), custody, CHAIN, os.urandom)
    for damaged in (
        b"", line, whole[:-1], whole + b"\0", other.partition(b"\n")[0] + b"\n" + records,
        line[:-9] + b"A" * 9 + b"\n" + records, line + b"\n" + bytes(len(records)),
    ):  # fmt: skip
        file.write_bytes(damaged)
        assert not started()[1], damaged
        assert started()[1]
    old = file.read_bytes()
    keys.erase([ann[0], bob[0]])
    file.write_bytes(old)  # somebody put it back
    assert not started()[1]
    shutil.copy(file, tmp_path / "one of nobody")
    keys = started()[0]
    keys.erase([keys.of(ANN)[0]])
    shutil.copy(tmp_path / "one of nobody", file)  # of as many records, and another generation
    assert not started()[1]
    (place / "copied").unlink()
    assert not started()[1]
    file.unlink()
    assert not started()[1]


def test_no_new_key_is_given_while_the_copy_is_away(tmp_path: Path) -> None:
    """Who has one goes on; once the copy can be written it is whole, whatever was put in its place meanwhile."""
    custody, private = custodians("any")
    volume, away = tmp_path / "volume", tmp_path / "away"
    volume.mkdir()
    file, keys = volume / "copy", SubjectKeys.open(tmp_path / "k", CHAIN)
    keys.copy_to(CopyFile(file, custody, CHAIN, os.urandom))
    ann = keys.of(ANN)
    volume.rename(away)
    assert keys.of(ANN) == ann
    for _ in range(2):
        with pytest.raises(LedgerError, match=r"copy of the data subjects' keys.*volume/copy"):
            keys.of(BOB)
        assert keys.of(ANN) == ann
    with pytest.raises(LedgerError):
        keys.look_after_copy()
    with pytest.raises(LedgerError):
        SubjectKeys.open(tmp_path / "k2", CHAIN).copy_to(CopyFile(file, custody, CHAIN, os.urandom))
    volume.mkdir()
    file.write_bytes(b"another's")
    bob = keys.of(BOB)
    assert open_copy(file.read_bytes(), private, custody, CHAIN) == ({ANN: ann, BOB: bob}, 0)
    file.unlink()
    keys.look_after_copy()
    assert open_copy(file.read_bytes(), private, custody, CHAIN) == ({ANN: ann, BOB: bob}, 0)
