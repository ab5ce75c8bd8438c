"""kill -9 of sidecar and collector at random under load. Afterwards every answered decision is with the collector, each
receipt verifies offline, the log extends each checkpoint ever seen, and no alarm was raised that should not have been.
"""

from __future__ import annotations

import json
import random
import signal
import threading
import urllib.error
import urllib.request
from contextlib import closing, suppress
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.chain import checkpoint, note
from sidecar.client import NoDecision
from sidecar.collecting import log_key, open_index, open_storage
from sidecar.collector import FleetLog, reindex
from sidecar.collector.index import Index
from sidecar.collector.storage import Storage
from sidecar.collector_config import load_collecting
from tests.collecting import Collecting as Running
from tests.collecting import collecting, status
from tests.collector.test_shipping import verdict
from tests.ports import free_address
from tests.program import Serving, made, serving, sidecar
from tests.scribe import SOAK


class Load:
    """Asks without a pause while a sidecar runs; remembers what was answered."""

    def __init__(self, server: Serving) -> None:
        self.answered: list[str] = []
        self._server, self._ended = server, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with self._server.guard(attempts=1) as guard:
            while not self._ended.is_set():
                with suppress(NoDecision):
                    self.answered.append(guard.ask("crm.read", ("customer", "c-1"), {}).decision_id)

    def wait(self, more: int) -> None:
        """Until so many were answered."""
        until = len(self.answered) + more
        while len(self.answered) < until and self._server.process.poll() is None:
            self._ended.wait(0.001)

    def end(self) -> list[str]:
        self._ended.set()
        self._thread.join()
        return self.answered


def test_killed_at_random_nothing_answered_is_lost(tmp_path: Path) -> None:
    chooser = random.Random(int.from_bytes(tmp_path.name.encode(), "big")) if SOAK else random.Random(11)
    ledger, key = made(tmp_path)
    place, address = tmp_path / "collector", free_address()
    answered: list[str] = []
    seen: list[bytes] = []
    config = tmp_path / "c.toml"
    with collecting(place, listen=address) as collector:
        more = ["unconfirmed_start = true", "linger = 90"]
        config.write_text("segment_entries = 40\n" + collector.settings(*more))
        collector.stop(signal.SIGKILL)
    for _ in range(30 if SOAK else 3):
        answered += one_round(ledger, config, place, address, chooser, seen)
    with collecting(place, listen=address) as collector:
        with serving(ledger, "--config", config) as server:
            assert server.stop() == 0
        seen.append(signed(collector))
        trust = collector.trust(tmp_path / "trust.json")
        assert collector.stop() == 0
    report = verdict(ledger, trust, "--custodian-key", key)
    assert report["verdict"] in ("OK", "UNANCHORED"), report["findings"]
    assert all("receipt" not in each["reason"] for each in report["findings"]), report["findings"]
    assert status(place)["alarms"] == []
    config = load_collecting(None, {}, {"data_dir": str(place), "dev": True})
    assert answered and set(answered) <= decisions(open_storage(config))
    done = sidecar("collector", "verify", "--data-dir", place, "--dev", "--json")
    assert done.returncode == 0, done.stdout
    (held,) = json.loads(done.stdout)["chains"]
    assert held["entries"] == report["entries"]
    with closing(open_index(config)) as index:
        consistent(open_storage(config), index, config.name, log_key(config), [each for each in seen if each])


def one_round(
    ledger: Path, config: Path, place: Path, address: str, chooser: random.Random, seen: list[bytes]
) -> list[str]:
    with serving(ledger, "--config", config) as server:
        load = Load(server)
        try:
            for _ in range(2):
                with collecting(place, listen=address) as collector:
                    load.wait(chooser.randrange(1, 60))
                    seen.append(signed(collector))
                    load.wait(chooser.randrange(1, 30))
                    collector.stop(signal.SIGKILL)
                load.wait(chooser.randrange(1, 30))
            server.stop(signal.SIGKILL)
        finally:
            server.process.kill()
            answered = load.end()
    return answered


def signed(collector: Running) -> bytes:
    with suppress(urllib.error.HTTPError), urllib.request.urlopen(f"{collector.url}/checkpoint", timeout=20) as page:
        return bytes(page.read())
    return b""


def decisions(storage: Storage) -> set[str]:
    """The ids of the decisions that a collector holds."""
    from sidecar.chain import strictjson
    from sidecar.chain.entry import EntryType, Header, StoredEntry
    from sidecar.chain.stream import Kind
    from sidecar.collector.runs import Runs

    runs = Runs(storage)
    found = set()
    for chain_id in runs.chains():
        chain = runs.chain(chain_id)
        assert chain is not None
        for number in range(runs.newest(chain) + 1):
            run = runs.read(chain, number)
            assert run is not None
            for kind, body in runs.records(run):
                header = Header.decode(StoredEntry.parse(body).header) if kind is Kind.ENTRY else None
                if header is not None and header.type is EntryType.DECISION:
                    payload = StoredEntry.parse(body).payload(header.payload_len)
                    found.add(str(strictjson.parse_object(payload)["decision_id"]))
    return found


def consistent(storage: Storage, index: Index, name: str, key: Ed25519PrivateKey, seen: list[bytes]) -> None:
    """The log extends every checkpoint ever seen, and an index made anew says the same."""
    assert seen
    log = FleetLog(storage, index, name, key, known=seen)
    vkey = note.VerifierKey(name, key.public_key().public_bytes_raw())
    sizes = [checkpoint.verify(each, vkey)[0].size for each in seen]
    assert sizes == sorted(sizes) and log.tip.size >= sizes[-1]
    before = list(index.standings())
    reindex(storage, index, vkey)
    assert [(each.sealed, each.seal) for each in index.standings()] == [(each.sealed, each.seal) for each in before]
