"""A running OPA and the embedded engine give the same answers, deep-equal, on thousands of inputs."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

from sidecar.errors import EngineError
from sidecar.policy import STARTER_BUNDLE, STARTER_ENTRYPOINT, Engine, OpaEngine, WasmEngine, interpret

from .conftest import Build, Serve

REGO = Path(__file__).parents[2] / "rego"
COUNT = 3000
AGENTS = [
    "billing-agent",
    "support-agent",
    "ops-agent",
    "research-agent",
    "stranger",
    "",
    "Billing-Agent",
    "агент",
    7,
    None,
]
ACTIONS = [
    "payments.transfer",
    "payments.refund",
    "crm.read",
    "crm.export",
    "tickets.create",
    "tickets.update",
    "email.send",
    "db.query",
    "deploy.rollout",
    "infra.resize",
    "secrets.read",
    "web.fetch",
    "files.write",
    "files.read",
    "payments.",
    "payments",
    "",
    1,
    ["x"],
]
RESOURCES = [
    ("account", "acct-17"),
    ("customer", "c-1"),
    ("ticket", "t"),
    ("mailbox", "support@example.com"),
    ("mailbox", "billing@x"),
    ("table", "billing.invoices"),
    ("table", "hr"),
    ("service", "checkout"),
    ("secret", "platform/db"),
    ("report", "q3"),
    ("url", "https://example.org/a"),
    ("url", "https://169.254.169.254/"),
    ("url", "http://x"),
    ("url", "https://例え.jp/"),
    ("file", "/workspace/a.txt"),
    ("file", "/workspace/../x"),
    ("file", "/workspace/\u0000"),
    ("file", "/workspace/é\u202e"),
    ("account", "\U0001f600" * 40),
    ("", ""),
    (1, 2),
]
TIMES = [
    "2026-11-23T12:00:00.123456789Z",
    "2026-11-23T06:59:59.999999999Z",
    "2026-11-22T12:00:00Z",
    "2028-02-29T23:59:59.5Z",
    "2026-02-29T12:00:00Z",
    "2026-04-31T12:00:00Z",
    "2026-11-23T24:00:00Z",
    "2026-11-23T12:00:60Z",
    "0000-00-00T00:00:00Z",
    "2099-12-31T23:59:59.999999999Z",
    "9999-12-31T23:59:59Z",
    "2026-11-23T12:00:00+01:00",
    "２０２６-11-23T12:00:00Z",
    "",
    "now",
    0,
    None,
]
NUMBERS = [
    0,
    -0.0,
    1,
    50,
    50.01,
    1000,
    1000.0,
    1000.0000000001,
    1e3,
    50000,
    50001,
    -1,
    0.1 + 0.2,
    5e-324,
    1.7976931348623157e308,
    2**53 - 1,
    2**53 + 1,
    2**63,
    -(2**63),
    2**64,
    10**30,
    10**200,
]
TEXTS = [
    "",
    "x",
    "EUR",
    "USD",
    "staging",
    "production",
    "v41",
    "x@example.com",
    "X@Example.COM",
    "x@partner.test",
    "a@b@example.com",
    "email",
    "Diagnosis",
    "*",
    "İ\u212a",
    "\x00\x1f\x7f",
    "\u2028",
    "\U0010fffd",
    "-----BEGIN PRIVATE KEY-----",
    "password: hunter22",
    "AKIAABCDEFGHIJKLMNOP",
    "\\\"'%v%d%s",
    "é" * 300,
]
KEYS = [
    "amount",
    "currency",
    "columns",
    "destination",
    "to",
    "attachments",
    "environment",
    "rollback_to",
    "contains_personal_data",
    "password",
    "Secret",
    "",
    "é",
    "a.b",
    "\x01",
]


def value(rng: random.Random, depth: int = 0) -> Any:
    kind = rng.randrange(7 if depth < 4 else 5)
    if kind == 5:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 6:
        return {rng.choice(KEYS): value(rng, depth + 1) for _ in range(rng.randrange(4))}
    return rng.choice([rng.choice(NUMBERS), rng.choice(TEXTS), rng.choice(TEXTS), rng.choice([True, False, None])])


def likely(rng: random.Random) -> dict[str, Any]:
    """Arguments that get past the first rules."""
    return {
        "amount": rng.choice(NUMBERS),
        "currency": rng.choice(["EUR", "USD", "GBP", "eur"]),
        "columns": rng.sample(["email", "SSN", "total", "diagnosis", "*"], rng.randrange(4)),
        "destination": rng.choice(TEXTS),
        "to": rng.sample(TEXTS, rng.randrange(3)),
        "contains_personal_data": rng.choice([True, False, None]),
        "environment": rng.choice(["staging", "test", "production", "Test", 1]),
        "rollback_to": rng.choice(["", "v41"]),
    }


SENSIBLE = [
    ("billing-agent", "payments.transfer", "account", "acct-17"),
    ("billing-agent", "payments.transfer", "account", "acct-17"),
    ("billing-agent", "db.query", "table", "billing.invoices"),
    ("support-agent", "payments.refund", "account", "acct-17"),
    ("support-agent", "crm.export", "customer", "c-1"),
    ("support-agent", "email.send", "mailbox", "support@example.com"),
    ("support-agent", "tickets.update", "ticket", "t"),
    ("ops-agent", "deploy.rollout", "service", "checkout"),
    ("ops-agent", "infra.resize", "cluster", "c1"),
    ("ops-agent", "secrets.read", "secret", "platform/db"),
    ("research-agent", "db.query", "table", "hr"),
    ("research-agent", "crm.export", "report", "q3"),
    ("research-agent", "web.fetch", "url", "https://example.org/a"),
    ("research-agent", "web.fetch", "url", "https://169.254.169.254/"),
    ("research-agent", "files.write", "file", "/workspace/a.txt"),
]


def document(rng: random.Random) -> dict[str, Any]:
    agent, action = rng.choice(AGENTS), rng.choice(ACTIONS)
    kind, name = rng.choice(RESOURCES)
    if rng.random() < 0.7:
        agent, action, kind, name = rng.choice(SENSIBLE)
    arguments = likely(rng) if rng.random() < 0.6 else value(rng)
    made = {
        "agent": {"id": agent, "proof": "asserted", "roles": [], "attributes": {}},
        "action": action,
        "resource": {"type": kind, "id": name},
        "arguments": arguments,
        "context": value(rng),
        "purpose": rng.choice(["", "quarterly review", "   short   ", "目的は四半期レビュー", 7]),
        "time": rng.choice(TIMES[:4] if rng.random() < 0.7 else TIMES),
    }
    for field in list(made):
        if rng.random() < 0.03:
            del made[field]
        elif rng.random() < 0.02:
            made[field] = value(rng)
    return made


async def answer(engine: Engine, asked: dict[str, Any]) -> tuple[str, object]:
    try:
        return "result", (await engine.evaluate(asked, 30)).result
    except EngineError as error:
        return error.cause, None


async def compare(opa: Engine, wasm: Engine, documents: list[dict[str, Any]]) -> list[object]:
    results = []
    for asked in documents:
        said, also = await answer(opa, asked), await answer(wasm, asked)
        assert said == also, asked
        assert json.dumps(said) == json.dumps(also), "the same members in another order"
        results.append(said[1])
    return results


async def with_both(address: str, bundle: bytes, entrypoint: str, documents: list[dict[str, Any]]) -> list[object]:
    opa, wasm = OpaEngine(address, entrypoint), WasmEngine(bundle, entrypoint, workers=1)
    try:
        return await compare(opa, wasm, documents)
    finally:
        await opa.close()
        await wasm.close()


def test_starter_policy(serve: Serve) -> None:
    rng = random.Random(20261123)
    documents = [document(rng) for _ in range(COUNT)]
    files = [str(path) for path in sorted(REGO.glob("*.rego")) if not path.name.endswith("_test.rego")]
    with serve(*files, str(REGO / "data.json")) as address:
        results = asyncio.run(with_both(address, STARTER_BUNDLE.read_bytes(), STARTER_ENTRYPOINT, documents))
    assert None not in results, "the entry point is always defined and never fails"
    effects = [interpret(result).effect for result in results]
    assert all(effects.count(name) > COUNT // 100 for name in ("ALLOW", "DENY", "REQUIRE_APPROVAL"))
    codes = {reason.code for result in results for reason in interpret(result).reasons}
    assert len(codes) >= 20, sorted(codes)


BUILTINS = """package b

answer.sprintf := sprintf(input.form, input.values) if input.form

answer.set := sprintf("%v %s", [{v | some v in input.values}, {"k": {v | some v in input.values}}]) if input.form

answer.ns := time.parse_rfc3339_ns(input.time) if input.time

answer.moment := [time.clock(input.ns), time.date(input.ns), time.weekday([input.ns, "UTC"])] if input.ns

answer.hash := crypto.sha256(input.text) if input.text

answer.undefined := false
"""
FORMS = [
    "%v",
    "%d",
    "%s",
    "%v|%v",
    "%d %s",
    "%5d|%-5s|%05d",
    "%.2f",
    "%x",
    "%q",
    "%t",
    "%e",
    "%%",
    "%s%%%d",
    "plain",
    "%.3s",
    "%8.3f",
]
MOMENTS = [
    "2026-11-23T12:00:00Z",
    "1970-01-01T00:00:00Z",
    "1969-12-31T23:59:59.999999999Z",
    "1700-03-01T00:00:00Z",
    "1600-01-01T00:00:00Z",
    "2262-04-11T23:47:16.854775807Z",
    "2262-04-11T23:47:16.854775808Z",
    "2026-11-23T12:00:00.123456789012Z",
    "2026-11-23T12:00:00+05:30",
    "2026-11-23T12:00:00-23:59",
    "2026-11-23T12:00:00",
    "2026-11-23t12:00:00z",
    "2026-02-30T00:00:00Z",
    "x",
]


def builtin_document(rng: random.Random) -> dict[str, Any]:
    values = [value(rng) for _ in range(rng.randrange(4))]
    return rng.choice(
        [
            {"form": rng.choice(FORMS), "values": values},
            {"form": rng.choice(FORMS), "values": values},
            {"time": rng.choice(MOMENTS)},
            {"ns": rng.randrange(-(2**62), 2**62)},
            {"ns": rng.choice([2**63, 1.5, 10**30])},
            {"text": rng.choice(TEXTS)},
        ]
    )


def test_builtins_of_the_host(serve: Serve, build: Build, tmp_path: Path) -> None:
    """What we supply answers as OPA does, or fails where OPA would have answered: it never answers otherwise."""
    rng = random.Random(7)
    documents = [builtin_document(rng) for _ in range(COUNT // 2)]
    (tmp_path / "b.rego").write_text(BUILTINS)

    async def run(address: str, bundle: bytes) -> tuple[int, list[Any]]:
        opa, wasm = OpaEngine(address, "b/answer"), WasmEngine(bundle, "b/answer", workers=1)
        same, differences = 0, list[Any]()
        try:
            for asked in documents:
                said, also = await answer(opa, asked), await answer(wasm, asked)
                same += said == also
                if said != also and also[0] == "result":
                    differences.append((asked, said, also))
        finally:
            await opa.close()
            await wasm.close()
        return same, differences

    with serve(str(tmp_path / "b.rego")) as address:
        same, differences = asyncio.run(run(address, build(BUILTINS, "b/answer")))
    assert differences == []
    assert same > len(documents) * 0.8
