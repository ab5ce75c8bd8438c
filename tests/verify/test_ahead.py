"""Payloads read by worker processes: the report is the one that a single process makes, wherever the damage is."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from random import Random

import pytest

from sidecar.chain.stream import Kind, records
from sidecar.cli import verify_workers
from sidecar.errors import Malformed, UsageError
from sidecar.verify import Evidence, Piped, Report, Verdict, Worker, contents, verify_stream
from sidecar.verify.ahead import ahead
from sidecar.verify.run import Seen, runs
from tests.attacks.expect import at, seal_of
from tests.scribe import Near, Record, Scribe, principal, stream

Attack = Callable[[list[Record]], None]


def written() -> Scribe:
    """Three segments in three batches of at most 1,000 records."""
    s = Scribe()
    s.open()
    for _ in range(2):
        while s.tree.size < 900:
            s.decision(proof="mtls" if s.seq % 7 else "asserted")
        s.seal("count")
    for _ in range(300):
        s.decision()
    s.head()
    return s


LEDGER = written()
EVIDENCE = Evidence(LEDGER.keyed.open_seed, receipts=[LEDGER.receipt(999), LEDGER.receipt(2_000)])


@pytest.fixture(scope="module")
def workers() -> Iterator[list[Worker]]:
    with verify_workers.started(3) as several:
        yield several


def flipped(found: list[Record], index: int, byte: int) -> None:
    body = bytearray(found[index].body)
    body[byte] ^= 1
    found[index] = Record(found[index].kind, bytes(body), found[index].segment, found[index].seq)


def moved(found: list[Record], source: int, target: int) -> None:
    found.insert(at(found, target), found.pop(at(found, source)))


PLACES = (2, 899, 900, 999, 2_099)
ATTACKS: dict[str, Attack] = {
    "none": lambda _: None,
    **{f"payload of {seq}": lambda found, seq=seq: flipped(found, at(found, seq), 300) for seq in PLACES},
    **{f"{seq} is missing": lambda found, seq=seq: found.pop(at(found, seq)) and None for seq in PLACES},
    "salt": lambda found: flipped(found, at(found, 1_234), 220),
    "type": lambda found: flipped(found, at(found, 1_234), 8),
    "tag": lambda found: flipped(found, at(found, 1_234), 190),
    "agent tag": lambda found: flipped(found, at(found, 1_234), 170),
    "codec": lambda found: flipped(found, at(found, 1_234), 248),
    "json": lambda found: flipped(found, at(found, 1_234), 249),
    "seal": lambda found: flipped(found, seal_of(found, 0), 200),
    "moved far": lambda found: moved(found, 10, 1_700),
    "moved near": lambda found: moved(found, 1_001, 999),
    "a segment is missing": lambda found: found.__setitem__(slice(None), [r for r in found if r.segment != 1]),
}


def judged(data: bytes, workers: list[Worker]) -> Report:
    return verify_stream(BytesIO(data).read, EVIDENCE, workers=workers)


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_report_is_the_same(attack: str, workers: list[Worker]) -> None:
    found = list(LEDGER.records)
    ATTACKS[attack](found)
    data = stream(found)
    report = judged(data, [])
    assert (report.verdict > Verdict.UNANCHORED) is (attack != "none")
    assert judged(data, workers) == report


@pytest.mark.parametrize("cut", [1, 100, 1_000_000])
def test_a_stream_that_breaks_off_is_judged_up_to_there(cut: int, workers: list[Worker]) -> None:
    data = LEDGER.stream()[:-cut]
    report = judged(data, [])
    assert report.verdict is not Verdict.UNANCHORED
    assert judged(data, workers) == report


def test_records_before_the_trouble_are_given_first() -> None:
    whole = list(records(BytesIO(LEDGER.stream()).read))
    got = []
    with pytest.raises(Malformed, match="within a record"):
        for kind, bodies, seen in ahead(runs(records(BytesIO(LEDGER.stream()[:-1]).read)), [Near()]):
            got += [(kind, body) for body in bodies]
            assert (seen is None) is (kind is not Kind.ENTRY)
            for body, told in zip(bodies, () if seen is None else seen.told, strict=seen is not None):
                assert (told is None) is (body[8] in (1, 2))
    assert got == whole[:-1]


class Watched(Near):
    """Of so much room. ``sizes`` of the questions that wait; ``most`` of them ever."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room, self.sizes, self.most, self.largest = room, [], 0, 0

    def takes(self, size: int) -> bool:
        return Piped(BytesIO(), BytesIO(), self.room).takes(size)

    def ask(self, runs: Sequence[Sequence[bytes]]) -> None:
        question = BytesIO()
        Piped(question, BytesIO()).ask(runs)
        self.sizes.append(len(question.getvalue()))
        self.most, self.largest = max(self.most, len(self.sizes)), max(self.largest, self.sizes[-1])
        assert len(self.sizes) == 1 or sum(self.sizes) <= self.room
        super().ask(runs)

    def answer(self) -> list[Seen]:
        self.sizes.pop(0)
        return super().answer()


@pytest.mark.parametrize(("room", "most"), [(1 << 20, 2), (0, 1), (1 << 16, 1)])
@pytest.mark.parametrize("large", [False, True])
def test_a_second_question_waits_only_where_there_is_room_for_it(room: int, most: int, large: bool) -> None:
    """So memory is flat, and two pipes cannot both be full."""
    s = LEDGER
    if large:
        s, most = Scribe(), 1
        s.open()
        for n in range(120):
            s.decision(peer=Random(n).randbytes(100_000 * (n % 3 == 0)).hex())
        s.head()
    several = [Watched(room), Watched(room)]
    evidence = Evidence(s.keyed.open_seed)
    reports = [verify_stream(BytesIO(s.stream()).read, evidence, workers=workers) for workers in ([], several)]
    assert reports[0] == reports[1] and reports[0].entries == len([r for r in s.records if r.kind is Kind.ENTRY])
    assert [(w.sizes, w.most) for w in several] == [([], most)] * 2
    assert all(w.largest < 2 << 20 for w in several)


@pytest.mark.parametrize("asserted", [True, False])
def test_what_is_long_to_tell_is_told_when_its_turn_comes(asserted: bool) -> None:
    """A stream of few bytes may inflate to much that would be kept for many entries at once; a long payload may be told
    in few."""
    s = Scribe()
    s.open()
    s.seal("count")
    agent = principal("billing-agent", "asserted" if asserted else "mtls") | {"attributes": {"team": "x" * 20_000}}
    s.decision(bulk=100_000)
    s.decision(proof=agent["proof"], agent=agent)
    s.outcome(s.decision("REQUIRE_APPROVAL", proof=agent["proof"], agent=agent))
    s.head()
    told = [contents.tell(r.body) for r in s.records if r.kind is Kind.ENTRY and r.segment == 1]
    assert [each is None for each in told] == [False, True, True, False]
    reports = [verify_stream(BytesIO(s.stream()).read, s.keyed, workers=workers) for workers in ([], [Near()])]
    assert reports[0] == reports[1]
    assert [each.seq for each in reports[0].findings if each.verdict is Verdict.TAMPERED] == [5]  # it may have none


@pytest.mark.parametrize("answer", [None, b"", b"\0\0", b"\0\0\1\0half of what it was to say"])
@pytest.mark.parametrize("room", [0, 1 << 20])
def test_a_worker_that_has_ended_is_said_and_is_no_finding(answer: bytes | None, room: int) -> None:
    """Before it was asked, while it was asked, or while it answered."""
    program = f"import sys; sys.stdin.buffer.read(9); sys.stdout.buffer.write({answer})" if answer is not None else ""
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        if answer is None:
            child.wait()
        assert child.stdin is not None and child.stdout is not None
        with pytest.raises(UsageError, match="--jobs 1"):
            judged(LEDGER.stream(), [Piped(child.stdin, child.stdout, room)])
        with contextlib.suppress(BrokenPipeError):  # from what could not be written
            child.communicate()


def test_workers_for_large_ledgers_only() -> None:
    assert verify_workers.suitable(1_000_000) == 1
    assert 1 <= verify_workers.suitable(1 << 30) <= 6
    with verify_workers.started(1) as none:
        assert none == []


@pytest.mark.parametrize("attack", ["none", "payload of 999"])
def test_the_command_prints_the_same_with_more_jobs(attack: str, tmp_path: Path) -> None:
    found = list(LEDGER.records)
    ATTACKS[attack](found)
    file = tmp_path / "stream"
    file.write_bytes(stream(found))
    said = [
        subprocess.run([sys.executable, "-m", "sidecar", "verify", file, "--jobs", jobs], capture_output=True)
        for jobs in ("1", "3")
    ]
    assert said[0].returncode == (4 if attack == "none" else 1)
    assert (said[0].stdout, said[0].stderr, said[0].returncode) == (
        said[1].stdout, said[1].stderr, said[1].returncode,
    )  # fmt: skip
