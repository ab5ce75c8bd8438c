"""What the ledger's tests share: a clock that moves when told, a store that can be waited for, drafts, verification."""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.chain.entry import EntryType
from sidecar.chain.request import Option, Request
from sidecar.chain.seeds import Custody, SealedShare, share_commit
from sidecar.chain.stream import Kind, records
from sidecar.errors import LedgerError
from sidecar.ledger import Draft, Ledger, Moment, Options, create, ledger_stream
from sidecar.ledger.batch import Batch
from sidecar.ledger.look import FILE
from sidecar.ledger.port import Store
from sidecar.ledger.store import LmdbStore, open_for_reading
from sidecar.verify import Evidence, Report, verify_stream
from tests.scribe import ACTIVATED, BUNDLE, principal

SECOND = 1_000_000_000
PATIENCE = 60.0  # seconds; only a failing test waits so long


class FakeClock:
    """Stands still until moved. A writer waiting on it wakes when it is moved past what it waits for."""

    def __init__(self, wall: int = 1_795_000_000 * SECOND, mono: int = 100 * SECOND, error_ms: int = 3) -> None:
        self._lock = threading.Lock()
        self._wall, self._mono, self._error = wall, mono, error_ms
        self._waiting: threading.Condition | None = None

    def now(self) -> Moment:
        with self._lock:
            return Moment(self._wall, self._mono, self._error)

    def wait(self, condition: threading.Condition, until_mono_ns: int) -> None:
        with self._lock:
            if self._mono >= until_mono_ns:
                return
            self._waiting = condition
        condition.wait(PATIENCE)

    def move(self, ns: int, *, wall: int | None = None) -> None:
        """Let time pass; ``wall`` where the wall clock moves by another amount."""
        with self._lock:
            self._mono += ns
            self._wall += ns if wall is None else wall
            waiting = self._waiting
        if waiting is not None:
            with waiting:
                waiting.notify_all()


class StoreAround:
    """A store that hands everything on to another. Tests override :meth:`commit`."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner

    def commit(self, batch: Batch) -> None:
        self.inner.commit(batch)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class CountedStore(StoreAround):
    """Lets a test wait for the n-th commit, and hold commits back."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.batches: list[Batch] = []
        self.gate = threading.Event()
        self.gate.set()
        self.arrived = threading.Semaphore(0)
        self._changed = threading.Condition()

    def commit(self, batch: Batch) -> None:
        self.arrived.release()
        assert self.gate.wait(PATIENCE)
        self.inner.commit(batch)
        with self._changed:
            self.batches.append(batch)
            self._changed.notify_all()

    def start_over(self) -> None:
        """Forget the commit that opening took."""
        self.batches.clear()
        while self.arrived.acquire(blocking=False):
            pass

    def wait_for_commits(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.batches) >= count, PATIENCE)


def naive_wrap(custody: Custody, chain_id: bytes, epoch: int, seed: bytes) -> list[SealedShare]:
    """Seals nothing: the seed in the clear, bound to its place. Only for tests of other things than custody."""
    contexts = [custody.context(chain_id, epoch, i) for i in range(len(custody.custodians))]
    return [SealedShare(share_commit(ctx, seed), seed + ctx) for ctx in contexts]


def naive_open(custody: Custody, chain_id: bytes, epoch: int, shares: Sequence[SealedShare]) -> bytes:
    return shares[0].sealed[:32]


@dataclass
class World:
    """A ledger directory, and how to open it."""

    directory: Path
    custody: Custody
    clock: Any = field(default_factory=FakeClock)
    options: Options = field(default_factory=lambda: Options(max_bytes=256 << 20, reserve_bytes=1 << 20))
    failures: list[LedgerError] = field(default_factory=list)
    identity: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    def create(self, **other: Any) -> bytes:
        given: dict[str, Any] = {
            "identity": self.identity, "custody": self.custody, "authority": None, "log": None,
            "retention": "default", "wrap": naive_wrap, "options": self.options, "clock": self.clock,
        }  # fmt: skip
        return create(self.directory, **(given | other))

    def open(self, around: Callable[[Store], Store] | None = None, **other: Any) -> Ledger:
        def open_store(directory: Path, max_bytes: int) -> Store:
            store = LmdbStore.open(directory, max_bytes)
            return store if around is None else around(store)

        given: dict[str, Any] = {
            "wrap": naive_wrap, "options": self.options, "clock": self.clock, "on_failure": self.failures.append,
            "open_store": open_store,
        }  # fmt: skip
        return Ledger.open(self.directory, **(given | other))

    def open_counted(self, **other: Any) -> tuple[Ledger, CountedStore]:
        stores: list[CountedStore] = []

        def around(store: Store) -> Store:
            stores.append(CountedStore(store))
            return stores[0]

        ledger = self.open(around, **other)
        stores[0].start_over()
        return ledger, stores[0]

    def snapshot(self, name: str) -> World:
        """A copy of what is durable now: what a power cut at this moment would leave."""
        copy = self.directory.with_name(name)
        copy.mkdir(mode=0o700)
        for file in ("ledger.mdb", "identity.pem", "lock"):
            shutil.copy(self.directory / file, copy / file)
        return World(copy, self.custody, self.clock, self.options, identity=self.identity)

    def verify(self, receipts: Sequence[bytes] = ()) -> Report:
        with ledger_stream(self.directory) as read:
            return verify_stream(read, Evidence(open_seed=naive_open, receipts=list(receipts)))

    def assert_verifies(self, receipts: Sequence[bytes] = ()) -> None:
        """Everything checked holds; without a log, UNANCHORED is the best there is, for every segment once."""
        report = self.verify(receipts)
        worse = [f for f in report.findings if f.verdict.name != "UNANCHORED"]
        assert report.verdict.name == "UNANCHORED" and not worse, worse

    def bodies(self) -> list[bytes]:
        with ledger_stream(self.directory) as read:
            return [body for _, body in records(read)]

    def kinds(self, segment: int | None = None) -> list[Kind]:
        with ledger_stream(self.directory, segment) as read:
            return [kind for kind, _ in records(read)]


def refused(cause: str = "too long", count: int = 1) -> Draft:
    payload = {
        "type": "REJECTED", "call": "Decide", "code": "INVALID_ARGUMENT", "field": "action", "cause": cause,
        "peer": "unix", "principal": "", "decision_id": "", "count": count,
    }  # fmt: skip
    return Draft(EntryType.REJECTED, payload)


def loaded(revision: str = "r1") -> Draft:
    payload = {**ACTIVATED, **_policy(revision), "bundle_digest": hashlib.sha256(BUNDLE).hexdigest()}
    return Draft(EntryType.POLICY, payload, attachment=BUNDLE)


def decision_id(n: int) -> str:
    return f"019aaf3c-0000-7000-8000-{n:012x}"


def decision(n: int, *, effect: str = "ALLOW", agent: str | None = None, arguments: str = '{"amount":1}') -> Draft:
    """A DECISION; ``agent`` is a proved agent's id."""
    name = agent or "invoices"
    request = Request(name, Option("pay", "account", "a-1", arguments.encode()))
    payload = {
        "type": "DECISION",
        "decision_id": decision_id(n),
        "time": "2026-11-23T17:38:58.123456789Z",
        "agent": principal(name, "asserted" if agent is None else "mtls"),
        "registry": None,
        "request": {
            "action": "pay", "resource": {"type": "account", "id": "a-1"}, "arguments": arguments, "context": "",
            "purpose": "", "alternatives": [], "trace_parent": "", "idempotency_key": "", "last_receipt": "",
            "executor": "", "delegations": [], "approval_of": "",
        },
        "request_digest": request.digest().hex(),
        "effect": effect,
        "enforced": True,
        "cause": "policy",
        "reasons": [{"code": "small", "message": "a small amount"}],
        "obligations": [],
        "alternatives": [],
        "result": {"effect": effect},
        "policy": _policy("r1"),
        "peer": "unix",
        "executor": None,
        "delegators": [],
        "approval": None,
        "terms": None,
        "permit": None,
        "timings": {"evaluate_ns": "290000"},
    }  # fmt: skip
    return Draft(EntryType.DECISION, payload)


def outcome(n: int, seq: int, *, status: str = "executed", agent: str | None = None) -> Draft:
    payload = {
        "type": "OUTCOME", "decision_id": decision_id(n), "decision_seq": seq,
        "agent": {"id": agent or "invoices", "proof": "asserted" if agent is None else "mtls"},
        "by": principal(agent or "invoices", "asserted"), "status": status,
        "arguments_digest": None, "permit": "",
        "downstream_status": "", "started_ns": "", "duration_ns": "", "response": None,
        "response_digest": hashlib.sha256(b"done").hexdigest(),
    }  # fmt: skip
    return Draft(EntryType.OUTCOME, payload, ref_seq=seq)


def _policy(revision: str) -> dict[str, str]:
    return {
        "engine": "wasm", "engine_version": "46", "entrypoint": "agents/decision", "revision": revision,
        "bundle_digest": "",
    }  # fmt: skip


def indexed(world: World) -> list[bytes]:
    """The decisions that the index on disk has, also of a ledger that is open."""
    copy = world.directory.with_name("looked-at")
    copy.mkdir(exist_ok=True)
    shutil.copy(world.directory / FILE, copy / FILE)
    environment, _ = open_for_reading(copy)
    with environment.begin() as txn, txn.cursor(environment.open_db(b"index", txn=txn, create=False)) as cursor:
        found = list(cursor.iternext(values=False))
    environment.close()
    return found


def everything(read: Callable[[int], bytes]) -> bytes:
    """All that a stream gives."""
    return b"".join(iter(lambda: read(1 << 20), b""))
