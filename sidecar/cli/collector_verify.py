"""Verifying all that a collector holds, a chain a process."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sidecar.chain.note import VerifierKey
from sidecar.collecting import open_index, open_storage
from sidecar.collector.index import open_sqlite
from sidecar.collector.reverify import verify_chain, verify_line, verify_log
from sidecar.collector.runs import Runs
from sidecar.collector_config import Collecting
from sidecar.errors import SidecarError
from sidecar.verify import Evidence, Verdict

_BAD = (Verdict.TAMPERED, Verdict.MALFORMED, Verdict.FORK, Verdict.INCOMPLETE)


def verify_everything(
    config: Collecting, key: VerifierKey, workers: int, progress: Callable[[int, int], None]
) -> tuple[list[dict[str, Any]], list[str]]:
    """What was found of each chain, and what is wrong. Raises StorageError."""
    found: list[dict[str, Any]] = []
    wrong = _log(config, key)
    ids = sorted(Runs(open_storage(config)).chains())
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(max(1, min(workers, len(ids))), context) as pool:
        for each in concurrent.futures.as_completed([pool.submit(verify_one, config, chain_id) for chain_id in ids]):
            found.append(each.result())
            progress(len(found), len(ids))
    wrong += [f"chain {each['chain']}: {each['why']}" for each in found if each["why"]]
    return sorted(found, key=lambda each: str(each["chain"])), wrong


def _log(config: Collecting, key: VerifierKey) -> list[str]:
    index = open_index(config)
    try:
        with tempfile.TemporaryDirectory() as place:
            fresh = open_sqlite(Path(place) / "index.db")
            try:
                return verify_log(open_storage(config), index, fresh, key)
            finally:
                fresh.close()
    except SidecarError as error:
        return [f"log: {error}"]
    finally:
        index.close()


def verify_one(config: Collecting, chain_id: bytes) -> dict[str, Any]:
    """What is found of one chain; runs in a process of its own."""
    said: dict[str, Any] = {"chain": chain_id.hex(), "entries": 0, "verdict": "", "why": "", "accepted": []}
    try:
        runs = Runs(open_storage(config))
        chain = runs.chain(chain_id)
        assert chain is not None
        if runs.newest(chain) < 0:
            return said
        report = verify_chain(runs, chain, Evidence(), None)
        index = open_index(config)
        try:
            claimed = verify_line(runs, index, chain)
        finally:
            index.close()
    except SidecarError as error:
        return {**said, "why": str(error)}
    bad = next((f for f in report.findings if f.verdict in _BAD and not f.accepted), None)
    why = claimed if bad is None else f"{bad.verdict.name}: {bad.reason}"
    accepted = [f.reason for f in report.findings if f.accepted or f.verdict is Verdict.PRUNED]
    pruned = report.verdict is Verdict.UNANCHORED and any(f.verdict is Verdict.PRUNED for f in report.findings)
    verdict = Verdict.PRUNED if pruned else report.verdict  # its own log is checked apart
    return {**said, "entries": report.entries, "verdict": verdict.name, "why": why, "accepted": accepted}
