"""Payloads read by worker processes: the report is the one that a single process makes, wherever the damage is."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest

from sidecar.chain.stream import Kind, records
from sidecar.cli import verify_workers
from sidecar.errors import Malformed, UsageError
from sidecar.verify import Evidence, Piped, Report, Verdict, Worker, verify_stream
from sidecar.verify.ahead import ahead
from tests.attacks.expect import at, seal_of
from tests.scribe import Near, Record, Scribe, stream

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
        for kind, body, told in ahead(records(BytesIO(LEDGER.stream()[:-1]).read), [Near()]):
            got.append((kind, body))
            assert (told is None) is (kind is not Kind.ENTRY or body[8] in (1, 2))
    assert got == whole[:-1]


def test_a_worker_has_one_question_at_a_time() -> None:
    """So memory is flat, and two pipes cannot both be full."""

    class Watched(Near):
        asked = 0

        def ask(self, entries: list[bytes]) -> None:
            self.asked += 1
            assert self.asked == 1 and sum(map(len, entries)) < 1 << 19
            super().ask(entries)

        def answer(self):
            self.asked -= 1
            return super().answer()

    several = [Watched(), Watched()]
    assert judged(LEDGER.stream(), [*several]) == judged(LEDGER.stream(), [])
    assert [w.asked for w in several] == [0, 0]


def test_a_worker_that_has_ended_is_said_and_is_no_finding() -> None:
    with subprocess.Popen([sys.executable, "-c", ""], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.wait()
        assert child.stdin is not None and child.stdout is not None
        with pytest.raises(UsageError, match="--jobs 1"):
            judged(LEDGER.stream(), [Piped(child.stdin, child.stdout)])
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
