"""Decide and ReportOutcome as a caller sees them, and what the ledger holds afterwards."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from sidecar.chain import note
from sidecar.chain.head import Head
from sidecar.chain.request import Option, Request
from sidecar.v1 import decision_pb2 as pb
from tests.api.running import Running, judged, request, running
from tests.decide.engines import ALLOW, HangingEngine, ScriptedEngine

DENY = {"effect": "DENY", "reasons": [{"code": "no", "message": "a test denies it"}]}


def payload(entry: pb.GetEntryResponse) -> dict[str, Any]:
    value = json.loads(entry.payload)
    assert isinstance(value, dict)
    return value


async def entry(run: Running, seq: int) -> dict[str, Any]:
    return payload(await run.reading.GetEntry(pb.GetEntryRequest(seq=seq)))


async def last_entry(run: Running) -> dict[str, Any]:
    head = await run.reading.Head(pb.HeadRequest())
    return await entry(run, head.next_seq - 1)


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def test_the_answer_is_in_the_ledger_whole(tmp_path: Path) -> None:
    result = {
        **ALLOW,
        "obligations": [{"kind": "mask_fields", "parameters": {"fields": ["iban"]}}],
        "granted_by": "a rule of the test",
    }

    async def main() -> pb.DecideResponse:
        async with running(tmp_path, ScriptedEngine(lambda _: result)) as run:
            asked = request(purpose="because", context=b'{"session":1}', idempotency_key="k-1")
            answer = await run.decisions.Decide(asked)
            recorded = await entry(run, answer.seq)
            digest = Request(
                "billing-agent", Option("crm.read", "customer", "acme-42", b'{"fields": ["name"]}'),
                context=b'{"session":1}', purpose="because", idempotency_key="k-1",
            ).digest().hex()  # fmt: skip
            assert answer.effect == pb.EFFECT_ALLOW
            assert answer.agent_proof == "asserted"
            assert recorded["decision_id"] == answer.decision_id
            assert recorded["result"] == result
            assert recorded["request"]["arguments"] == '{"fields": ["name"]}'
            assert recorded["request_digest"] == digest
            nothing = {"roles": [], "attributes": {}}
            assert recorded["agent"] == {"id": "billing-agent", "proof": "asserted", **nothing}
            assert recorded["policy"]["revision"] == answer.policy.revision == "revision-1"
            assert recorded["obligations"] == [{"kind": "mask_fields", "parameters": {"fields": ["iban"]}}]
            head = Head.parse(note.parse(answer.receipt).text)
            assert head.seq == answer.seq
            assert head.decided is not None
            assert (head.decided.decision_id, head.decided.effect) == (answer.decision_id, "ALLOW")
            assert head.decided.request.hex() == digest
            return answer

    answer = asyncio.run(main())
    report = judged(tmp_path / "ledger", [answer.receipt])
    assert report.verdict.name == "UNANCHORED", report.findings


def test_the_policy_sees_what_the_entry_says(tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda _: ALLOW)

    async def main() -> None:
        async with running(tmp_path, engine) as run:
            answer = await run.decisions.Decide(request(context=b'{"tier": "gold"}', purpose="p"))
            recorded = await entry(run, answer.seq)
        (seen,) = engine.seen
        asked = recorded["request"]
        assert seen == {
            "agent": recorded["agent"],
            "action": asked["action"],
            "resource": asked["resource"],
            "arguments": json.loads(asked["arguments"]),
            "context": json.loads(asked["context"]),
            "purpose": asked["purpose"],
            "time": recorded["time"],
            "executor": None,
            "delegation": [],
            "approvals": [],
        }

    asyncio.run(main())


def test_alternatives_are_judged_each(tmp_path: Path) -> None:
    def script(document: dict[str, Any]) -> object:
        return ALLOW if document["action"] == "crm.read" else DENY

    async def main() -> None:
        async with running(tmp_path, ScriptedEngine(script)) as run:
            others = [
                pb.Alternative(action=action, resource=pb.Resource(type="customer", id="acme-42"))
                for action in ("crm.delete", "crm.read")
            ]
            answer = await run.decisions.Decide(request(action="crm.export", alternatives=others))
            assert answer.effect == pb.EFFECT_DENY
            assert [a.effect for a in answer.alternatives] == [pb.EFFECT_DENY, pb.EFFECT_ALLOW]
            recorded = await entry(run, answer.seq)
            assert [a["effect"] for a in recorded["alternatives"]] == ["DENY", "ALLOW"]
            assert [a["action"] for a in recorded["request"]["alternatives"]] == ["crm.delete", "crm.read"]

    asyncio.run(main())


def test_an_outcome_refers_to_its_decision(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as run:
            answer = await run.decisions.Decide(request())
            report = pb.ReportOutcomeRequest(
                agent="billing-agent",
                decision_id=answer.decision_id,
                status=pb.OUTCOME_STATUS_EXECUTED,
                response=b'{"rows": 3}',
            )
            reported = await run.decisions.ReportOutcome(report)
            recorded = await entry(run, reported.seq)
            assert recorded["decision_seq"] == answer.seq
            assert (recorded["status"], recorded["response"]) == ("executed", '{"rows": 3}')

    asyncio.run(main())
    assert judged(tmp_path / "ledger").verdict.name == "UNANCHORED"


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"decision_id": "019ab4a0-7c3e-7f11-8a55-0242ac120002"}, grpc.StatusCode.NOT_FOUND),
        ({"decision_id": "no id"}, grpc.StatusCode.NOT_FOUND),
        ({"status": pb.OUTCOME_STATUS_UNSPECIFIED}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"agent": "another-agent"}, grpc.StatusCode.PERMISSION_DENIED),
        ({"agent": ""}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"response": b"{"}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"response_digest": b"short"}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"response": b"1", "response_digest": bytes(32)}, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_bad_outcomes_are_refused_and_recorded(
    tmp_path: Path, changes: dict[str, Any], status: grpc.StatusCode
) -> None:
    async def main() -> None:
        async with running(tmp_path) as run:
            answer = await run.decisions.Decide(request())
            good: dict[str, Any] = {
                "agent": "billing-agent",
                "decision_id": answer.decision_id,
                "status": pb.OUTCOME_STATUS_EXECUTED,
            }
            error = await refused(run.decisions.ReportOutcome(pb.ReportOutcomeRequest(**{**good, **changes})))
            assert error.code() == status
            recorded = await last_entry(run)
            assert (recorded["type"], recorded["code"]) == ("REJECTED", status.name)

    asyncio.run(main())


def test_an_outcome_for_a_deny_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, ScriptedEngine(lambda _: DENY)) as run:
            answer = await run.decisions.Decide(request())
            report = pb.ReportOutcomeRequest(
                agent="billing-agent", decision_id=answer.decision_id, status=pb.OUTCOME_STATUS_EXECUTED
            )
            error = await refused(run.decisions.ReportOutcome(report))
            assert error.code() == grpc.StatusCode.FAILED_PRECONDITION

    asyncio.run(main())


NO_DOORS = (b"null", b'"mcp"', b"{}", b'{"kind":1}', b'{"kind":"Envoy"}', b'{"kind":"envoy\\n"}', b'{"kind":""}')
SECRET = "s3cr3t-value"  # what a refused request carries must not be found anywhere


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (request(agent=""), "agent"),
        (request(action="a\nb"), "action"),
        (request(arguments=f'{{"{SECRET}": 1, "{SECRET}": 2}}'.encode()), "arguments"),
        (request(arguments=f'{{"x": "{SECRET}", "y": NaN}}'.encode()), "arguments"),
        (request(arguments=b'{"' + SECRET.encode() + b'": "\xff"}'), "arguments"),
        (request(arguments=b'{"a":' + b"[" * 64 + b"]" * 64 + b"}"), "arguments"),
        (request(context=b"7"), "context"),
        (request(context=b'{"door":{"kind":"envoy"}}'), "context.door"),
        (request(context=b'{"d\\u006for":{"kind":"authzen","x":"' + SECRET.encode() + b'"}}'), "context.door"),
        *((request(context=b'{"door":' + door + b"}"), "context.door") for door in NO_DOORS),
        (request(purpose=SECRET * 200), "purpose"),
        (request(arguments=b'{"blob": "' + b"x" * (1024 * 1024) + b'"}'), "request"),
    ],
)
def test_bad_requests_are_refused_by_field_without_their_content(
    tmp_path: Path, message: pb.DecideRequest, field: str
) -> None:
    async def main() -> None:
        engine = ScriptedEngine(lambda _: ALLOW)
        async with running(tmp_path, engine) as run:
            error = await refused(run.decisions.Decide(message))
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert (error.details() or "").startswith(f"{field}:")
            recorded = await last_entry(run)
            assert (recorded["type"], recorded["field"], recorded["count"]) == ("REJECTED", field, 1)
            assert SECRET not in json.dumps(recorded) + (error.details() or "")
            assert engine.seen == []

    asyncio.run(main())


def test_a_string_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    good = request().SerializeToString()
    bad = good.replace(b"acme-42", b"acme\xff42")
    nested = request(alternatives=[pb.Alternative(action="abc")] * 2).SerializeToString()
    bad_nested = nested[: nested.rindex(b"abc")] + b"a\xffc" + nested[nested.rindex(b"abc") + 3 :]

    async def main() -> None:
        async with running(tmp_path) as run:
            raw = run.channel.unary_unary("/sidecar.v1.DecisionService/Decide")
            for sent, field in ((bad, "resource.id"), (bad_nested, "alternatives[1].action"), (b"\xff\xff", "request")):
                error = await refused(raw(sent))
                assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
                assert (error.details() or "").startswith(f"{field}:")

    asyncio.run(main())


def test_a_flood_of_bad_requests_is_a_few_entries_that_count_all(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as run:
            before = (await run.reading.Head(pb.HeadRequest())).next_seq
            for _ in range(60):
                await refused(run.decisions.Decide(request(agent="")))
            await run.path.record_remainder(everything=True)
            after = (await run.reading.Head(pb.HeadRequest())).next_seq
            counts = [(await entry(run, seq))["count"] for seq in range(before, after)]
            assert sum(counts) == 60
            assert len(counts) < 30

    asyncio.run(main())


def test_without_dev_nobody_is_believed(tmp_path: Path) -> None:
    async def main() -> None:
        engine = ScriptedEngine(lambda _: ALLOW)
        async with running(tmp_path, engine, development=False) as run:
            error = await refused(run.decisions.Decide(request()))
            assert error.code() == grpc.StatusCode.UNAUTHENTICATED
            assert "--dev" in (error.details() or "")
            position = run.ledger.position()
            assert run.ledger.payload(position.next_seq - 1)["code"] == "UNAUTHENTICATED"
            assert (await refused(run.reading.GetEntry(pb.GetEntryRequest(seq=0)))).code() == error.code()
            assert engine.seen == []

    asyncio.run(main())


def test_the_callers_deadline_is_kept_with_a_deny(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path, HangingEngine()) as run:
            answer = await run.decisions.Decide(request(), timeout=4.0)
            assert answer.effect == pb.EFFECT_DENY
            assert answer.reasons[0].code == "engine_timeout"

    asyncio.run(main())


def test_a_cancelled_call_leaves_a_whole_entry_or_none(tmp_path: Path) -> None:
    async def main() -> None:
        engine = HangingEngine()
        async with running(tmp_path, engine) as run:
            before = (await run.reading.Head(pb.HeadRequest())).next_seq
            call = run.decisions.Decide(request())
            asked = asyncio.ensure_future(call)
            await engine.asked.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
            assert (await run.reading.Head(pb.HeadRequest())).next_seq == before

    asyncio.run(main())
    assert judged(tmp_path / "ledger").verdict.name == "UNANCHORED"


def test_many_cancelled_calls_leave_a_ledger_that_verifies(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as run:
            calls = [run.decisions.Decide(request(purpose=str(n))) for n in range(200)]
            tasks = [asyncio.ensure_future(call) for call in calls]
            await tasks[0]
            for call in calls[1::2]:
                call.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            answered = [r for r in results if isinstance(r, pb.DecideResponse)]
            assert len(answered) >= 100
            for answer in answered:
                assert (await entry(run, answer.seq))["decision_id"] == answer.decision_id

    asyncio.run(main())
    assert judged(tmp_path / "ledger").verdict.name == "UNANCHORED"


def test_health_and_reflection(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as run:
            health = health_pb2_grpc.HealthStub(run.channel)
            state = await health.Check(health_pb2.HealthCheckRequest(service="sidecar.v1.DecisionService"))
            assert state.status == health_pb2.HealthCheckResponse.SERVING
            listing = reflection_pb2.ServerReflectionRequest(list_services="")
            stream = reflection_pb2_grpc.ServerReflectionStub(run.channel).ServerReflectionInfo(iter([listing]))
            answer = await stream.read()
            names = {service.name for service in answer.list_services_response.service}
            assert {"sidecar.v1.DecisionService", "sidecar.v1.LedgerService", "grpc.health.v1.Health"} <= names
            stream.cancel()

    asyncio.run(main())
