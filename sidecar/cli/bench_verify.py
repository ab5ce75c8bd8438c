"""`sidecar bench`, verification: every check with a custodian's key, against what `openssl speed` allows a core.

The limit: as many bytes as the verifier hashes and MACs for an entry, MACed in one piece as openssl does it, which
counts CPU time; so does the figure held against it. The verifier does it in five small pieces, inflates, parses and
compares besides.
"""

from __future__ import annotations

import multiprocessing
import re
import subprocess
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Final

from sidecar.chain.entry import HEADER_SIZE, Header
from sidecar.chain.stream import Kind, records
from sidecar.cli.bench_figures import Findings
from sidecar.cli.bench_ledger import prefilled
from sidecar.cli.bench_work import Work
from sidecar.cli.verify_workers import collect_rarely, started
from sidecar.custody import load_private, open_seed
from sidecar.errors import UsageError
from sidecar.ledger import ledger_stream
from sidecar.verify import Evidence, verify_stream

_CHUNK: Final = 1 << 20
# Bytes for an entry besides its payload (LEDGER.md): label and salt of the commitment, label and header under the tag,
# the label that evolves the key, the leaf, a node of the tree.
_BESIDES: Final = (19 + 32) + (17 + 184) + 18 + (1 + 216) + (1 + 64)
_SPEED: Final = re.compile(r"([0-9.]+)k\s*$")
_barrier: Barrier | None = None


def measure_verify(findings: Findings, work: Work, place: Path, entries: int, rounds: int) -> None:
    """Entries a second of one process, of one with a helper and of two at once, and openssl's HMAC at an entry's size,
    in rounds."""
    place.mkdir()
    ledger = prefilled(place / "ledger", work, entries)
    key, stream = place / "ledger.custodian.pem", place / "stream"
    each = _dump(ledger, stream)
    limits: list[float] = []
    alone: list[tuple[float, float]] = []
    both: list[float] = []
    shared: list[float] = []
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    with ProcessPoolExecutor(2, context, _join, (barrier,)) as pool:
        for _ in range(rounds):
            limits.append(openssl_hmac(each))
            alone.append(pool.submit(_verify, stream, key, False).result())
            shared.append(pool.submit(_verify, stream, key, False, 2).result()[1])
            both.append(sum(wall for _, wall in pool.map(_verify, [stream] * 2, [key] * 2, [True] * 2)))
    limit = findings.add(f"openssl HMAC-SHA256, {each:,} bytes at a time", "B/s", limits)
    of_cpu = findings.add("verified entries a second of CPU time", "/s", [cpu for cpu, _ in alone])
    one = findings.add("verified entries a second, one process", "/s", [wall for _, wall in alone])
    two = findings.add("verified entries a second, two processes", "/s", both)
    jobs = findings.add("verified entries a second, one ledger by --jobs 2", "/s", shared)
    findings.hold("verification of openssl's limit a core", of_cpu.median * each / limit.median, 0.15, at_most=False)
    findings.hold("verification: two processes of one", two.median / one.median, 1.8, at_most=False)
    findings.hold("verification: --jobs 2 of one", jobs.median / one.median, 1.8, at_most=False)


def openssl_hmac(size: int) -> float:
    """Bytes a second of `openssl speed -hmac sha256` at one size. UsageError where it does not say."""
    return openssl_speed(size, "-hmac", "sha256")


def openssl_speed(size: int, *what: str) -> float:
    """Bytes a second of `openssl speed` at one size. UsageError where it does not say."""
    command = ["openssl", "speed", "-seconds", "1", "-bytes", str(size), *what]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    found = _SPEED.search(done.stdout)
    if found is None:
        raise UsageError("openssl speed did not say a speed; is this OpenSSL 3?")
    return float(found[1]) * 1000


def _dump(ledger: Path, stream: Path) -> int:
    """Write the ledger's stream; how many bytes are hashed and MACed for an entry, on average."""
    with ledger_stream(ledger) as read, stream.open("wb") as file:
        while chunk := read(_CHUNK):
            file.write(chunk)
    with stream.open("rb") as file:
        payloads = [
            Header.decode(body[:HEADER_SIZE]).payload_len for kind, body in records(file.read) if kind is Kind.ENTRY
        ]
    return sum(payloads) // len(payloads) + _BESIDES


def _join(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier
    collect_rarely()  # as `sidecar verify` does


def _verify(stream: Path, key: Path, together: bool, jobs: int = 1) -> tuple[float, float]:
    """Entries a second of one pass, of this process's CPU time and of wall time.

    Raises:
        UsageError: the judgement is not the expected one.
    """
    private = [load_private(key.read_bytes())]
    evidence = Evidence(open_seed=lambda *sealed: open_seed(private, *sealed))
    if together and _barrier is not None:
        _barrier.wait()
    with started(jobs) as workers, stream.open("rb") as file:
        for worker in workers:  # until it has started
            worker.ask([])
            worker.answer()
        began, began_cpu = time.perf_counter(), time.process_time()
        report = verify_stream(file.read, evidence, workers=workers)
        took, took_cpu = time.perf_counter() - began, time.process_time() - began_cpu
    if report.verdict.name != "UNANCHORED" or not any(line.startswith("HMAC tags") for line in report.checked):
        raise UsageError(f"the bench's ledger is {report.verdict.name}; please report this")
    return report.entries / took_cpu, report.entries / took
