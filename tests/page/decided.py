"""Decisions by the starter policy, as a sidecar with the Wasm engine records them."""

from __future__ import annotations

import asyncio
import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sidecar.decide.entries import policy_inputs
from sidecar.policy import STARTER_BUNDLE, WasmEngine
from sidecar.policy.verdict import interpret
from tests.scribe import TERMS, Scribe

_ENTRYPOINT = "agents/decision"
_ASKED = [
    ("billing-agent", ["billing"], "payments.refund", "account", '{"amount":120,"currency":"EUR"}'),
    ("billing-agent", ["billing"], "payments.refund", "account", '{"amount":7000.5,"currency":"EUR"}'),
    ("billing-agent", [], "crm.read", "customer", "{}"),
    ("nobody", [], "web.fetch", "url", '{"url":"https://169.254.169.254/latest"}'),
    ("billing-agent", ["billing"], "db.query", "table", '{"columns":["name","iban"],"n":1e3}'),
    ("travel-agent", ["support"], "email.send", "mailbox", '{"to":"é漢@example.com","attachments":[{"bytes":1}]}'),
    ("deployer", ["operations"], "deploy.rollout", "service", '{"environment":"production","rollback_to":"v1"}'),
]


@functools.cache
def decisions() -> list[dict[str, Any]]:
    """Payloads of DECISION entries."""
    with ThreadPoolExecutor(1) as aside:  # a browser's driver has a loop of its own on this thread
        return aside.submit(lambda: asyncio.run(_decide())).result()


async def _decide() -> list[dict[str, Any]]:
    engine = WasmEngine(STARTER_BUNDLE.read_bytes(), _ENTRYPOINT)
    made = []
    try:
        for agent, roles, action, kind, arguments in _ASKED:
            value = Scribe("decided").decision_value("ALLOW")
            value["agent"] |= {"id": agent, "roles": roles}
            value["request"] |= {"action": action, "resource": {"type": kind, "id": "a-1"}, "arguments": arguments}
            value["request"]["alternatives"] = [
                {"action": "crm.read", "resource": {"type": "customer", "id": "c"}, "arguments": ""}
            ]
            wanted, other = policy_inputs(value)
            answer = await engine.evaluate(wanted, 5)
            version = answer.version
            verdict, second = interpret(answer.result), interpret((await engine.evaluate(other, 5)).result)
            made.append(
                value
                | {
                    "effect": verdict.effect,
                    "terms": TERMS if verdict.effect == "REQUIRE_APPROVAL" else None,
                    "result": answer.result,
                    "reasons": [{"code": r.code, "message": r.message} for r in verdict.reasons],
                    "obligations": [{"kind": o.kind, "parameters": o.parameters} for o in verdict.obligations],
                    "alternatives": [
                        {
                            "effect": second.effect,
                            "reasons": [{"code": r.code, "message": r.message} for r in second.reasons],
                        }
                    ],
                    "policy": {
                        "engine": "wasm",
                        "engine_version": version.engine_version,
                        "entrypoint": _ENTRYPOINT,
                        "revision": version.revision,
                        "bundle_digest": version.bundle_digest,
                    },
                }
            )
    finally:
        await engine.close()
    return made
