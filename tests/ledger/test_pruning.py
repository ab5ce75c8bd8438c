"""Pruning a ledger's file: what goes, what stays, what still works afterwards, and what is left in free pages."""

from __future__ import annotations

import secrets
from concurrent.futures import Future
from pathlib import Path

import pytest

from sidecar.chain import authority_note
from sidecar.chain.acts import Prune, Run
from sidecar.chain.entry import EntryType, Header, StoredEntry
from sidecar.chain.note import parse
from sidecar.chain.seal import Seal, seal_hash
from sidecar.chain.seeds import Custodian, Custody
from sidecar.chain.stream import Kind, records
from sidecar.errors import Gone, LedgerBusy
from sidecar.ledger import Options, Recorded, carry_out, ledger_stream
from sidecar.verify import Verdict
from tests.ledger.worlds import World, decision, decision_id, outcome
from tests.scribe import public, signing_key

AUTHORITY = signing_key("authority")
DECISIONS = 12


def waited(future: Future[Recorded]) -> Recorded:
    return future.result(60)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A ledger with an authority, in segments of 5 entries."""
    options = Options(max_bytes=256 << 20, reserve_bytes=1 << 20, segment_entries=5)
    made = World(tmp_path / "ledger", Custody("any", (Custodian("auditor", "hpke", b"a key"),)), options=options)
    made.create(authority=public(AUTHORITY))
    return made


@pytest.fixture
def pruned(world: World) -> tuple[World, list[bytes], list[bytes]]:
    """A ledger of segments of 5 entries, pruned up to segment 1; the payloads that went, and those that stayed."""
    ledger = world.open()
    for n in range(DECISIONS):
        # Hard to pack; the large ones are in pages of their own, of the small ones many are in one.
        arguments = f'{{"noise":"{secrets.token_hex(3_000 if n % 2 else 100)}"}}'
        made = waited(ledger.append(decision(n, arguments=arguments)))
        if n % 4 == 0:
            waited(ledger.append(outcome(n, made.seq)))
    ledger.close()
    with ledger_stream(world.directory) as read:
        found = list(records(read))
    seals = [parse(body).text for kind, body in found if kind is Kind.SEAL]
    chain = next(body[32:64] for kind, body in found if kind is Kind.ENTRY)
    act = Prune(chain, (Run(0, 2, seal_hash(seals[2])),), "retention is over")
    grant = authority_note.verify(authority_note.compose(act, 2**62, AUTHORITY), chain, public(AUTHORITY))
    gone, stay = [], []
    for kind, body in found:
        if kind is Kind.ENTRY:
            stored = StoredEntry.parse(body)
            header = Header.decode(stored.header)
            free = header.type in (EntryType.DECISION, EntryType.OUTCOME) and header.segment <= 2
            (gone if free else stay).append(stored.stored)
    cut = carry_out(world.directory, grant, act)
    assert cut.entries == len(gone) > 3 and cut.after < cut.before
    assert Seal.parse(seals[2]).count == 5
    return world, gone, stay


def test_payloads_go_and_the_rest_stays(pruned: tuple[World, list[bytes], list[bytes]]) -> None:
    """PRUNED at the first payload that went (UNANCHORED for want of a log); nothing else is found."""
    world, gone, _ = pruned
    report = world.verify()
    assert report.verdict is Verdict.UNANCHORED and report.first_bad() is None
    (found,) = [f for f in report.findings if f.verdict is Verdict.PRUNED]
    assert (found.segment, found.seq) == (1, 4) and f"{len(gone)} payloads" in found.reason
    assert world.kinds(2).count(Kind.BARE) == 5 and Kind.AUTHORITY in world.kinds(2)


def test_nothing_of_them_is_left_in_the_file(pruned: tuple[World, list[bytes], list[bytes]]) -> None:
    """Neither in pages in use nor in freed ones; what stays is all there."""
    world, gone, stay = pruned
    files = [path for path in Path(world.directory).iterdir() if path.name != "lock"]
    data = b"".join(path.read_bytes() for path in files)
    assert not [piece for piece in gone if piece[30:130] in data]
    assert not [piece for piece in gone if len(piece) > 2_000 and piece[-64:] in data]
    assert [piece[:64] for piece in stay if len(piece) > 4_000 and piece[:64] not in data] == []


def test_it_goes_on(pruned: tuple[World, list[bytes], list[bytes]]) -> None:
    """It opens, records, proves and finds; what asks for a payload that went is told so."""
    world, _, _ = pruned
    ledger = world.open()
    try:
        with pytest.raises(Gone, match="was pruned"):
            ledger.entry(4)
        with pytest.raises(Gone, match="was pruned"):
            ledger.decision(decision_id(0))
        with pytest.raises(Gone, match="was pruned"):
            waited(ledger.append(outcome(0, 4)))
        assert ledger.prove(4).index == 1
        assert ledger.about(4) == [(5, EntryType.OUTCOME)]
        assert ledger.decision(decision_id(DECISIONS - 1)).seq > 10
        leaf = next(waited(ledger.append(decision(n))).leaf for n in (100,))
        assert ledger.holds(ledger.position().next_seq - 1, leaf) and not ledger.holds(4, leaf)
    finally:
        ledger.close()
    report = world.verify()
    assert report.verdict is Verdict.UNANCHORED and report.first_bad() is None


def test_not_under_a_running_sidecar(world: World) -> None:
    ledger = world.open()
    act = Prune(ledger.position().chain_id, (Run(0, 0, bytes(32)),), "too soon")
    grant = authority_note.read(authority_note.compose(act, 1, AUTHORITY))
    with pytest.raises(LedgerBusy):
        carry_out(world.directory, grant, act)
    ledger.close()
