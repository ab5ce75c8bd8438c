"""LMDB pages changed from outside: the reader's verdict, and what a sidecar does that starts on such a file.

LMDB trusts its file and may crash whoever maps it. The reader is a child process for that reason, and its death is a
finding. A sidecar that crashes at its start answers nothing: that is fail-closed, and counted here.
"""

from __future__ import annotations

import shutil
import signal
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.chain.seeds import Custodian, Custody
from sidecar.chain.stream import Kind, records
from sidecar.errors import LedgerUnknown
from sidecar.ledger import ledger_stream
from sidecar.verify import Evidence, Report, Verdict, verify_stream
from tests.fuzz.examples import fuzz
from tests.ledger.worlds import PATIENCE, SECOND, World, decision, everything, loaded, naive_open

PAGE = 4096
CUSTODY = Custody("any", (Custodian("auditor", "hpke", b"a key nobody uses here"),))
NUMBERS = st.sampled_from([0, 1, 2, 3, 7, 8, 16, 255, 4095, 4096, 65535, 2**31, 2**32 - 1]) | st.integers(0, 100)
HOW = st.sampled_from(["header", "header", "pointer", "node", "bytes", "swap", "copy", "zero", "meta", "cut"])
Edit = tuple[str, int, int, int, bytes]
EDITS = st.lists(
    st.tuples(HOW, st.integers(0, 10_000), st.integers(0, 10_000), NUMBERS, st.binary(min_size=1, max_size=16)),
    min_size=1, max_size=4,
)  # fmt: skip

OPENED, REFUSED, REFUSED_LATER, LEAKED = 0, 3, 4, 99
STARTING = f"""
import os, resource, signal, sys
from pathlib import Path
from sidecar.errors import LedgerError
from tests.fuzz.test_fuzz_pages import CUSTODY
from tests.ledger.worlds import World, decision

def start(directory):
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.alarm(30)
    try:
        ledger = World(Path(directory), CUSTODY).open()
    except LedgerError:
        return {REFUSED}
    try:
        ledger.append(decision(1_000_000)).result(20)
        ledger.close()
    except LedgerError:
        return {REFUSED_LATER}
    return {OPENED}

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        code = {LEAKED}
        try:
            code = start(line.rstrip())
        finally:
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass(slots=True)
class Base:
    """Good ledgers, and a process that forks a sidecar's ledger to start on any directory it is told."""

    worlds: list[World]
    receipts: list[bytes]
    scratch: Path
    starter: subprocess.Popen[str]
    seen: Counter[str] = field(default_factory=Counter)

    def damaged(self, which: int, edits: list[Edit]) -> tuple[World, World]:
        """A ledger and its damaged copy."""
        good = self.worlds[which]
        shutil.rmtree(self.scratch, ignore_errors=True)
        shutil.copytree(good.directory, self.scratch)
        file = self.scratch / "ledger.mdb"
        used = file.read_bytes().rstrip(b"\0")  # no zeros that were put there ahead of need
        file.write_bytes(edited(used + bytes(-len(used) % PAGE), edits))
        return good, World(self.scratch, good.custody)

    def start(self, world: World) -> int:
        """A ledger's start, one decision and an orderly end; the exit code, negative for a signal."""
        assert self.starter.stdin is not None and self.starter.stdout is not None
        print(world.directory, file=self.starter.stdin, flush=True)
        return int(self.starter.stdout.readline())


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Base]:
    place = tmp_path_factory.mktemp("pages")
    world = World(place / "good", CUSTODY)
    world.create()
    ledger = world.open()
    ledger.append(loaded()).result(PATIENCE)
    for n in range(120):
        if n % 50 == 49:
            world.clock.move(60 * SECOND)
        bulk = '{"a":"' + "z" * (9_000 if n % 40 == 7 else 10) + '"}'
        last = ledger.append(decision(n, arguments=bulk)).result(PATIENCE)
    crashed = world.snapshot("crashed")
    ledger.close()
    command = [sys.executable, "-c", STARTING]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as starter:
        try:
            yield Base([world, crashed], [last.receipt], place / "scratch", starter)
        finally:
            starter.kill()


def edited(data: bytes, edits: list[Edit]) -> bytes:
    """The file with pages changed: headers, node pointers, nodes, bytes, metas; pages swapped, copied, zeroed, cut."""
    pages = [bytearray(data[at : at + PAGE]) for at in range(0, len(data), PAGE)]
    for how, one, other, number, raw in edits:
        at, to = one % len(pages), other % len(pages)
        page = pages[at]
        if how == "header":  # page number u64, pad u16, flags u16, lower u16, upper u16 (lmdb's MDB_page)
            struct.pack_into("<H", page, (0, 2, 4, 8, 10, 12, 14)[other % 7], number & 0xFFFF)
        elif how == "pointer":
            struct.pack_into("<H", page, 16 + 2 * (other % 40), number & 0xFFFF)
        elif how == "node":
            (where,) = struct.unpack_from("<H", page, 16 + 2 * (other % 20))
            struct.pack_into("<I", page, min(where, PAGE - 8) + 4 * (number & 1), number)
        elif how == "bytes":
            page[other % PAGE : other % PAGE + len(raw)] = raw
            del page[PAGE:]
        elif how == "swap":
            pages[at], pages[to] = pages[to], pages[at]
        elif how == "copy":
            pages[at] = bytearray(pages[to])
        elif how == "zero":
            pages[at] = bytearray(PAGE)
        elif how == "meta":
            struct.pack_into("<Q", pages[at % 2], 16 + 8 * (other % 18), number)
        else:
            del pages[max(2, at) :]
    return b"".join(pages)


def content(world: World) -> bytes | None:
    """The stream the reader gives, or None where it does not come to an end in order."""
    try:
        with ledger_stream(world.directory, silence=20) as read:
            return everything(read)
    except Exception:
        return None


def held_once(stream: bytes | None, now: bytes | None) -> bool:
    """Whether a ledger that holds ``now`` held ``stream`` at some commit: LMDB keeps the last two, and pages of more.

    That is an old copy of the file. Nothing in a file tells it; the heads in it, which end it, are signed.
    """
    if stream is None or now is None:
        return False
    (entries, notes), (all_entries, all_notes) = _told(stream), _told(now)
    return entries == all_entries[: len(entries)] and notes == all_notes[: len(notes)]


def _told(stream: bytes) -> tuple[list[bytes], list[bytes]]:
    rows = list(records(BytesIO(stream).read))
    return (
        [body for kind, body in rows if kind is Kind.ENTRY],
        [body for kind, body in rows if kind in (Kind.EPOCH, Kind.SEAL)],
    )


def verdict(world: World, receipts: list[bytes]) -> Report | None:
    """The report; None where the file is refused as no ledger at all."""
    try:
        with ledger_stream(world.directory, silence=20) as read:
            return verify_stream(read, Evidence(open_seed=naive_open, receipts=receipts))
    except LedgerUnknown as error:
        assert "\n" not in str(error)
        return None


@given(which=st.integers(0, 1), edits=EDITS)
@example(which=0, edits=[("swap", 0, 1, 0, b"\0")])
@fuzz(40)
def test_a_changed_file_never_verifies_better(base: Base, which: int, edits: list[Edit]) -> None:
    """What is no worse hit nothing in use, or made an old copy that lacks nothing which the receipt is for."""
    good, bad = base.damaged(which, edits)
    report = verdict(bad, base.receipts)
    if report is not None and report.verdict is not Verdict.UNANCHORED:
        assert report.verdict > Verdict.UNANCHORED and report.first_bad() is not None
    elif report is not None:
        assert held_once(content(bad), content(good))


@pytest.mark.parametrize("which", (0, 1))
def test_a_lost_meta_page_makes_an_old_copy(base: Base, which: int) -> None:
    """Of the two that LMDB writes by turns one names the last commit; a caller's receipt tells that it is gone."""
    good, _ = base.damaged(which, [])
    kept = []
    for lost in (0, 1):
        _, bad = base.damaged(which, [("copy", lost, 1 - lost, 0, b"\0")])
        report, found = verdict(bad, base.receipts), content(bad)
        assert held_once(found, content(good)) and report is not None
        kept.append(found == content(good))
        seen = which == 0 or kept[-1]  # the receipt is for the last decision; the good ledger was closed after it
        assert report.verdict is (Verdict.UNANCHORED if seen else Verdict.INCOMPLETE)
    assert sorted(kept) == [False, True]


@given(which=st.integers(0, 1), edits=EDITS)
@fuzz(120)
def test_a_sidecar_starting_on_a_changed_file_refuses_goes_on_or_dies(
    base: Base, which: int, edits: list[Edit]
) -> None:
    """Never another error, never for ever; and if it goes on, the verifier says whether anything was lost."""
    _, bad = base.damaged(which, edits)
    code = base.start(bad)
    base.seen[str(code)] += 1
    died = code < 0 and code != -signal.SIGALRM
    assert died or code in (OPENED, REFUSED, REFUSED_LATER)
    if code == OPENED and base.seen[str(code)] % 4 == 0:
        report = verdict(bad, base.receipts)
        assert report is None or report.verdict >= Verdict.UNANCHORED


def test_the_good_files_are_good(base: Base) -> None:
    """So that the tests above can fail: undamaged copies verify, and a ledger starts on them."""
    for which in (0, 1):
        _, copy = base.damaged(which, [])
        report = verdict(copy, base.receipts)
        assert report is not None and report.verdict is Verdict.UNANCHORED, report
        assert base.start(copy) == OPENED
        report = verdict(copy, base.receipts)
        assert report is not None and report.verdict is Verdict.UNANCHORED, report
    print(f"starts on changed files: {dict(base.seen)}")
