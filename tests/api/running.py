"""A sidecar's own server over a real ledger, with an engine that a test scripts, on a unix socket."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.api import NAMES, Health, Metrics, Server, ServerTls, Services, Transports
from sidecar.chain.seeds import Custody
from sidecar.custody import generate_custodian, load_custodian, load_private, open_seed, seal_shares
from sidecar.decide import DecisionPath, InForce, Limits, Registered, Settings, new_decision_id
from sidecar.ledger import Ledger, Options, SystemClock, create, ledger_stream
from sidecar.policy import Engine
from sidecar.v1 import decision_pb2 as pb
from sidecar.v1 import decision_pb2_grpc as grpc_stubs
from sidecar.verify import Evidence, Report, verify_stream
from tests.decide.engines import ALLOW, AnyPolicy, ScriptedEngine

PRIVATE, PUBLIC = generate_custodian("x25519")


def wrap(custody: Custody, chain_id: bytes, epoch: int, seed: bytes) -> Any:
    return seal_shares(custody, chain_id, epoch, seed, os.urandom)


def found(directory: Path, authority: bytes | None = None) -> None:
    """A new ledger for one custodian."""
    create(
        directory,
        identity=Ed25519PrivateKey.generate(),
        custody=Custody("any", (load_custodian(PUBLIC, "auditor"),)),
        authority=authority,
        log=None,
        retention="default",
        wrap=wrap,
        options=Options(),
        clock=SystemClock(),
    )


def streamed(*questions: pb.DecideRequest, first: int = 1) -> pb.DecideStreamRequest:
    """Questions in one message of a stream, with correlation ids from ``first`` on."""
    numbered = enumerate(questions, start=first)
    return pb.DecideStreamRequest(questions=[pb.StreamQuestion(correlation_id=n, request=q) for n, q in numbered])


async def answered(stream: Any) -> list[pb.StreamAnswer]:
    """Every answer of a stream, as they came."""
    return [answer async for response in stream for answer in response.answers]


def judged(directory: Path, receipts: list[bytes] | None = None) -> Report:
    """The verifier's report, with the custodian's key."""
    keys = [load_private(PRIVATE)]

    def opener(custody: Any, chain_id: bytes, epoch: int, shares: Any) -> bytes:
        return open_seed(keys, custody, chain_id, epoch, shares)

    with ledger_stream(directory) as read:
        return verify_stream(read, Evidence(open_seed=opener, receipts=receipts or []))


@dataclass(frozen=True, slots=True)
class Running:
    """A server under test and stubs to talk to it."""

    decisions: grpc_stubs.DecisionServiceAsyncStub
    reading: grpc_stubs.LedgerServiceAsyncStub
    channel: grpc.aio.Channel
    ledger: Ledger
    path: DecisionPath
    directory: Path
    address: str
    in_force: InForce
    server: Server


@contextlib.asynccontextmanager
async def running(
    tmp_path: Path,
    engine: Engine | None = None,
    *,
    development: bool = True,
    options: Options | None = None,
    open_store: Callable[..., Any] | None = None,
    max_bytes: int = 1024 * 1024,
    metrics: Metrics | None = None,
    tls: ServerTls | None = None,
    transports: Transports | None = None,
    wall_ns: Callable[[], int] = time.time_ns,
    registry: Registered | None = None,
    health: Health | None = None,
    **settings: Any,
) -> AsyncIterator[Running]:
    """A running server, counted by ``metrics`` if given; the ledger is closed in order at the end.

    With ``tls`` it is on a port, and its own stubs, which speak no TLS, get no answer.
    """
    directory = tmp_path / "ledger"
    if not directory.exists():
        found(directory)
    more: dict[str, Any] = {} if open_store is None else {"open_store": open_store}
    if metrics is not None:
        more["on_commit"] = metrics.committed
    ledger = Ledger.open(
        directory, wrap=wrap, options=options or Options(), clock=SystemClock(), on_failure=lambda error: None, **more
    )
    terms = Settings(development=development, evaluate_timeout=5.0, limits=Limits(max_bytes), **settings)
    engine = engine or ScriptedEngine(lambda _: ALLOW)
    in_force = AnyPolicy(ledger)
    if registry is not None:
        await in_force.put_registry(registry)
    path = DecisionPath(engine, in_force, ledger, terms, new_id=new_decision_id, observer=metrics, wall_ns=wall_ns)
    if metrics is not None:
        metrics.attach(ledger, engine)
    if health is None:
        health = Health()
        health.found("")
    server = Server(
        Services(path, ledger, metrics, transports).handlers(),
        NAMES,
        "127.0.0.1:0" if tls else f"unix:{tmp_path}/s.sock",
        health,
        max_request_bytes=max_bytes,
        socket_mode=0o600,
        credentials=tls.credentials if tls else None,
    )
    address = await server.start()
    await server.show_health()
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            yield Running(
                grpc_stubs.DecisionServiceStub(channel),
                grpc_stubs.LedgerServiceStub(channel),
                channel,
                ledger,
                path,
                directory,
                address,
                in_force,
                server,
            )
    finally:
        await server.stop(1.0)
        ledger.close()


def request(**changes: Any) -> pb.DecideRequest:
    """A good request, changed as a test needs."""
    fields: dict[str, Any] = {
        "agent": "billing-agent",
        "action": "crm.read",
        "resource": pb.Resource(type="customer", id="acme-42"),
        "arguments": b'{"fields": ["name"]}',
        **changes,
    }
    return pb.DecideRequest(**fields)
