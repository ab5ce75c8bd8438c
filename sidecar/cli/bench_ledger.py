"""`sidecar bench`, the disk and the book: one flush, one durable commit, what a durable decision adds, ledger sizes."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final

from sidecar.chain import strictjson
from sidecar.chain.entry import EntryType
from sidecar.chain.payload import policy_time
from sidecar.chain.recorded import parts
from sidecar.chain.request import recorded
from sidecar.chain.stream import Kind, records
from sidecar.cli.bench_engines import Contestant, in_rounds, unary
from sidecar.cli.bench_figures import Findings
from sidecar.cli.bench_programs import LEDGER_MIB, serving
from sidecar.cli.bench_work import AGENT, AGENTS, INVOICE, SESSION, Work, ask_once
from sidecar.config import Config
from sidecar.decide import new_decision_id
from sidecar.founding import options_of, wrap_seed
from sidecar.ledger import Draft, Ledger, Recorded, SystemClock, ledger_stream
from sidecar.ledger.batch import Batch
from sidecar.ledger.store import LmdbStore

COMMIT: Final = "one durable commit of a 2 KB record (LMDB)"
_BLOCK: Final = 4096
_RECORD: Final = bytes(range(256)) * 7 + bytes(208)  # 2,000 bytes: below LMDB's cliff at 2,016
_MAP: Final = 1 << 30
_WAITING: Final = 1024
_LARGE: Final = 1_000_000
_NUMBERED: Final = {"arguments": INVOICE, "context": SESSION}
_ALLOWED: Final = 0.0006  # seconds that a durable decision may add to engine and commit


def measure_disk(findings: Findings, place: Path, rounds: int, seconds: float) -> None:
    """p50 of one fdatasync and of one durable commit through our own store, in rounds."""
    place.mkdir()
    fd = os.open(place / "block", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    store = LmdbStore.create(place, _MAP)
    try:
        os.posix_fallocate(fd, 0, _BLOCK)
        os.write(fd, bytes(_BLOCK))
        os.fsync(fd)
        flushes: list[float] = []
        commits: list[float] = []
        for _ in range(rounds):
            flushes.append(_p50(lambda: _flush(fd), seconds / rounds))
            commits.append(_p50(lambda: _commit(store), seconds / rounds))
    finally:
        store.close()
        os.close(fd)
    findings.add("one fdatasync of 4 KiB, preallocated", "s", flushes)
    findings.add(COMMIT, "s", commits)


def _p50(step: Callable[[], None], seconds: float) -> float:
    took: list[float] = []
    end = time.perf_counter() + seconds
    while not took or time.perf_counter() < end:
        began = time.perf_counter()
        step()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def _flush(fd: int) -> None:
    os.pwrite(fd, _RECORD, 0)
    os.fdatasync(fd)


def _commit(store: LmdbStore) -> None:
    batch, last = Batch(), store.last_seq()
    batch.entry(0 if last is None else last + 1, _RECORD)
    store.commit(batch)


def engine_times(ledger: Path, spans: Sequence[tuple[int, int]]) -> list[float]:
    """For each span of entries, the median of what their decisions say the engine took, seconds."""
    took: dict[int, list[float]] = {index: [] for index in range(len(spans))}
    of = {seq: index for index, span in enumerate(spans) for seq in range(*span)}
    with ledger_stream(ledger) as read:
        for kind, body in records(read):
            if kind is not Kind.ENTRY:
                continue
            header, _, text = parts(body)
            if header.seq in of and header.type is EntryType.DECISION:
                payload = strictjson.parse_object(text)
                took[of[header.seq]].append(int(payload["timings"]["evaluate_ns"]) / 1e9)
    return [statistics.median(times) for times in took.values()]


def hold_durable(findings: Findings, asked: Mapping[str, Contestant]) -> None:
    """What a decision adds to its engine's own time (as its entries tell it) and one durable commit."""
    commit = findings.figures[COMMIT].median
    for engine in ("opa", "wasm"):
        contestant = asked[f"sidecar, {engine}"]
        if contestant.sidecar is None or not contestant.spans:
            continue
        own = findings.add(
            f"engine's own time at 1: {engine}", "s", engine_times(contestant.sidecar.ledger, contestant.spans)
        )
        whole = findings.figures[f"p50 at 1: sidecar, {engine}"].median
        added = whole - own.median - commit
        findings.hold(
            f"a durable decision adds to engine and commit: {engine}", added, _ALLOWED, at_most=True, unit="s"
        )


def prefilled(place: Path, work: Work, entries: int) -> Path:
    """A ledger with that many entries: one real decision, and others made from it.

    Raises:
        LedgerError: it could not be written.
    """
    with serving(place, "--policy", work.wasm_bundle) as sidecar, sidecar.guard(AGENT) as guard:
        seq = ask_once(guard)
    config = Config(data_dir=str(place), dev=True, ledger_max_mib=LEDGER_MIB)
    ledger = Ledger.open(
        place, wrap=wrap_seed, options=options_of(config), clock=SystemClock(), on_failure=lambda _error: None
    )
    try:
        payload = ledger.payload(seq)
        waiting: deque[Future[Recorded]] = deque()
        for number in range(max(0, entries - ledger.position().next_seq)):
            waiting.append(ledger.append(_copy(payload, number)))
            if len(waiting) >= _WAITING:
                waiting.popleft().result()
        for future in waiting:
            future.result()
    finally:
        ledger.close()
    return place


def _copy(payload: dict[str, Any], number: int) -> Draft:
    """Such a decision of another agent, later and about something else: real ones are no more alike."""
    decision_id, request = new_decision_id(), payload["request"]
    texts = {name: request[name].replace(text, f"{text[:-6]}{number:06}") for name, text in _NUMBERED.items()}
    value = payload | {
        "decision_id": decision_id,
        "time": policy_time(time.time_ns()),
        "agent": payload["agent"] | {"id": f"agent-{number % AGENTS:04}"},
        "request": request | texts | {"idempotency_key": decision_id},
    }
    value["request_digest"] = recorded(value).digest().hex()
    return Draft(EntryType.DECISION, value)


def measure_sizes(
    findings: Findings, work: Work, place: Path, sizes: Sequence[int], rounds: int, seconds: float
) -> None:
    """p50 of one caller (engine wasm) on ledgers of different sizes, in rounds; each against the smallest."""
    place.mkdir()
    with contextlib.ExitStack() as stack:
        asked = {}
        for size in sorted(sizes):
            ledger = prefilled(place / f"entries-{size}", work, size)
            asked[f"{size:,} entries"] = unary(stack.enter_context(serving(ledger, "--policy", work.wasm_bundle)), work)
        runs = in_rounds(asked, (1,), rounds, seconds)
    found = [
        findings.add(f"p50 at 1, ledger of {name}", "s", [run.p50 for run in several])
        for (name, _), several in runs.items()
    ]
    least, *more = sorted(sizes)
    for size, figure in zip(more, found[1:], strict=True):
        small = "" if size >= _LARGE else f"the largest ledger has {size:,} entries, not {_LARGE:,}"
        name = f"p50 at {size:,} entries of that at {least:,}"
        findings.hold(name, figure.median / found[0].median, 1.15, at_most=True, judged=small)
