"""`sidecar bench`, the collector: ingest against openssl's SHA-256, catching up, receipts, and what shipping adds."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.chain import lines, note
from sidecar.chain.entry import HEADER_SIZE, TAGGED, Header
from sidecar.chain.limits import ZERO32
from sidecar.chain.merkle import EMPTY_ROOT
from sidecar.chain.parcel import Record, enrol_message, pack, parcel_message
from sidecar.chain.recorded import parts
from sidecar.chain.seal import Seal
from sidecar.chain.stream import Kind, records
from sidecar.cli.bench_figures import Findings
from sidecar.cli.bench_ledger import prefilled
from sidecar.cli.bench_programs import collecting, serving
from sidecar.cli.bench_tls import turns
from sidecar.cli.bench_verify import openssl_speed
from sidecar.cli.bench_work import AGENT, Work, ask_once
from sidecar.client import Guard
from sidecar.collector import FleetLog
from sidecar.collector.alarms import Alarms
from sidecar.collector.index import open_sqlite
from sidecar.collector.ingest import Ingest, Rules
from sidecar.collector.runs import Chain, Runs
from sidecar.collector.sequencer import Sequencer, size_of
from sidecar.collector.storage import FileStorage
from sidecar.ledger import ledger_stream
from sidecar.ledger.directory import load_identity

_PARCEL: Final = 1 << 20
_DAY_RATE: Final = 100  # decisions a second, of the backlog that is caught up with
_SEALS: Final = 167  # a second: 10,000 sidecars that seal once a minute
_WARM: Final = 20
_ORIGIN: Final = "bench/log"


def measure_ingest(findings: Findings, work: Work, place: Path, entries: int, rounds: int) -> None:
    """Bytes of entries (uncompressed) a second of CPU time with every check and durable, held against SHA-256 of as
    many bytes in one piece; and entries a second by the clock, held against the rate of a busy sidecar."""
    place.mkdir()
    ledger = prefilled(place / "ledger", work, entries)
    with ledger_stream(ledger) as read:
        run = list(records(read))
    genesis = _genesis(run)
    identity = load_identity(ledger, Chain.of(genesis, None).identity)
    parcels = [pack(part) for part in _parts(run)]
    lengths = [Header.decode(body[:HEADER_SIZE]).payload_len for kind, body in run if kind is Kind.ENTRY]
    count, size = len(lengths), sum(lengths) + len(lengths) * TAGGED
    limits, of_cpu, of_clock = [], [], []
    for number in range(rounds):
        limits.append(openssl_speed(size // count, "sha256"))
        with _ingest(place / str(number)) as ingest:
            chain_id = Chain.of(genesis, None).chain_id
            ingest.enrol(genesis, b"", identity.sign(enrol_message(genesis, b"")), "")
            began, began_cpu = time.perf_counter(), time.thread_time()
            for parcel in parcels:
                ingest.ship(chain_id, parcel, identity.sign(parcel_message(chain_id, parcel)), "")
            of_clock.append(count / (time.perf_counter() - began))
            of_cpu.append(size / (time.thread_time() - began_cpu))
    limit = findings.add(f"openssl SHA-256, {size // count:,} bytes at a time", "B/s", limits)
    cpu = findings.add("entries taken by the collector, a second of CPU time", "B/s", of_cpu)
    clock = findings.add("entries taken by the collector a second", "/s", of_clock)
    findings.hold("ingest of openssl's limit a core", cpu.median / limit.median, 0.3, at_most=False)
    findings.hold("catching up of a backlog at 100 decisions a second", clock.median / _DAY_RATE, 20, at_most=False)


def measure_receipts(findings: Findings, place: Path, seconds: float) -> None:
    """From a seal's acceptance to a checkpoint that covers it, at 167 seals a second of as many chains."""
    place.mkdir()
    with _sequencer(place) as (sequencer, signed):
        submitted: list[float] = []
        began = time.perf_counter()
        while not submitted or time.perf_counter() - began < seconds:
            due = began + len(submitted) / _SEALS
            time.sleep(max(0.0, due - time.perf_counter()))
            sequencer.submit([_seal(len(submitted))])
            submitted.append(time.perf_counter())
        while size_of(sequencer.fleet.signed) < len(submitted):
            time.sleep(0.001)
    took = sorted(_covered(submitted, signed))
    worst = findings.add("seal to receipt, p99 at 167 seals a second", "s", [took[int(len(took) * 0.99)]])
    findings.hold("seal to receipt, p99", worst.median, 2.0, at_most=True, unit="s")


def measure_added(findings: Findings, work: Work, place: Path, rounds: int, seconds: float) -> None:
    """p50 of a decision by the SDK, alone and while everything is shipped, by turns."""
    place.mkdir()
    with contextlib.ExitStack() as stack:
        address, key = stack.enter_context(collecting(place / "collector"))
        shipping = f"[collector]\naddress = '{address}'\nlog_key = '{key}'\nlinger = 0\n"
        guards = {
            "alone": stack.enter_context(_guard(work, place / "alone", "")),
            "shipping": stack.enter_context(_guard(work, place / "ships", shipping)),
        }
        p50s: dict[str, list[float]] = {name: [] for name in guards}
        for _ in range(rounds):
            for name, p50 in turns(guards, seconds / rounds).items():
                p50s[name].append(p50)
    alone, ships = (findings.add(f"p50 at 1 by the SDK: {name}", "s", found) for name, found in p50s.items())
    findings.hold("p50 while shipping of that alone", ships.median / alone.median, 1.05, at_most=True)


@contextlib.contextmanager
def _guard(work: Work, ledger: Path, settings: str) -> Iterator[Guard]:
    file = ledger.with_suffix(".toml")
    file.write_text(settings)
    with serving(ledger, "--config", file, "--policy", work.wasm_bundle) as served, served.guard(AGENT) as guard:
        for _ in range(_WARM):
            ask_once(guard)
        yield guard


def _genesis(run: list[Record]) -> bytes:
    return parts(next(body for kind, body in run if kind is Kind.ENTRY))[2]


def _parts(run: list[Record]) -> Iterator[list[Record]]:
    part: list[Record] = []
    room = _PARCEL
    for each in run:
        part.append(each)
        room -= len(each[1])
        if room <= 0 and each[0] is Kind.ENTRY:
            yield part
            part, room = [], _PARCEL
    if part:
        yield part


@contextlib.contextmanager
def _sequencer(place: Path) -> Iterator[tuple[Sequencer, list[tuple[int, float]]]]:
    """A log that grows, and when it had which size."""
    storage, index = FileStorage(place / "store"), open_sqlite(place / "index.db")
    signed: list[tuple[int, float]] = []
    fleet = FleetLog(storage, index, _ORIGIN, Ed25519PrivateKey.generate())
    refused = threading.Event()
    sequencer = Sequencer(
        fleet,
        storage,
        index,
        roll_seconds=3600,
        now=time.time_ns,
        on_refused=lambda _: refused.set(),
        on_signed=lambda checkpoint: signed.append((size_of(checkpoint), time.perf_counter())),
    )
    try:
        yield sequencer, signed
    finally:
        sequencer.close()
        index.close()


@contextlib.contextmanager
def _ingest(place: Path) -> Iterator[Ingest]:
    place.mkdir()
    with _sequencer(place) as (sequencer, _):
        storage, index = FileStorage(place / "store"), open_sqlite(place / "book.db")
        key = Ed25519PrivateKey.generate()
        alarms = Alarms(index, _ORIGIN, key, None, time.time_ns)
        yield Ingest(Runs(storage), index, sequencer, alarms, Rules(anybody=True), _ORIGIN, key, time.time_ns)
        index.close()


def _seal(number: int) -> bytes:
    """An empty segment's seal, of a chain of its own."""
    chain = number.to_bytes(32, "big")
    last = (ZERO32,) * 2
    text = Seal(
        chain, 0, 0, 0, 0, EMPTY_ROOT, *last, None, ZERO32, ZERO32, ZERO32, ZERO32, ZERO32, None, "time", number
    ).text()
    return note.sign(text, lines.segment_name(chain, 0), Ed25519PrivateKey.generate())


def _covered(submitted: list[float], signed: list[tuple[int, float]]) -> Iterator[float]:
    """For each note, in the order of their submission, the seconds up to a checkpoint of that size or more."""
    at = 0
    for number, when in enumerate(submitted, 1):
        while signed[at][0] < number:
            at += 1
        yield max(0.0, signed[at][1] - when)
