"""What the verifier holds besides: receipts, disclosures, trust files."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from sidecar.chain.ratchet import SegmentKeys
from sidecar.chain.seeds import Custody, SealedShare
from sidecar.errors import CustodianMissing, Malformed
from sidecar.verify import Disclosure, Evidence, Trust, Verdict, parse_disclosure, parse_trust
from tests.attacks.expect import T, found, nothing_worse
from tests.scribe import Scribe, judge, public, secret, signing_key, story

STORY = story()


@pytest.mark.parametrize("seq", [3, 5, 6, 9, 12, 15, 17, 18])
def test_good_receipts(seq: int) -> None:
    report = nothing_worse(STORY.records, Evidence(receipts=[STORY.receipt(seq)]))
    assert "receipts against their entries: 1" in report.checked


def test_a_head_without_a_decision_is_a_receipt_too() -> None:
    nothing_worse(STORY.records, Evidence(receipts=[STORY.sign_head(7, decided=False)]))


def test_receipt_of_another_chain() -> None:
    other = Scribe("beta")
    other.open()
    seq = other.decision()
    found(STORY.records, T, 0, seq, Evidence(receipts=[other.receipt(seq)]))


def test_receipt_beyond_its_sealed_segment() -> None:
    data = STORY.sign_head(7, decided=False, place=8)
    found(STORY.records, Verdict.INCOMPLETE, 1, 8, Evidence(receipts=[data]))


def test_receipt_before_its_segment() -> None:
    data = STORY.sign_head(7, decided=False, place=4)
    found(STORY.records, Verdict.FORK, 1, 4, Evidence(receipts=[data]))


def test_receipt_for_another_epoch() -> None:
    data = STORY.sign_head(7, decided=False, epoch=1)
    found(STORY.records, Verdict.FORK, 1, 7, Evidence(receipts=[data]))


def test_rubbish_as_receipt() -> None:
    assert judge(STORY.records, Evidence(receipts=[b"rubbish"])).verdict is Verdict.MALFORMED


GOOD_DISCLOSURE = {
    "format": "sidecar/v1/disclosure",
    "chain": "ab" * 32,
    "segments": [{"segment": 3, "mac_key": "01" * 32, "tag_key": "02" * 32}],
}


def test_disclosure_round_trip() -> None:
    value = Disclosure(bytes(32), {7: SegmentKeys(secret(1), secret(2)), 2: SegmentKeys(secret(3), secret(4))})
    assert parse_disclosure(value.encode()) == value
    assert json.loads(value.encode())["segments"][0]["segment"] == 2
    assert parse_disclosure(json.dumps(GOOD_DISCLOSURE).encode()).segments[3].mac_key == b"\x01" * 32
    assert "01" * 4 not in repr(parse_disclosure(json.dumps(GOOD_DISCLOSURE).encode()))


def changed(document: object, path: tuple[object, ...], value: object) -> bytes:
    copy = json.loads(json.dumps(document))
    place = copy
    for step in path[:-1]:
        place = place[step]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return json.dumps(copy).encode()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("format",), "sidecar/v2/disclosure"),
        (("format",), None),
        (("chain",), "AB" * 32),
        (("chain",), "ab" * 31),
        (("chain",), 5),
        (("segments",), {}),
        (("more",), 1),
        (("segments", 0), 5),
        (("segments", 0, "segment"), -1),
        (("segments", 0, "segment"), True),
        (("segments", 0, "segment"), "3"),
        (("segments", 0, "mac_key"), "01"),
        (("segments", 0, "tag_key"), None),
        (("segments", 0, "more"), 1),
        (("segments",), GOOD_DISCLOSURE["segments"] * 2),
    ],
)
def test_disclosure_rejects(path: tuple[object, ...], value: object) -> None:
    with pytest.raises(Malformed):
        parse_disclosure(changed(GOOD_DISCLOSURE, path, value))


GOOD_TRUST = {
    "format": "sidecar/v1/trust",
    "chains": [{"chain": "ab" * 32, "identity": "cd" * 32}],
    "policy": None,
    "tsa_roots": [],
    "custodians": [],
}


def test_trust() -> None:
    assert parse_trust(json.dumps(GOOD_TRUST).encode()).chains == {b"\xab" * 32: b"\xcd" * 32}
    pin = Trust({STORY.chain_id: public(STORY.identity), bytes(32): bytes(32)})
    nothing_worse(STORY.records, Evidence(trust=pin))
    found(STORY.records, T, 0, 0, Evidence(trust=Trust({STORY.chain_id: public(signing_key("mallory"))})))
    found(STORY.records, T, 0, 0, Evidence(trust=Trust({bytes(32): public(STORY.identity)})))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("format",), "sidecar/v1/disclosure"),
        (("chains",), []),
        (("chains",), {}),
        (("chains",), GOOD_TRUST["chains"] * 2),  # type: ignore[operator]
        (("chains", 0, "chain"), "AB" * 32),
        (("chains", 0, "identity"), None),
        (("chains", 0, "more"), 1),
        (("more",), 1),
        (("policy",), ["quorum none"]),
        (("policy",), "quorum nobody\n"),
        (("tsa_roots",), {}),
        (("principals",), {}),
        (("principals",), [{"id": "a"}]),
        (("principals",), [{"id": "a", "keys": ["AB"]}]),
        (("principals",), [{"id": "a", "keys": []}] * 2),
        (("tsa_roots",), ["AAA"]),
        (("tsa_roots",), [""]),
        (("tsa_roots",), [1]),
        (("custodians",), "ab" * 32),
        (("custodians",), ["AB" * 32]),
    ],
)
def test_trust_rejects(path: tuple[object, ...], value: object) -> None:
    with pytest.raises(Malformed):
        parse_trust(changed(GOOD_TRUST, path, value))


@pytest.mark.parametrize("parse", [parse_trust, parse_disclosure])
@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"format":"x","format":"x"}', b"\xff"])
def test_not_such_a_file(parse: object, data: bytes) -> None:
    assert callable(parse)
    with pytest.raises(Malformed):
        parse(data)


def test_a_verifier_without_the_right_keys_says_so_and_condemns_nothing() -> None:
    def locked(custody: Custody, chain_id: bytes, epoch: int, shares: Sequence[SealedShare]) -> bytes:
        raise CustodianMissing("the key belongs to no custodian of this chain")

    report = nothing_worse(STORY.records, Evidence(open_seed=locked))
    assert "HMAC tags of epoch 0: the key belongs to no custodian of this chain" in report.not_checked
    assert not any("HMAC" in line for line in report.checked)
