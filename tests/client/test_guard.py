"""The synchronous guard over grpcio-testing's channel: did the action run, and what was the sidecar told?"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import subprocess
import sys

import grpc
import pytest

from sidecar.client import (
    Alternative,
    ApprovalRequired,
    Denied,
    Effect,
    Guard,
    NoDecision,
    Refused,
    Status,
    UnmetObligation,
)
from sidecar.errors import RequestError, UsageError
from sidecar.v1 import decision_pb2 as pb
from tests.client.fake_sidecar import (
    AT_ONCE,
    Abort,
    FakeSidecar,
    Said,
    allow,
    answer,
    deny,
    running_threads,
    scripted_channel,
)

ACCOUNT = ("account", "acme-42")


def guard_of(sidecar: FakeSidecar, **options) -> Guard:
    return Guard(scripted_channel(sidecar), agent="billing-agent", pace=AT_ONCE, **options)


def transfer(guard: Guard, ran: list[str], **about) -> None:
    with guard.guarded("payments.transfer", ACCOUNT, {"amount": 120}, **about):
        ran.append("transfer")


def test_allow_runs_the_action_once_and_reports_it():
    sidecar, ran = FakeSidecar(allow()), []
    transfer(guard_of(sidecar), ran)
    assert ran == ["transfer"]
    assert sidecar.outcomes == [("d-1", "EXECUTED")]
    assert sidecar.told[0].agent == "billing-agent"


def test_the_question_carries_everything_it_was_given():
    sidecar = FakeSidecar(allow(alternatives=[pb.AlternativeVerdict(effect=pb.EFFECT_ALLOW)]))
    guard_of(sidecar).check(
        "payments.transfer",
        ACCOUNT,
        {"amount": 120, "to": "Zoë"},
        context={"hour": 9},
        purpose="pay the invoice",
        alternatives=[Alternative("payments.draft", ("draft", "new"), {"amount": 120})],
        idempotency_key="k-1",
        trace_parent="00-" + "a" * 32 + "-" + "b" * 16 + "-01",
    )
    assert sidecar.asked == [
        pb.DecideRequest(
            agent="billing-agent",
            action="payments.transfer",
            resource=pb.Resource(type="account", id="acme-42"),
            arguments='{"amount":120,"to":"Zoë"}'.encode(),
            context=b'{"hour":9}',
            purpose="pay the invoice",
            alternatives=[
                pb.Alternative(
                    action="payments.draft",
                    resource=pb.Resource(type="draft", id="new"),
                    arguments=b'{"amount":120}',
                )
            ],
            idempotency_key="k-1",
            trace_parent="00-" + "a" * 32 + "-" + "b" * 16 + "-01",
        )
    ]


def test_a_decision_is_the_whole_answer():
    policy = pb.PolicyVersion(
        engine="wasm", engine_version="1", entrypoint="agents/decision", revision="r1", bundle_digest="ab"
    )
    sidecar = FakeSidecar(allow("d-9", policy=policy, agent_proof="asserted", reasons=[pb.Reason(code="scope")]))
    decision = guard_of(sidecar).check("mail.read", ("mailbox", "1"))
    assert decision.decision_id == "d-9"
    assert decision.effect is Effect.ALLOW
    assert decision.policy.revision == "r1"
    assert (decision.seq, decision.receipt, decision.agent_proof) == (7, sidecar.given[0], "asserted")
    assert [r.code for r in decision.reasons] == ["scope"]
    assert sidecar.outcomes == []


def test_deny_does_not_run_and_says_why_in_one_line():
    verdicts = [
        pb.AlternativeVerdict(effect=pb.EFFECT_ALLOW),
        pb.AlternativeVerdict(effect=99, reasons=[pb.Reason(code="no_scope")]),
    ]
    sidecar, ran = FakeSidecar(deny(alternatives=verdicts)), []
    offered = [Alternative("payments.draft", ("draft", "new")), Alternative("payments.split", ACCOUNT)]
    with pytest.raises(Denied) as caught:
        transfer(guard_of(sidecar), ran, alternatives=offered)
    assert ran == []
    assert sidecar.outcomes == []
    denied = caught.value
    assert str(denied) == (
        "denied: payments.transfer: amount_over_limit (120 is over the limit of 100); "
        "allowed instead: payments.draft (decision d-1)"
    )
    assert denied.decision_id == "d-1"
    assert [(r.code, r.message) for r in denied.reasons] == [("amount_over_limit", "120 is over\nthe limit of 100")]
    assert [(a.alternative, a.effect) for a in denied.alternatives] == [
        (offered[0], Effect.ALLOW),
        (offered[1], Effect.DENY),  # an effect this client does not know
    ]


def test_approval_required_does_not_run():
    sidecar, ran = FakeSidecar(answer(pb.EFFECT_REQUIRE_APPROVAL)), []
    with pytest.raises(ApprovalRequired, match=r"^approval required: payments\.transfer"):
        transfer(guard_of(sidecar), ran)
    assert ran == []
    assert sidecar.outcomes == []


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (Abort(grpc.StatusCode.DEADLINE_EXCEEDED), "timeout"),
        (Abort(grpc.StatusCode.UNAVAILABLE), "unreachable"),
        (Abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the ledger is full"), "refused"),
        (Abort(grpc.StatusCode.INVALID_ARGUMENT, "arguments: duplicate key"), "refused"),
        (Abort(grpc.StatusCode.UNAUTHENTICATED), "refused"),
        (Abort(grpc.StatusCode.UNIMPLEMENTED), "protocol"),
        (Abort(grpc.StatusCode.FAILED_PRECONDITION), "refused"),
        (Abort(grpc.StatusCode.PERMISSION_DENIED), "refused"),
        (Abort(grpc.StatusCode.INTERNAL), "protocol"),
        (Said(pb.DecideResponse()), "protocol"),
        (answer(pb.EFFECT_UNSPECIFIED), "protocol"),
        (answer(99), "protocol"),
        (allow(""), "protocol"),
        (allow(spoil=lambda _: b""), "protocol"),
        (allow(alternatives=[pb.AlternativeVerdict(effect=pb.EFFECT_ALLOW)]), "protocol"),
        (allow(obligations=[pb.Obligation(kind="mask", parameters=b"[1]")]), "protocol"),
        (allow(obligations=[pb.Obligation(kind="mask", parameters=b"{")]), "protocol"),
    ],
)
def test_no_usable_answer_does_not_run(fault, cause):
    sidecar, ran = FakeSidecar(*[fault] * 4), []
    with pytest.raises(NoDecision) as caught:
        transfer(guard_of(sidecar), ran)
    assert ran == []
    assert sidecar.outcomes == []
    assert len(sidecar.asked) == (4 if cause in ("timeout", "unreachable") else 1)
    assert caught.value.cause == cause
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("no decision: ")
    if isinstance(fault, Abort) and cause != "timeout":
        assert fault.details in str(caught.value)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda good: good.replace(b"effect ALLOW\n", b"effect DENY\n"),
        lambda good: good.replace(b"decision d-1\n", b"decision d-2\n"),
        lambda good: good.replace(b"\nrequest ", b"\nrequest 00"),
        lambda good: good.replace(good[good.index(b"\nrequest ") + 9 :][:64], b"00" * 32),
        lambda good: good.replace(b"\nseq 7\n", b"\nseq 8\n"),
        lambda good: good.replace(b"\nseq 7\n", b"\n"),
        lambda good: good.replace(b"effect ALLOW\n", b""),
        lambda good: good.replace(b"decision d-1\n", b""),
        lambda good: good.replace(b"effect ALLOW\n", b"effect ALLOW\neffect DENY\n"),
        lambda good: good.replace(b"effect ALLOW\n", b"effect ALLOW\neffect ALLOW\n"),
        lambda good: good.replace(b"effect ALLOW\n", b"effect ALLOW \n"),
        lambda good: good.replace(b"effect ALLOW\n", b"effect  ALLOW\n"),
        lambda good: good.replace(b"decision d-1\n", b"decision d-1\r\n"),
        lambda good: good.partition(b"\n\n")[0] + b"\n",  # no signature
        lambda good: b"chain 00\n\n" + good.partition(b"\n\n")[0],  # the lines stand where signatures belong
    ],
)
def test_an_answer_its_receipt_contradicts_is_no_answer_but_evidence(spoil):
    sidecar, ran = FakeSidecar(allow(spoil=spoil), allow("d-3")), []
    guard = guard_of(sidecar)
    with pytest.raises(NoDecision, match="answer and receipt disagree") as caught:
        transfer(guard, ran)
    assert ran == []
    bad, sent = sidecar.given[0], sidecar.asked[0]
    assert caught.value.receipt == bad
    assert bad != Said(allow().response).to(sent, 7).receipt
    transfer(guard, ran)
    assert sidecar.asked[1].last_receipt == b""


def says_allow(receipt: bytes) -> bytes:
    return receipt.replace(b"effect DENY\n", b"effect ALLOW\n")


def test_a_deny_whose_receipt_says_allow_is_no_answer():
    with pytest.raises(NoDecision, match="disagree"):
        guard_of(FakeSidecar(deny(spoil=says_allow))).check("a", ACCOUNT)


def test_each_question_carries_the_receipt_of_the_answer_before():
    sidecar = FakeSidecar(allow("d-1"), deny("d-2"), allow("d-3"))
    guard = guard_of(sidecar)
    guard.check("a", ACCOUNT)
    with pytest.raises(Denied):
        guard.check("a", ACCOUNT)
    transfer(guard, [])
    with pytest.raises(NoDecision):
        guard.check("a", ACCOUNT)
    assert [q.last_receipt for q in sidecar.asked] == [
        b"",
        sidecar.given[0],
        sidecar.given[1],
        sidecar.given[3],  # of the outcome
    ]
    assert len({*sidecar.given}) == 4


@pytest.mark.parametrize("error", [ValueError("downstream said no"), KeyboardInterrupt(), SystemExit(3)])
def test_an_action_that_fails_is_reported_and_its_error_goes_on(error):
    sidecar = FakeSidecar(allow())
    with pytest.raises(type(error)) as caught, guard_of(sidecar).guarded("a", ACCOUNT):
        raise error
    assert caught.value is error
    assert sidecar.outcomes == [("d-1", "FAILED")]


def test_a_response_is_attached_to_the_outcome():
    sidecar = FakeSidecar(allow())
    with guard_of(sidecar).guarded("a", ACCOUNT) as permit:
        assert permit.decision.decision_id == "d-1"
        permit.respond({"transaction": "t-7"})
    assert json.loads(sidecar.told[0].response) == {"transaction": "t-7"}


def test_a_response_that_is_no_json_is_left_out_and_the_action_stands(caplog):
    sidecar = FakeSidecar(allow())
    with guard_of(sidecar).guarded("a", ACCOUNT) as permit:
        permit.respond({"secret": float("nan")})
    assert sidecar.outcomes == [("d-1", "EXECUTED")]
    assert sidecar.told[0].response == b""
    assert "left out" in caplog.text
    assert "secret" not in caplog.text


def test_an_outcome_that_cannot_be_reported_is_seen_but_the_result_is_returned(caplog):
    sidecar, lost = FakeSidecar(allow(), report_fault=Abort(grpc.StatusCode.UNAVAILABLE, "gone")), []
    guard = guard_of(sidecar, on_unreported=lost.append)

    @guard.guarded("payments.transfer", ACCOUNT)
    def pay(amount: int) -> str:
        return f"paid {amount}"

    assert guard.unreported == 0
    with caplog.at_level(logging.WARNING, "sidecar.client"):
        assert pay(120) == "paid 120"
    assert guard.unreported == 1
    assert [(u.decision_id, u.status) for u in lost] == [("d-1", Status.EXECUTED)]
    assert "gone" in lost[0].cause
    assert "decision d-1: outcome EXECUTED not reported" in caplog.text


def test_a_callback_that_raises_does_not_hide_the_result(caplog):
    sidecar = FakeSidecar(allow(), report_fault=Abort(grpc.StatusCode.UNAVAILABLE))

    def broken(_lost: object) -> None:
        raise RuntimeError("callback")

    guard = guard_of(sidecar, on_unreported=broken)
    assert guard.guarded("a", ACCOUNT)(lambda: "done")() == "done"
    assert guard.unreported == 1
    assert "on_unreported failed" in caplog.text


def test_an_unreported_failure_does_not_hide_the_actions_error():
    sidecar = FakeSidecar(allow(), report_fault=Abort(grpc.StatusCode.INTERNAL))
    guard = guard_of(sidecar)
    with pytest.raises(OverflowError), guard.guarded("a", ACCOUNT):
        raise OverflowError
    assert guard.unreported == 1


MASK = pb.Obligation(kind="mask_fields", parameters=b'{"fields":["iban"]}')


def test_a_known_obligation_is_met_before_the_action():
    sidecar, order = FakeSidecar(allow(obligations=[MASK])), []

    def mask(obligation, decision):
        order.append((obligation.kind, obligation.parameters, decision.decision_id))

    with guard_of(sidecar, obligations={"mask_fields": mask}).guarded("a", ACCOUNT):
        order.append("action")
    assert order == [("mask_fields", {"fields": ["iban"]}, "d-1"), "action"]
    assert sidecar.outcomes == [("d-1", "EXECUTED")]


def test_an_unknown_obligation_blocks_before_any_is_met():
    sidecar = FakeSidecar(allow(obligations=[MASK, pb.Obligation(kind="notify")]))
    met, ran = [], []
    guard = guard_of(sidecar, obligations={"mask_fields": lambda *_: met.append(1)})
    with pytest.raises(UnmetObligation, match=r"^blocked: payments\.transfer: the obligation notify is not known"):
        transfer(guard, ran)
    assert (met, ran) == ([], [])
    assert sidecar.outcomes == [("d-1", "BLOCKED")]


@pytest.mark.parametrize("error", [RuntimeError("iban DE00"), KeyboardInterrupt()])
def test_an_obligation_that_is_not_met_blocks(error):
    def handler(*_):
        raise error

    sidecar, ran = FakeSidecar(allow(obligations=[MASK])), []
    expected = UnmetObligation if isinstance(error, Exception) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        transfer(guard_of(sidecar, obligations={"mask_fields": handler}), ran)
    assert ran == []
    assert "DE00" not in str(caught.value)
    assert sidecar.outcomes == [("d-1", "BLOCKED")]


def test_check_blocks_on_an_unknown_obligation_too():
    sidecar = FakeSidecar(allow(obligations=[MASK]))
    with pytest.raises(UnmetObligation) as caught:
        guard_of(sidecar).check("a", ACCOUNT)
    assert isinstance(caught.value, Refused)
    assert caught.value.obligation.kind == "mask_fields"
    assert sidecar.outcomes == [("d-1", "BLOCKED")]


class Bank:
    def __init__(self, guard: Guard) -> None:
        self.paid: list[int] = []
        self.pay = guard.guarded("payments.transfer", resource=lambda amount, to, memo="": ("account", to))(self._pay)

    def _pay(self, amount: int, to: str, memo: str = "none") -> int:
        self.paid.append(amount)
        return amount


def test_a_decorated_action_is_judged_by_its_own_arguments():
    sidecar = FakeSidecar(allow("d-1"), deny("d-2"))
    bank = Bank(guard_of(sidecar))
    assert bank.pay(5, to="acme") == 5
    with pytest.raises(Denied):
        bank.pay(6, "evil", memo="x")
    assert bank.paid == [5]
    assert sidecar.outcomes == [("d-1", "EXECUTED")]
    assert [(q.resource.id, json.loads(q.arguments)) for q in sidecar.asked] == [
        ("acme", {"amount": 5, "to": "acme", "memo": "none"}),
        ("evil", {"amount": 6, "to": "evil", "memo": "x"}),
    ]


def test_a_decorated_method_keeps_its_object_out_of_the_question():
    sidecar = FakeSidecar(allow(), allow())
    guard = guard_of(sidecar)

    class Account:
        @guard.guarded("close", resource=lambda self, reason: ("account", self.id))
        def close(self, reason: str) -> str:
            """Closes."""
            return self.id

        id = "a-1"

    assert Account().close("old") == "a-1"
    assert Account.close.__doc__ == "Closes."
    assert sidecar.asked[0].resource.id == "a-1"
    assert json.loads(sidecar.asked[0].arguments) == {"reason": "old"}


def test_arguments_of_a_decorated_action_may_be_chosen():
    sidecar = FakeSidecar(allow(), allow())
    guard = guard_of(sidecar)
    guard.guarded("a", ACCOUNT, lambda blob: {"size": len(blob)})(lambda blob: None)(b"12345")
    guard.guarded("a", ACCOUNT, {"fixed": True})(lambda blob: None)(b"12345")
    assert [json.loads(q.arguments) for q in sidecar.asked] == [{"size": 5}, {"fixed": True}]


@pytest.mark.parametrize(
    "arguments",
    [{"x": float("nan")}, {"x": float("inf")}, {"x": object()}, {"x": "\ud800"}, ["secret"], "secret", []],
    ids=["nan", "infinity", "object", "surrogate", "list", "text", "empty list"],
)
def test_arguments_that_are_no_json_object_are_never_sent(arguments):
    sidecar, ran = FakeSidecar(allow()), []
    with (
        pytest.raises(RequestError, match=r"^arguments: ") as caught,
        guard_of(sidecar).guarded("a", ACCOUNT, arguments),
    ):
        ran.append(1)
    assert (ran, sidecar.asked) == ([], [])
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("resource", ["ab", ("account",), ("account", 7), None, ("account", "\ud800")], ids=repr)
def test_a_resource_that_is_no_pair_is_never_sent(resource):
    sidecar = FakeSidecar(allow())
    with pytest.raises(RequestError, match=r"^resource: "):
        guard_of(sidecar).check("a", resource)
    assert sidecar.asked == []


def test_what_cannot_be_guarded_is_refused_when_decorated():
    guard = guard_of(FakeSidecar())

    async def later(amount: int = 0) -> None: ...

    def some():
        yield 1

    class Later:
        async def __call__(self, amount: int) -> None: ...

    class Some:
        def __call__(self):
            yield 1

    for each in (later, functools.partial(later), Later(), functools.partial(functools.partial(Later()), amount=1)):
        with pytest.raises(UsageError, match="AsyncGuard"):
            guard.guarded("a", ACCOUNT)(each)
    for each in (some, functools.partial(some), Some()):
        with pytest.raises(UsageError, match="generator"):
            guard.guarded("a", ACCOUNT)(each)
    with pytest.raises(UsageError, match="idempotency_key"):
        guard.guarded("a", ACCOUNT, idempotency_key="k")(lambda: None)


def test_what_a_partial_gives_by_position_is_seen_by_no_policy():
    """So it is refused; by name, or where the arguments are said, it is seen."""
    sidecar, ran = FakeSidecar(allow(), allow()), []

    def pay(amount: int, to: str) -> None:
        ran.append((amount, to))

    guard = guard_of(sidecar)
    with pytest.raises(UsageError, match="by position"):
        guard.guarded("a", ACCOUNT)(functools.partial(pay, 1))
    guard.guarded("a", ACCOUNT)(functools.partial(pay, amount=1))(to="x")
    guard.guarded("a", ACCOUNT, lambda to: {"amount": 2, "to": to})(functools.partial(pay, 2))("y")
    assert ran == [(1, "x"), (2, "y")]
    assert [json.loads(q.arguments) for q in sidecar.asked] == [{"amount": 1, "to": "x"}, {"amount": 2, "to": "y"}]


def test_a_coroutine_function_in_disguise_is_not_reported_as_executed():
    """The function itself has run, so FAILED it is; the outcome says what of it has not."""
    sidecar, ran = FakeSidecar(allow()), []

    async def later() -> None:
        ran.append(1)

    with pytest.raises(UsageError, match="AsyncGuard"):
        guard_of(sidecar).guarded("a", ACCOUNT)(lambda: later())()
    assert ran == []
    assert sidecar.outcomes == [("d-1", "FAILED")]
    assert json.loads(sidecar.told[0].response) == {"error": "returned an awaitable, which nobody awaits here"}


def test_a_task_that_an_action_returns_is_cancelled_and_not_reported_as_executed():
    sidecar, ran = FakeSidecar(allow()), []

    async def later() -> None:
        ran.append(1)

    async def scenario() -> None:
        with pytest.raises(UsageError, match="AsyncGuard"):
            guard_of(sidecar).guarded("a", ACCOUNT)(lambda: asyncio.ensure_future(later()))()
        await asyncio.sleep(0)

    asyncio.run(scenario())
    assert ran == []
    assert sidecar.outcomes == [("d-1", "FAILED")]


def test_a_permit_is_for_one_run():
    sidecar, ran = FakeSidecar(allow(), allow()), []
    once = guard_of(sidecar).guarded("a", ACCOUNT)
    with once:
        ran.append(1)
    with pytest.raises(UsageError, match="one run"), once:
        ran.append(2)
    assert ran == [1]


def test_functions_of_a_call_need_a_call():
    with (
        pytest.raises(UsageError, match="values, not functions"),
        guard_of(FakeSidecar(allow())).guarded("a", lambda x: ACCOUNT),
    ):
        raise AssertionError("the body ran")


@pytest.mark.parametrize(
    "address",
    ["", "/run/sidecar.sock", "unix:", "localhost", "localhost:0", "h:65536", "dns:///h:1", "h:1\n"],
)
def test_a_bad_address_is_refused(address):
    with pytest.raises(UsageError, match="neither unix:/path nor host:port"):
        Guard(address, agent="a")


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
def test_a_bad_timeout_is_refused(timeout):
    with pytest.raises(UsageError, match="above 0"):
        Guard("localhost:1", agent="a", timeout=timeout)


def test_no_sidecar_does_not_run(tmp_path):
    ran: list[str] = []
    with Guard(f"unix:{tmp_path}/none.sock", agent="a", timeout=30, attempts=1) as guard:
        with pytest.raises(NoDecision) as caught:
            transfer(guard, ran)
        assert caught.value.cause == "unreachable"
        assert f"{tmp_path}/none.sock" in str(caught.value)
    with pytest.raises(NoDecision) as caught:
        transfer(guard, ran)  # closed
    assert caught.value.cause == "unreachable"
    assert ran == []


def test_over_a_real_socket(tmp_path):
    sidecar, ran = FakeSidecar(allow("d-1"), deny("d-2"), Abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")), []
    with running_threads(sidecar, tmp_path) as address, Guard(address, agent="billing-agent", timeout=30) as guard:
        transfer(guard, ran)
        with pytest.raises(Denied):
            transfer(guard, ran)
        with pytest.raises(NoDecision, match="RESOURCE_EXHAUSTED: full"):
            transfer(guard, ran)
    assert ran == ["transfer"]
    assert sidecar.outcomes == [("d-1", "EXECUTED")]
    assert sidecar.asked[1].last_receipt == sidecar.given[1]
    assert len(sidecar.deadlines) == 4
    assert all(left is not None and left < 31 for left in sidecar.deadlines)


def test_the_client_is_cheap_to_import():
    heavy = ["cryptography", "lmdb", "orjson", "wasmtime", "aiohttp", "uvloop", "click", "opa_client"]
    script = f"import sys, sidecar.client; print([m for m in {heavy} if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"


def test_the_permit_is_handed_on_and_the_executor_reports():
    sidecar = FakeSidecar(allow(permit=b"a permit"), allow(permit=b"another"))
    guard = guard_of(sidecar)
    with guard.guarded("payments.transfer", ACCOUNT, {"amount": 120}, executor="payments-api") as permit:
        decision = permit.decision
    with pytest.raises(ZeroDivisionError):
        transfer_that_fails(guard)
    assert (decision.executor, decision.permit, decision.arguments) == ("payments-api", b"a permit", b'{"amount":120}')
    assert [asked.executor for asked in sidecar.asked] == ["payments-api", "payments-api"]
    assert sidecar.told == [] and guard.unreported == 0


def transfer_that_fails(guard: Guard) -> None:
    with guard.guarded("payments.transfer", ACCOUNT, {"amount": 120}, executor="payments-api"):
        raise ZeroDivisionError


def test_an_unmet_obligation_is_not_reported_in_the_executors_place():
    said = allow(permit=b"a permit", obligations=[pb.Obligation(kind="mask")])
    sidecar, ran = FakeSidecar(said), []
    with pytest.raises(UnmetObligation):
        transfer(guard_of(sidecar), ran, executor="payments-api")
    assert ran == [] and sidecar.told == []


def test_an_allow_without_the_permit_that_was_asked_for_is_none():
    sidecar, ran = FakeSidecar(allow()), []
    with pytest.raises(NoDecision, match="no permit"):
        transfer(guard_of(sidecar), ran, executor="payments-api")
    assert ran == []
    denied = FakeSidecar(deny())
    with pytest.raises(Denied):
        transfer(guard_of(denied), ran, executor="payments-api")
