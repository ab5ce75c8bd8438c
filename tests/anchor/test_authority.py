"""Timestamps by a real local authority (`openssl ts`), and what is refused of one (attack 26 at its source)."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.anchor import Door
from sidecar.anchor.authority import Authority, check, roots_of
from sidecar.chain import checkpoint, merkle
from sidecar.chain.checkpoint import Checkpoint
from sidecar.chain.timestamp import Timestamp
from sidecar.errors import AnchorRefused, AnchorUnavailable, Malformed, UsageError
from tests.anchor.parties import OpensslAuthority, answering
from tests.scribe import signing_key

TIP = Checkpoint("log.example.org/fleet", 7, merkle.leaf_hash(b"seven"))
SIGNED = checkpoint.sign(TIP, signing_key("log"))
OTHER = checkpoint.sign(replace(TIP, size=8), signing_key("log"))


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> OpensslAuthority:
    return OpensslAuthority.make(tmp_path_factory.mktemp("tsa") / "ours")


@pytest.fixture(scope="module")
def another(tmp_path_factory: pytest.TempPathFactory) -> OpensslAuthority:
    return OpensslAuthority.make(tmp_path_factory.mktemp("tsa") / "another")


@pytest.fixture(scope="module")
def stamp(ours: OpensslAuthority) -> Timestamp:
    with answering(lambda path, body: (200, ours.reply(body))) as url:
        return Authority(Door(url), (ours.root,)).vouch(SIGNED)


def test_a_timestamp(ours: OpensslAuthority, stamp: Timestamp) -> None:
    assert stamp.checkpoint == TIP.text()
    assert abs(check(stamp, roots_of([ours.root])) - time.time()) < 3_600
    assert Timestamp.parse(stamp.encode()) == stamp


def test_an_authority_that_answers_for_another_hash_nonce_or_root(
    ours: OpensslAuthority, another: OpensslAuthority, stamp: Timestamp
) -> None:
    for wrong in (stamp.response, another.reply, b"", b"\x30\x03\x02\x01\x00", b"no DER"):
        with answering(lambda path, body, wrong=wrong: (200, wrong(body) if callable(wrong) else wrong)) as url:
            for signed in (SIGNED, OTHER):
                with pytest.raises(AnchorRefused):
                    Authority(Door(url), (ours.root,)).vouch(signed)


def test_a_query_that_is_refused(ours: OpensslAuthority) -> None:
    with answering(lambda path, body: (200, ours.reply(b"no query"))) as url, pytest.raises(AnchorRefused):
        Authority(Door(url), (ours.root,)).vouch(SIGNED)


@pytest.mark.parametrize("what", ["bytes", "nonce", "root", "no root", "each byte"])
def test_a_stored_timestamp_that_does_not_fit(
    ours: OpensslAuthority, another: OpensslAuthority, stamp: Timestamp, what: str
) -> None:
    good = roots_of([ours.root])
    if what == "each byte":
        found = 0
        for at in range(0, len(stamp.response), 5):
            changed = bytearray(stamp.response)
            changed[at] ^= 1
            try:
                check(replace(stamp, response=bytes(changed)), good)
            except AnchorRefused:
                found += 1
        # What the signature does not cover, as an unused certificate's byte, may change.
        assert found > len(stamp.response) // 5 * 0.9
        return
    cases = {
        "bytes": (replace(stamp, checkpoint=replace(TIP, size=8).text()), good),
        "nonce": (replace(stamp, nonce=stamp.nonce + 1), good),
        "root": (stamp, roots_of([another.root])),
        "no root": (stamp, []),
    }
    with pytest.raises(AnchorRefused):
        check(*cases[what])


@pytest.mark.parametrize(("status", "body"), [(500, b""), (404, b"x"), (302, b""), (200, b"x" * 70_000)])
def test_an_authority_that_does_not_answer_as_it_should(ours: OpensslAuthority, status: int, body: bytes) -> None:
    with answering(lambda path, asked: (status, body)) as url, pytest.raises(AnchorUnavailable):
        Authority(Door(url), (ours.root,)).vouch(SIGNED)


def test_an_authority_out_of_reach(ours: OpensslAuthority, tmp_path: Path) -> None:
    with pytest.raises(AnchorUnavailable):
        Authority(Door("http://127.0.0.1:9/"), (ours.root,)).vouch(SIGNED)
    with pytest.raises(UsageError):
        Door("file:///etc/passwd")
    with pytest.raises(Malformed):
        Authority(Door("http://127.0.0.1:9/"), (b"no certificate",))


STAMP = json.loads(Timestamp(TIP.text(), 8154, b"response").encode())


@pytest.mark.parametrize(
    "changed",
    [
        {"format": "sidecar/v2/timestamp"},
        {"more": 1},
        {"nonce": 8154},
        {"nonce": "08154"},
        {"nonce": "-1"},
        {"nonce": "٣"},
        {"nonce": ""},
        {"nonce": "9" * 51},
        {"checkpoint": "no checkpoint"},
        {"checkpoint": None},
        {"response": "AAA"},
        {"response": "A" * 140_000},
    ],
)
def test_no_timestamp_file(changed: dict[str, object]) -> None:
    with pytest.raises(Malformed):
        Timestamp.parse(json.dumps(STAMP | changed).encode())
    for missing in STAMP:
        with pytest.raises(Malformed):
            Timestamp.parse(json.dumps({k: v for k, v in STAMP.items() if k != missing}).encode())
