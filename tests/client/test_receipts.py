"""The last receipt: which one is kept, when it is sent, and what its refusal means."""

from __future__ import annotations

import grpc
import pytest

from sidecar.client import Guard, NoDecision
from sidecar.client.receipts import LastReceipt
from tests.client.fake_sidecar import AT_ONCE, Abort, FakeSidecar, allow, receipt, scripted_channel

ACCOUNT = ("account", "acme-42")
CUT = Abort(grpc.StatusCode.FAILED_PRECONDITION, "last_receipt: this ledger does not hold entry 7 as the receipt says")


def test_of_one_chain_the_one_furthest_on_is_kept():
    last = LastReceipt()
    assert last.receipt == b""
    for seq, kept in [(7, 7), (9, 9), (8, 9), (9, 9), (10, 10)]:
        last.take(receipt(seq))
        assert last.receipt == receipt(kept)


def test_a_new_chain_starts_over():
    last = LastReceipt()
    last.take(receipt(900, chain="00"))
    last.take(receipt(2, chain="01"))
    assert last.receipt == receipt(2, chain="01")


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"after",
        receipt(9).replace(b"seq 9\n", b""),
        receipt(9).replace(b"seq 9\n", b"seq 9\nseq 10\n"),
        receipt(9).replace(b"seq 9\n", b"seq -9\n"),
        receipt(9).replace(b"seq 9\n", b"seq " + b"9" * 5000 + b"\n"),
        receipt(9).replace(b"chain 00\n", b""),
    ],
)
def test_what_names_no_place_in_a_chain_is_not_kept(bad):
    last = LastReceipt()
    last.take(receipt(7))
    last.take(bad)
    assert last.receipt == receipt(7)


def test_a_ledger_that_lost_what_it_answered_is_said_clearly_and_never_forgotten():
    sidecar = FakeSidecar(allow(), CUT, CUT)
    guard = Guard(scripted_channel(sidecar), agent="a", pace=AT_ONCE)
    guard.check("a", ACCOUNT)
    for _ in range(2):
        with pytest.raises(NoDecision, match="has lost what it had answered") as caught:
            guard.check("a", ACCOUNT)
        assert caught.value.cause == "refused"
        assert caught.value.receipt == sidecar.given[0]  # evidence
    assert [q.last_receipt for q in sidecar.asked] == [b"", sidecar.given[0], sidecar.given[0]]


def test_another_failed_precondition_is_an_ordinary_refusal():
    sidecar = FakeSidecar(CUT, Abort(grpc.StatusCode.FAILED_PRECONDITION, "not now"))
    guard = Guard(scripted_channel(sidecar), agent="a", pace=AT_ONCE)
    for _ in range(2):  # the first was asked without a receipt
        with pytest.raises(NoDecision, match="FAILED_PRECONDITION") as caught:
            guard.check("a", ACCOUNT)
        assert (caught.value.cause, caught.value.receipt) == ("refused", b"")
