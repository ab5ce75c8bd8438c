"""A peer cannot fill the ledger with refusals, and none is lost: what is not written is counted."""

from __future__ import annotations

from sidecar.chain.entry import EntryType
from sidecar.decide.refusals import BURST, MAX_PEERS, OTHERS, Refusal, RefusalBook
from sidecar.ledger import Draft

REFUSAL = Refusal("INVALID_ARGUMENT", "arguments", "is not JSON")


class Hand:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def counted(drafts: list[Draft | None]) -> int:
    return sum(draft.payload["count"] for draft in drafts if draft is not None)


def test_a_flood_is_a_few_entries_and_an_exact_count() -> None:
    hand = Hand()
    book = RefusalBook(hand)
    drafts = [book.note("peer", REFUSAL) for _ in range(1_000)]
    assert sum(draft is not None for draft in drafts) == BURST
    hand.seconds = 5.0
    rest = book.remainder()
    assert len(rest) == 1
    assert counted([*drafts, *rest]) == 1_000
    assert rest[0].type is EntryType.REJECTED
    assert rest[0].payload["peer"] == "peer"


def test_what_is_left_is_written_at_shutdown() -> None:
    book = RefusalBook(Hand())
    drafts = [book.note("peer", REFUSAL) for _ in range(50)]
    assert book.remainder() == []
    assert counted([*drafts, *book.remainder(everything=True)]) == 50
    assert book.remainder(everything=True) == []


def test_one_peer_does_not_use_up_anothers_budget() -> None:
    book = RefusalBook(Hand())
    for _ in range(100):
        book.note("loud", REFUSAL)
    assert book.note("quiet", REFUSAL) is not None


def test_peers_are_bounded_and_still_counted() -> None:
    book = RefusalBook(Hand())
    drafts = [book.note(f"peer-{n}", REFUSAL) for n in range(MAX_PEERS + 500)]
    drafts += book.remainder(everything=True)
    assert counted(drafts) == MAX_PEERS + 500
    assert any(draft is not None and draft.payload["peer"] == OTHERS for draft in drafts)


def test_quiet_peers_are_forgotten() -> None:
    hand = Hand()
    book = RefusalBook(hand)
    for n in range(MAX_PEERS):
        book.note(f"old-{n}", REFUSAL)
    hand.seconds = 3600.0
    book.remainder()
    draft = book.note("new", REFUSAL)
    assert draft is not None
    assert draft.payload["peer"] == "new"


def test_junk_does_not_hide_an_alarm() -> None:
    book = RefusalBook(Hand())
    for _ in range(100):
        book.note("peer", REFUSAL)
    alarm = book.note("peer", Refusal("FAILED_PRECONDITION", "", "last_receipt: the end was cut"))
    assert alarm is not None
    assert (alarm.payload["count"], alarm.payload["peer"]) == (1, "peer")
