"""The account of a bundle made by another process: the same bytes, and nothing that hangs or stays behind."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from sidecar.chain import strictjson
from sidecar.chain.entry import EntryType
from sidecar.chain.stream import records
from sidecar.cli import account_aside
from sidecar.cli.account_aside import Aside
from sidecar.cli.evidence import new_file
from sidecar.errors import UsageError
from sidecar.evidence import Account, Ask, FileSource, Grown, Order, answered, asked, export, found, grown, work
from sidecar.evidence.account import Here
from sidecar.evidence.recorded import recorded
from sidecar.verify import Verdict
from sidecar.verify.bundle_files import STREAM
from sidecar.verify.container import directory
from tests.evidence.bundled import DAY, KEY, ExporterKey, bundle, source
from tests.evidence.day import day
from tests.evidence.test_odd import odd
from tests.scribe import START, Scribe, signed_story, vouched_story
from tests.vectors import discreet

PATIENCE = 60.0  # seconds; a guard, not a measure of speed


@pytest.fixture
def aside(tmp_path: Path) -> Iterator[Aside]:
    with account_aside.started(tmp_path, wanted=True) as started:
        assert started is not None
        yield started


def exported_by(accountant: Aside | Here | None, *scribes: Scribe, **changed: object) -> bytes:
    order = Order(START - DAY, START + DAY, START + 2 * DAY, "sidecar 0.1.0", ("ledger", "/ledger"), "case 7",
                  key=ExporterKey(KEY), **changed)  # type: ignore[arg-type]  # fmt: skip
    with tempfile.TemporaryFile("w+b") as out:
        export(order, [source(s) for s in scribes], out, accountant=accountant)
        out.seek(0)
        return out.read()


@pytest.mark.parametrize("changed", [{}, {"profile": "external"}, {"lean": True}, {"agents": ("billing-agent",)}])
def test_another_process_makes_the_same_bundle(aside: Aside, changed: dict[str, object]) -> None:
    ledgers = (day().s, odd(), signed_story(), vouched_story())
    assert exported_by(aside, *ledgers, **changed) == bundle(*ledgers, **changed)
    assert aside.process is not None


def sloppy() -> Scribe:
    """Payloads that their headers commit to and most readers of JSON would take, but no strict one."""
    s = Scribe("sloppy")
    s.open()
    s.policy()
    value = s.decision_value("DENY")
    s.write(EntryType.DECISION, strictjson.dumps(value)[:-1] + b',"effect":"ALLOW"}')
    value["request"]["arguments"] = '{"amount":12,"amount":13}'
    s.write(EntryType.DECISION, strictjson.dumps(value))
    s.decision()
    s.close()
    return s


def test_what_a_lenient_reader_would_take_is_told_as_what_cannot_be_read(aside: Aside) -> None:
    """The account begins before the verdict is known, and is made once more where it was wrong to."""
    made = bundle(sloppy())
    assert exported_by(aside, sloppy()) == made
    with zipfile.ZipFile(io.BytesIO(made)) as read:
        rows = [*csv.DictReader(io.StringIO(read.read("data/entries.csv").decode()))]
    decisions = [(row["payload"], row["effect"]) for row in rows if row["type"] == "DECISION"]
    twice = ("cannot be read: JSON: a key occurs twice in one object", "")
    assert decisions == [twice, twice, ("", "ALLOW")]


class Watched(Here):
    """Whether its account may rest on what the verification found."""

    sound: bool | None = None

    def finish(self, told: Callable[[int], object], *, sound: bool) -> Account:
        self.sound = sound
        return super().finish(told, sound=sound)


def test_an_account_is_made_once_more_where_a_payload_may_be_none_that_its_header_commits_to() -> None:
    """Not of a FORK, which receipts make: all payloads were judged, and so it would be the same."""
    s = signed_story()
    decision = next(seq for seq, payload in s.payloads.items() if payload["type"] == "DECISION")
    other = s.sign_head(decision, decided=True, leaf=bytes(32))
    for one, verdict, sound in (
        (source(s), Verdict.UNANCHORED, True),
        (dataclasses.replace(source(s), callers=[other]), Verdict.FORK, True),
        (source(sloppy()), Verdict.MALFORMED, False),
    ):
        with tempfile.TemporaryFile("w+b") as out, tempfile.TemporaryFile() as events, tempfile.TemporaryFile() as rows:
            watched = Watched(events, rows)
            order = Order(START - DAY, START + DAY, START + 2 * DAY, "x", ("ledger", "x"))
            report = export(order, [one], out, accountant=watched)[1]
        assert (report.verdict, watched.sound) == (verdict, sound)


def test_what_is_verified_elsewhere_reads_the_same() -> None:
    for s in (day().s, signed_story(), vouched_story(), discreet.ledger()):
        once, again = ([*records(io.BytesIO(s.stream()).read)] for _ in range(2))
        assert [*recorded(once, known=True)] == [*recorded(again)]
    once = [*records(io.BytesIO(sloppy().stream()).read)]
    assert [*recorded(once, known=True)] != [*recorded(once)]


def test_figures_come_back_as_they_were_taken() -> None:
    """All that report and certificate are made of, also places and names that are counted together."""
    ledgers = (day().s, odd(), vouched_story())
    for s in ledgers:
        made = _here(s)
        for each in made.abstracts:
            assert type(each).from_json(json.loads(json.dumps(each.to_json()))).to_json() == each.to_json()


def _here(s: Scribe) -> Account:
    with tempfile.TemporaryFile() as file, tempfile.TemporaryFile() as events, tempfile.TemporaryFile() as entries:
        file.write(bundle(s))
        file.flush()
        maker = Here(events, entries)
        maker.begin(Ask((s.chain_id.hex(),), "tests"), file)
        maker.grown(_stream(file))
        return maker.finish(lambda _: None, sound=True)


def _stream(bundle: BinaryIO) -> Grown:
    """Where the only stream lies in a bundle."""
    return next(Grown(m.offset, m.size, whole=True) for n, m in directory(FileSource(bundle)).items() if STREAM in n)


class Killed(Aside):
    """It is killed as soon as it has begun."""

    def begin(self, ask: Ask, bundle: BinaryIO) -> None:
        super().begin(ask, bundle)
        assert self.process is not None
        os.kill(self.process, signal.SIGKILL)


def test_where_it_is_killed_the_export_fails_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    with tempfile.TemporaryFile() as events, tempfile.TemporaryFile() as entries:
        killed = Killed(events, entries)
        try:
            with pytest.raises(UsageError, match="has ended"), new_file(tmp_path / "case.zip") as out:
                export(Order(START - DAY, START + DAY, 1, "x", ("ledger", "x")), [source(day().s)], out,
                       accountant=killed)  # fmt: skip
        finally:
            killed.close()
    assert list(tmp_path.iterdir()) == []


def test_what_it_cannot_do_is_said_as_it_said_it() -> None:
    with tempfile.TemporaryFile() as bundle_file, tempfile.TemporaryFile() as events:
        bundle_file.write(bundle(day().s))
        bundle_file.flush()
        full = os.open("/dev/full", os.O_RDWR)
        said = io.BytesIO()
        question = asked(
            Ask((day().s.chain_id.hex(),), "x"), [os.dup(bundle_file.fileno()), full, os.dup(events.fileno())]
        )
        work(iter([question, grown(_stream(bundle_file)), found(sound=True)]), said)
        said.seek(0)
        with pytest.raises(UsageError, match="temporary file: No space left on device"):
            answered(said, events, events, lambda _: None)


_PARENT = """
import sys, time
from sidecar.cli.account_aside import Aside
from sidecar.evidence import Ask, Grown
bundle, pipe, entries = open(sys.argv[1], "r+b"), open(int(sys.argv[2]), "wb"), open(sys.argv[3], "w+b")
aside = Aside(pipe, entries)
aside.begin(Ask((sys.argv[4],), "x"), bundle)
aside.grown(Grown(*map(int, sys.argv[5:])))
print(aside.process, flush=True)
time.sleep(600)
"""


def test_it_ends_with_the_process_that_asked_even_where_that_is_killed(tmp_path: Path) -> None:
    """While it is at work: it is held up by a pipe that nobody empties, which is what it was given as a file."""
    s = Scribe("much")
    s.open()
    s.policy()
    for n in range(300):
        s.decision(bulk=n)
    s.close()
    (tmp_path / "bundle").write_bytes(bundle(s))
    reading, writing = os.pipe()
    with (tmp_path / "bundle").open("rb") as file:
        stream = _stream(file)
    command = [sys.executable, "-c", _PARENT, tmp_path / "bundle", str(writing), tmp_path / "e", s.chain_id.hex(),
               str(stream.at), str(stream.size), "1"]  # fmt: skip
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, pass_fds=[writing])
    try:
        assert parent.stdout is not None
        child = os.pidfd_open(int(parent.stdout.readline()))
        os.close(writing)
        assert select.select([reading], [], [], PATIENCE)[0], "it never wrote anything"
        assert not select.select([child], [], [], 0)[0]  # it goes on
    finally:
        parent.kill()
        parent.communicate()
    assert select.select([child], [], [], PATIENCE)[0], "it goes on without anybody who asks"
    os.close(child)
    os.close(reading)


_ENDED = """
import os, signal, sys
from pathlib import Path
from sidecar.cli.evidence import new_file
with new_file(Path(sys.argv[1])) as out:
    out.write(b"half of a bundle")
    out.flush()
    print(*os.listdir(Path(sys.argv[1]).parent), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()
"""


def test_an_export_that_is_told_to_end_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _ENDED, tmp_path / "case.zip"], capture_output=True, text=True, timeout=PATIENCE
    )
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGTERM, ".case.zip.new\n", "")
    assert list(tmp_path.iterdir()) == []


def test_what_an_export_that_was_killed_left_is_not_in_the_way_of_the_next(tmp_path: Path) -> None:
    (tmp_path / ".case.zip.new").write_bytes(b"more than half of a bundle")
    with new_file(tmp_path / "case.zip") as out:
        out.write(b"a bundle")
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("case.zip", b"a bundle")]


def test_two_exports_into_one_file_do_not_mix(tmp_path: Path) -> None:
    with new_file(tmp_path / "case.zip") as out:
        with pytest.raises(UsageError, match="another export is writing"), new_file(tmp_path / "case.zip"):
            pass
        out.write(b"a bundle")
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("case.zip", b"a bundle")]
