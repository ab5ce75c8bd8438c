"""What `sidecar bench` asks, of everybody alike: the starter policy over 1,000 agents, one question of about 1 KB."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sidecar.client import Guard
from sidecar.errors import UsageError
from sidecar.policy import STARTER_SOURCE, GateSettings, OpaProgram, build_files, read_bundle, read_policy

AGENTS: Final = 1_000
AGENT: Final = "agent-0500"
ENTRYPOINT: Final = "agents/decision"
TOGETHER: Final = 12  # questions of a stream in one message: so many does our SDK send of these when 64 ask at once
LONG_STREAM: Final = 512  # questions in one stream, where the sidecar itself keeps 64 of them in flight
INVOICE: Final = "inv-2026-11-004711"
SESSION: Final = "s-7f3a9c2e41"
"""Of the one question: others, made from it, have the last six characters of both for themselves."""
_ACTION: Final = "payments.refund"
_RESOURCE: Final = ("account", "acct-17")
_PURPOSE: Final = "refund for returned goods"
_ARGUMENTS: Final[dict[str, Any]] = {
    "amount": 120,
    "currency": "EUR",
    "invoice": INVOICE,
    "reason": "goods returned, two of three items",
    "lines": [
        {"sku": f"sku-{n:05}", "text": "replacement filter, standard size", "quantity": n, "price": 19.5}
        for n in range(1, 5)
    ],
}
_CONTEXT: Final[dict[str, Any]] = {
    "session": SESSION,
    "user": "customer-8841",
    "conversation": ["The customer sent the parcel back on Tuesday.", "The warehouse confirmed it; the refund is due."],
    "tools": ["crm.read", "payments.refund", "tickets.create"],
    "trace": {"step": 7, "parent": "plan-3"},
    "risk": {"score": 0.12, "signals": ["known customer", "amount within history", "address unchanged"]},
}


@dataclass(frozen=True, slots=True)
class Work:
    """Files in the bench's own directory. ``streams``: the body of one DecideStream call, by how many questions."""

    policy: Path
    opa_bundle: Path
    wasm_bundle: Path
    opa_body: Path
    unary_body: Path
    streams: dict[int, Path]


def document() -> dict[str, Any]:
    """The policy's input, as the sidecar makes it of the question."""
    return {
        "agent": {"id": AGENT, "proof": "asserted", "roles": [], "attributes": {}},
        "action": _ACTION,
        "resource": {"type": _RESOURCE[0], "id": _RESOURCE[1]},
        "arguments": _ARGUMENTS,
        "context": _CONTEXT,
        "purpose": _PURPOSE,
        "time": "2026-11-23T17:00:00.123456789Z",
    }


def ask_once(guard: Guard) -> int:
    """The same question through the SDK; gives the entry's seq. UsageError unless the answer is ALLOW."""
    decision = guard.ask(_ACTION, _RESOURCE, _ARGUMENTS, context=_CONTEXT, purpose=_PURPOSE)
    if decision.effect.value != "ALLOW":
        raise UsageError(f"the bench's question was answered {decision.effect.value}; see the sidecar's log")
    return decision.seq


def registry_of(spki: bytes) -> str:
    """A registry of the one agent that asks. ``spki``: its public key, DER."""
    agent = {"id": AGENT, "kind": "agent", "owner": "bench", "purpose": "bench", "status": "active", "attributes": {}}
    keys = [{"spki": base64.b64encode(spki).decode(), "status": "active"}]
    principals = [{**agent, "keys": keys, "spiffe_ids": [], "roles": []}]
    return json.dumps({"format": "sidecar/v1/registry", "principals": principals})


def prepare(place: Path, opa: OpaProgram | None) -> Work:
    """Write policy, bundles (where there is an ``opa``) and bodies into an empty directory.

    Raises:
        UsageError, PolicyLoadError: OPA does not build the policy.
    """
    work = Work(
        policy=place / "policy",
        opa_bundle=place / "opa.tar.gz",
        wasm_bundle=place / "wasm.tar.gz",
        opa_body=place / "opa.json",
        unary_body=place / "unary.grpc",
        streams={n: place / f"stream-{n}.grpc" for n in (1, 16, LONG_STREAM)},
    )
    _write_policy(work.policy)
    if opa is not None:
        asyncio.run(_build(opa, work))
    work.opa_body.write_text(json.dumps({"input": document()}))
    raw = _request()
    work.unary_body.write_bytes(_frame(raw))
    for count, body in work.streams.items():
        numbers = range(1, count + 1)
        messages = (numbers[at : at + TOGETHER] for at in range(0, count, TOGETHER))
        body.write_bytes(b"".join(_frame(_stream_request(some, raw)) for some in messages))
    return work


def _write_policy(place: Path) -> None:
    place.mkdir()
    for name, content in starter_files().items():
        if name.endswith(".rego") and not name.endswith("_test.rego"):
            (place / name).write_bytes(content)
    (place / "data.json").write_text(with_agents())


def starter_files() -> Mapping[str, bytes]:
    """The starter policy's sources, its tests and expectations too, by name."""
    return read_bundle(STARTER_SOURCE.read_bytes())


def with_agents() -> str:
    """The starter policy's data, with so many agents."""
    data = json.loads(starter_files()["data.json"])
    roles = sorted(data["registry"]["roles"])
    for number in range(AGENTS - len(data["registry"]["agents"])):
        data["registry"]["agents"][f"agent-{number:04}"] = {"roles": [roles[number % len(roles)], "finance"]}
    return json.dumps(data)


async def _build(program: OpaProgram, work: Work) -> None:
    files = read_policy(work.policy)
    for engine, out in (("opa", work.opa_bundle), ("wasm", work.wasm_bundle)):
        out.write_bytes((await build_files(program, files, GateSettings(ENTRYPOINT, engine))).packed)


def _frame(message: bytes) -> bytes:
    """A message as gRPC carries it: not compressed, its length in 4 bytes (PROTOCOL-HTTP2, Length-Prefixed-Message)."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def _stream_request(numbers: Iterable[int], request: bytes) -> bytes:
    """A DecideStreamRequest: questions, each a correlation_id, a varint, and the request."""
    return b"".join(_field(1, b"\x08" + _varint(number) + _field(2, request)) for number in numbers)


def _request() -> bytes:
    """The DecideRequest in protobuf's wire form, fields as in decision.proto. (Commands do not touch the stubs.)"""
    resource = _field(1, _RESOURCE[0].encode()) + _field(2, _RESOURCE[1].encode())
    arguments, context = (json.dumps(value, separators=(",", ":")).encode() for value in (_ARGUMENTS, _CONTEXT))
    values = (AGENT.encode(), _ACTION.encode(), resource, arguments, context, _PURPOSE.encode())
    return b"".join(_field(number, value) for number, value in enumerate(values, start=1))


def _field(number: int, value: bytes) -> bytes:
    """A length-delimited field (protobuf, "Encoding")."""
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*out, number))
