"""A ledger that lets go of what was receipted: what is left, what still works, what is refused, and how large it is."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from sidecar.chain.entry import EntryType
from sidecar.chain.seeds import Custodian, Custody
from sidecar.chain.stream import MAGIC, Kind, record, records
from sidecar.errors import Gone, LedgerError, LedgerFull, NotFound
from sidecar.ledger import Draft, Keep, Ledger, Options, ledger_stream
from sidecar.verify import Evidence, Verdict, verify_stream
from tests.ledger.test_waiting import waits
from tests.ledger.worlds import World, decision, decision_id, loaded, naive_open, outcome

MIB = 1 << 20


def made(place: Path, keep: Keep, **more: int) -> World:
    options = Options(**{"max_bytes": 64 * MIB, "reserve_bytes": MIB, "segment_entries": 5, **more}, keep=keep)  # type: ignore[arg-type]
    world = World(place / "ledger", Custody("any", (Custodian("auditor", "hpke", b"a key"),)), options=options)
    world.create()
    return world


def decide(ledger: Ledger, n: int, size: int = 100) -> int:
    return ledger.append(decision(n, arguments=f'{{"noise":"{secrets.token_hex(size)}"}}')).result(60).seq


@pytest.fixture
def lived(tmp_path: Path) -> Iterator[tuple[World, Ledger]]:
    """Seven segments in two epochs, of which the first five may go, being older than a nanosecond."""
    world = made(tmp_path, Keep(ns=1))
    ledger = world.open()
    ledger.append(loaded()).result(60)
    for n in range(12):
        decide(ledger, n)
    ledger.close()
    ledger = world.open()
    for n in range(12, 20):
        decide(ledger, n)
    world.clock.move(10**9)
    yield world, ledger
    ledger.close()


def only_the_start_is_missing(world: World) -> int:
    """INCOMPLETE at the very beginning and nothing else; the number of entries that are there."""
    report = world.verify()
    worse = [(f.verdict, f.segment, f.seq) for f in report.findings if f.verdict is not Verdict.UNANCHORED]
    assert report.verdict is Verdict.INCOMPLETE and worse == [(Verdict.INCOMPLETE, 0, 0)], report.findings
    return report.entries


def test_what_is_left_verifies_and_says_that_it_is_not_whole(lived: tuple[World, Ledger]) -> None:
    world, ledger = lived
    whole = world.verify()
    assert whole.verdict is Verdict.UNANCHORED
    assert ledger.book().trim(2) == 9  # GENESIS, both OPEN and POLICY stay
    assert only_the_start_is_missing(world) == whole.entries - 13
    assert ledger.book().trim(2) == 0
    assert ledger.book().trim(10**6) > 0
    left = only_the_start_is_missing(world)
    assert Kind.CONTEXT_SEAL in world.kinds() and 0 < left < 10


def test_what_was_erased_stays_known(tmp_path: Path) -> None:
    """Else an old copy of the keys, given back, would not be erased again."""
    world = made(tmp_path, Keep(ns=1))
    ledger = world.open()
    value = {"type": "TOMBSTONE", "subject": "ab" * 16, "note": "a note", "body": "{}"}
    seq = ledger.append(Draft(EntryType.TOMBSTONE, value, ref_seq=0)).result(60).seq
    for n in range(20):
        decide(ledger, n)
    world.clock.move(10**9)
    assert ledger.book().trim(10**6) > 0 and ledger.book().trim(10**6) == 0
    with pytest.raises(Gone):
        ledger.entry(seq + 1)
    for _ in range(2):
        assert ledger.about(0) == [(seq, EntryType.TOMBSTONE)] and ledger.payload(seq) == value
        ledger.close()
        ledger = world.open()
    only_the_start_is_missing(world)
    ledger.close()


def test_what_is_asked_for_and_gone_is_refused_clearly(lived: tuple[World, Ledger]) -> None:
    _, ledger = lived
    first = ledger.decision(decision_id(0)).seq
    entry = ledger.entry(first)
    ledger.append(outcome(0, first)).result(60)
    ledger.book().trim(4)
    with pytest.raises(Gone, match="the collector has it"):
        ledger.entry(first)
    with pytest.raises(NotFound, match="the collector has them"):
        ledger.decision(decision_id(0))
    with pytest.raises(Gone):
        ledger.prove(first)
    with pytest.raises(Gone):
        ledger.holds(first, entry.tag)
    with pytest.raises(LedgerError, match="no longer kept here"):
        ledger.book().shipment(0, first, 1_000)
    assert ledger.decision(decision_id(19)).seq > first and ledger.about(first) == []
    assert ledger.last_attached() == 5 or ledger.payload(ledger.last_attached() or 0)["type"] == "POLICY"
    assert ledger.entry(0).seq == 0


def test_it_starts_again_in_order_and_after_a_crash(lived: tuple[World, Ledger]) -> None:
    world, ledger = lived
    ledger.book().trim(10**6)
    for n in range(20, 23):
        decide(ledger, n)
    crashed = world.snapshot("crashed")
    ledger.close()
    for each in (world, crashed):
        again = each.open()
        seq = decide(again, 50)
        again.book().trim(10**6)
        assert again.entry(seq).seq == seq
        again.close()
        only_the_start_is_missing(each)


def test_what_waits_for_approval_stays(tmp_path: Path) -> None:
    world = made(tmp_path, Keep(ns=1))
    ledger = world.open()
    for n in range(4):
        decide(ledger, n)
    waiting = ledger.append(waits(world, 4)).result(60).seq
    for n in range(5, 20):
        decide(ledger, n)
    world.clock.move(10**9)
    ledger.book().trim(10**6)
    assert ledger.payload(waiting)["effect"] == "REQUIRE_APPROVAL"
    world.clock.move(120 * 10**9)
    decide(ledger, 30)
    ledger.book().trim(10**6)
    with pytest.raises(Gone):
        ledger.entry(waiting)
    ledger.close()


def test_nothing_goes_that_is_young_or_not_receipted(tmp_path: Path) -> None:
    world = made(tmp_path, Keep(ns=3_600 * 10**9))
    ledger = world.open()
    for n in range(12):
        decide(ledger, n)
    assert ledger.book().trim(10**6) == 0
    world.clock.move(7_200 * 10**9)
    assert ledger.book().trim(-1) == 0
    assert world.verify().verdict is Verdict.UNANCHORED
    assert ledger.book().trim(0) == 1 and ledger.book().trim(1) > 1  # the CLOSE of its founding; then decisions
    ledger.close()


def test_the_disk_is_bounded_under_load(tmp_path: Path) -> None:
    """What goes makes room for what comes: the file stays below its bound, however much is recorded."""
    world = made(tmp_path, Keep(size=2 * MIB), segment_entries=100)
    ledger = world.open()
    file, peak = tmp_path / "ledger" / "ledger.mdb", 0
    for n in range(1_600):
        ledger.append(decision(n, arguments=f'{{"noise":"{secrets.token_hex(1_500)}"}}'))
        if n % 100 == 99:
            decide(ledger, 10_000 + n)  # waits for all before it
            ledger.book().trim(ledger.position().segment - 1)
            peak = max(peak, ledger.usage().bytes_used)
    # Each entry takes a page: without letting go 6.4 MiB.
    assert MIB < peak < 3 * MIB and file.stat().st_size < 5 * MIB
    ledger.close()
    assert only_the_start_is_missing(world) < 700


def test_a_false_context_is_found(lived: tuple[World, Ledger]) -> None:
    """What stands for the segments that went is followed from the identity key: a bit altered, or a record less."""
    world, ledger = lived
    ledger.book().trim(2)
    with ledger_stream(world.directory) as read:
        found = list(records(read))
    kinds = (Kind.GENESIS, Kind.EPOCH, Kind.OPEN, Kind.CONTEXT_SEAL)
    context = [i for i, (kind, _) in enumerate(found) if kind in kinds]
    assert len(context) >= 4
    first_seal = next(i for i in context if found[i][0] is Kind.CONTEXT_SEAL)

    def verdict(changed: list[tuple[Kind, bytes]]) -> Verdict:
        data = MAGIC + b"".join(record(kind, body) for kind, body in changed)
        return verify_stream(BytesIO(data).read, Evidence(open_seed=naive_open)).verdict

    assert verdict(found) is Verdict.INCOMPLETE
    for i in context:
        kind, body = found[i]
        # Of OPEN only the seeds and the note's name are held against something; the seal of the epoch before is by its
        # hash, whoever signed it.
        told = kind is Kind.OPEN or i == first_seal
        for at in (len(body) // 3, *([] if told else [len(body) - 30])):
            edited = body[:at] + bytes((body[at] ^ 1,)) + body[at + 1 :]
            assert verdict([*found[:i], (kind, edited), *found[i + 1 :]]) >= Verdict.TAMPERED, (kind, at)
        assert verdict([*found[:i], *found[i + 1 :]]) >= Verdict.TAMPERED, kind


def test_a_reader_that_stays_fills_the_ledger_and_ends_nothing(tmp_path: Path) -> None:
    """Freed pages are not used again under a reader: then entries are refused in time, and taken again once it went."""
    world = made(tmp_path, Keep(size=2 * MIB), max_bytes=6 * MIB, segment_entries=100)
    ledger = world.open()

    def load(first: int) -> int:
        refused = 0
        for n in range(first, first + 800):
            future = ledger.append(decision(n, arguments=f'{{"noise":"{secrets.token_hex(1_500)}"}}'))
            if n % 100 == 99:
                refused += isinstance(future.exception(60), LedgerFull)
                ledger.book().trim(ledger.position().segment - 1)
        return refused

    assert load(0) == 0
    with ledger_stream(world.directory) as read:
        assert read(1)  # the rest of it waits in a full pipe
        assert load(1_000) > 0 and ledger.failure is None
    assert load(2_000) == 0 and ledger.failure is None and world.failures == []
    ledger.close()
    only_the_start_is_missing(world)
