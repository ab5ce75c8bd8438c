"""Agent, executor and auditor with the real program: a permit is handed on, checked offline, acted on, reported."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.chain.permit import Permit
from sidecar.client import AgentKey, Guard, NoDecision, Status, UnreportedOutcome
from sidecar.client.act import Act
from sidecar.client.permits import PermitCheck, PermitRefused
from sidecar.client.reporter import AsyncReporter, Reporter
from sidecar.errors import UsageError
from tests.program import Serving, made, serving, sidecar

CUSTOMER = ("customer", "acme-42")


class Place:
    """A ledger, a registry, the keys of an agent and an executor, and a sidecar that believes signatures alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ledger, self.auditor = made(path)
        self.registry = path / "registry.json"
        for name, kind in (("billing-agent", "agent"), ("crm-api", "executor")):
            assert sidecar("keys", "agent", "--out", path / f"{name}.pem").returncode == 0
            added = sidecar(
                "agents", "add", "--registry", self.registry, "--kind", kind, "--key", path / f"{name}.pub.pem", name
            )
            assert added.returncode == 0, added.stderr
        shown = json.loads(sidecar("show", self.ledger, "--seq", "0", "--json").stdout)
        self.identity = str(shown["payload"]["identity"])
        self.chain = ""
        self.server: Serving | None = None

    def key(self, name: str) -> AgentKey:
        return AgentKey.from_file(self.path / f"{name}.pem")

    def serve(self, **more: str) -> Any:
        return serving(self.ledger, dev=False, SIDECAR_REGISTRY=str(self.registry), **more)

    def reporter(self, address: str, **changed: Any) -> Reporter:
        given: dict[str, Any] = {
            "executor": "crm-api",
            "key": self.key("crm-api"),
            "chain": self.chain,
            "timeout": 20.0,
        }
        return Reporter(address, **(given | changed))

    def permits(self) -> PermitCheck:
        return PermitCheck(chain=self.chain, identity=self.identity, executor="crm-api")

    def told(self, kind: str) -> list[dict[str, Any]]:
        lines = map(json.loads, sidecar("show", self.ledger, "--json").stdout.splitlines())
        return [line["payload"] for line in lines if line["payload"]["type"] == kind]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made_here = Place(tmp_path_factory.mktemp("place"))
    with made_here.serve() as server:
        made_here.server = server
        yield made_here


def ask(place: Place, guard: Guard, action: str = "crm.read") -> Permit:
    """The agent asks, and brings permit and arguments to the executor, which takes them."""
    with guard.guarded(action, CUSTOMER, {"fields": ["name"]}, executor="crm-api") as leave:
        brought, arguments = leave.decision.permit, leave.decision.arguments
        place.chain = place.chain or _chain(leave.decision.receipt)
    permits = place.permits()
    taken = permits.check(brought, action, CUSTOMER, arguments)
    with pytest.raises(PermitRefused):
        permits.check(brought, action, CUSTOMER, arguments)
    return taken


def _chain(receipt: bytes) -> str:
    return receipt.split(b"\nchain ")[1][:64].decode()


def guard_of(place: Place, address: str) -> Guard:
    return Guard(address, agent="billing-agent", key=place.key("billing-agent"), timeout=20.0)


def of(place: Place, permit: Permit) -> list[dict[str, Any]]:
    return [p for p in place.told("OUTCOME") if p["decision_id"] == permit.decision_id]


def test_an_executor_acts_once_and_reports_with_its_own_key(place: Place) -> None:
    assert place.server is not None
    with guard_of(place, place.server.address) as guard:
        permit = ask(place, guard)
    with place.reporter(place.server.address) as reporter, reporter.acting(permit) as act:
        act.respond({"name": "Acme GmbH"}, status="200")
    (outcome,) = of(place, permit)
    assert (outcome["by"]["id"], outcome["by"]["proof"], outcome["status"]) == ("crm-api", "signature", "executed")
    assert (json.loads(outcome["response"]), outcome["downstream_status"]) == ({"name": "Acme GmbH"}, "200")
    assert int(outcome["duration_ns"]) > 0 and reporter.unreported == 0


def test_a_shell_names_an_executor_and_hands_the_permit_on(place: Place) -> None:
    assert place.server is not None
    about = ["--server", place.server.address, "--agent", "billing-agent", "--key", place.path / "billing-agent.pem"]
    what = ["--action", "crm.read", "--resource", "customer:acme-42", "--arguments", '{"fields":["name"]}']
    kept = place.path / "permit"
    unknown = sidecar("decide", *about, *what, "--executor", "nobody", "--permit-out", kept)
    assert unknown.returncode == 1 and "executor" in unknown.stderr and not kept.exists()
    assert sidecar("decide", *about, *what, "--permit-out", kept).returncode == 0
    assert not kept.exists()  # without an executor there is no permit
    allowed = sidecar("decide", *about, *what, "--executor", "crm-api", "--permit-out", kept, "--json")
    assert allowed.returncode == 0, allowed.stderr
    place.chain = _chain(json.loads(allowed.stdout)["receipt"].encode())
    taken = place.permits().check(kept.read_bytes(), "crm.read", CUSTOMER, b'{"fields":["name"]}')
    assert taken.decision_id == json.loads(allowed.stdout)["decision_id"]


def test_what_raises_has_failed_what_is_blocked_was_not_begun_and_a_digest_hides_the_answer(place: Place) -> None:
    assert place.server is not None
    with guard_of(place, place.server.address) as guard:
        failing, blocked, hidden = (ask(place, guard) for _ in range(3))
    with place.reporter(place.server.address) as reporter:
        with pytest.raises(ZeroDivisionError), reporter.acting(failing):
            raise ZeroDivisionError
        reporter.blocked(blocked)
        with reporter.acting(hidden) as act:
            act.respond({"iban": "s3cr3t"}, status="OK", digest_only=True)
        assert reporter.unreported == 0
    assert [of(place, p)[0]["status"] for p in (failing, blocked, hidden)] == ["failed", "blocked", "executed"]
    assert of(place, blocked)[0]["started_ns"] == ""
    assert of(place, hidden)[0]["response"] is None and of(place, hidden)[0]["response_digest"]


def test_on_asyncio_it_is_the_same(place: Place) -> None:
    assert place.server is not None
    with guard_of(place, place.server.address) as guard:
        done, cancelled, blocked = (ask(place, guard) for _ in range(3))
    address = place.server.address

    async def main() -> None:
        key = place.key("crm-api")
        async with AsyncReporter(address, executor="crm-api", key=key, chain=place.chain, timeout=20.0) as reporter:
            async with reporter.acting(done) as act:
                act.respond(3)
            with pytest.raises(asyncio.CancelledError):
                async with reporter.acting(cancelled):
                    raise asyncio.CancelledError
            await reporter.blocked(blocked)
            assert reporter.unreported == 0

    asyncio.run(main())
    assert [of(place, p)[0]["status"] for p in (done, cancelled, blocked)] == ["executed", "failed", "blocked"]


def test_what_is_not_taken_is_told_and_the_result_goes_its_way(place: Place) -> None:
    assert place.server is not None
    with guard_of(place, place.server.address) as guard:
        permit = ask(place, guard)
    lost: list[UnreportedOutcome] = []
    with place.reporter(place.server.address, on_unreported=lost.append) as reporter:
        for answer in (1, 2):
            with reporter.acting(permit) as act:  # the second time it must not have acted, and that is recorded
                act.respond(answer)
        assert (reporter.unreported, lost[0].decision_id) == (1, permit.decision_id)
        assert "has another one already" in lost[0].cause
        with pytest.raises(NoDecision):
            reporter.report(Act(permit), Status.EXECUTED)
    other = "11" * 32
    with place.reporter(place.server.address, chain=other) as reporter, reporter.acting(permit):
        pass
    assert reporter.unreported == 1
    found = sidecar("show", place.ledger, "--outcomes").stdout
    assert "second outcome" in found and "crm-api: outcome: the decision has another one already" in found


def test_a_chain_that_is_none_is_refused_at_once(place: Place) -> None:
    with pytest.raises(UsageError):
        place.reporter("unix:/nowhere", chain="no chain")


def test_it_waits_for_a_sidecar_that_starts_again_and_the_ledger_verifies(tmp_path: Path) -> None:
    place = Place(tmp_path)
    with place.serve(SIDECAR_PERMIT_SECONDS="3600") as server:
        with guard_of(place, server.address) as guard:
            permit, second = ask(place, guard), ask(place, guard)
        assert 3_000 < (permit.not_after - time.time_ns()) / 1e9 <= 3_600
        reporter = place.reporter(server.address)
        with reporter.acting(permit):
            pass
        server.stop(signal.SIGKILL)
    with place.reporter(server.address, timeout=1.0) as hasty:
        with hasty.acting(second) as act:
            pass  # nobody is there
        assert hasty.unreported == 1
    with place.serve() as server:
        seq = reporter.report(act, Status.EXECUTED)  # for the epoch that has begun
        assert reporter.report(act, Status.EXECUTED) == seq  # the very same again
        assert server.stop() == 0
    reporter.close()
    assert [p["status"] for p in place.told("OUTCOME")] == ["executed", "executed"]
    report = json.loads(sidecar("verify", place.ledger, "--custodian-key", place.auditor, "--json").stdout)
    assert (report["verdict"], report["decisions"]["signed"]) == ("UNANCHORED", 2), report["findings"]
    lines = sidecar("show", place.ledger, "--outcomes").stdout.splitlines()
    assert lines[-1].startswith("allow without outcome: 0, outcome without allow: 0, changed arguments: 0")


def test_where_nobody_is_the_outcome_is_told_and_nothing_raises(tmp_path: Path) -> None:
    lost: list[UnreportedOutcome] = []
    with Reporter(
        f"unix:{tmp_path}/nobody.sock", executor="crm-api", key=None, chain="11" * 32, timeout=1.0, attempts=1,
        on_unreported=lost.append,
    ) as reporter:  # fmt: skip
        with reporter.acting(Permit(b"c" * 32, "d-1", 1, "a", "crm-api", bytes(32), bytes(32), 1)) as act:
            act.respond(object())  # not JSON: left out
        assert (reporter.unreported, lost[0].decision_id, lost[0].status) == (1, "d-1", Status.EXECUTED)
