"""`sidecar approvals`, `keys delegate` and `decide --approval-of`, against the real program and the starter policy."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

from tests.cli.test_agents import agents, key_of, verified
from tests.program import BIN, environment, made, serving, sidecar

LARGE = (
    "--action",
    "payments.transfer",
    "--resource",
    "account:acct-17",
    "--arguments",
    '{"amount":12000,"currency":"EUR"}',
)


def people(place: Path) -> Path:
    """A registry of an agent, its user and three approvers, and a key of each beside it."""
    registry = place / "registry.json"
    for name, kind, role in (
        ("billing-agent", "agent", "finance"),
        ("ursula", "user", "finance"),
        ("sam", "user", "support"),
        ("ann", "approver", "finance-lead"),
        ("bob", "approver", "finance-lead"),
        ("cleo", "approver", "intern"),
    ):
        key_of(place, name)
        agents(registry, "add", "--kind", kind, "--key", place / f"{name}.pub.pem", "--role", role, name)
    return registry


def test_two_leads_approve_a_large_transfer(tmp_path: Path) -> None:
    ledger, auditor = made(tmp_path)
    registry = people(tmp_path)
    with serving(ledger, dev=False, SIDECAR_REGISTRY=str(registry)) as server:

        def decide(*more: str | Path) -> tuple[int, dict[str, object]]:
            about = ("--server", server.address, "--agent", "billing-agent", "--key", tmp_path / "billing-agent.pem")
            done = sidecar("decide", *about, *LARGE, "--json", *more)
            return done.returncode, json.loads(done.stdout or "{}")

        def approvals(command: str, by: str, *more: str) -> subprocess.CompletedProcess[str]:
            return sidecar(
                "approvals", command, "--server", server.address, "--by", by, "--key", tmp_path / f"{by}.pem", *more
            )

        code, asked = decide("--purpose", "invoice 7")
        assert (code, asked["effect"]) == (1, "REQUIRE_APPROVAL")
        name = str(asked["decision_id"])
        terms = asked["approval"]
        assert isinstance(terms, dict) and (terms["count"], terms["roles"]) == (2, ["finance-lead"])

        shown = approvals("list", "ann").stdout
        for said in (name, "account:acct-17", '"amount":12000', "invoice 7", "takes 2 of the approvers", "nobody yet"):
            assert said in shown
        assert "nothing waits" in approvals("list", "cleo").stdout

        unasked = approvals("approve", "ann", name)
        assert unasked.returncode == 2 and "--yes" in unasked.stderr
        assert '"amount":12000' in unasked.stdout  # shown whole before anything is signed
        foreign = approvals("approve", "cleo", name, "--yes")
        assert foreign.returncode == 2 and "does not wait for cleo" in foreign.stderr

        first = approvals("approve", "ann", name, "--yes", "--comment", "seen")
        assert first.returncode == 0 and "it is pending now" in first.stdout
        assert decide("--approval-of", name)[0] == 1
        second = json.loads(approvals("approve", "bob", name, "--yes", "--json").stdout)
        assert second == {"decision_id": name, "verdict": "approve", "by": "bob", "state": "approved"}
        code, final = decide("--approval-of", name, "--purpose", "invoice 7")
        assert (code, final["effect"]) == (0, "ALLOW")
        assert decide("--approval-of", name, "--purpose", "invoice 7")[0] == 1  # it was used

        _, other = decide()
        rejected = approvals("reject", "bob", str(other["decision_id"]), "--yes", "--comment", "no")
        assert rejected.returncode == 0 and "it is rejected now" in rejected.stdout
        assert json.loads(approvals("list", "bob", "--json").stdout) == {"pending": [], "more": False}
        assert server.stop() == 0
    told = sidecar("show", ledger).stdout
    assert "approve by ann (signature, key " in told
    assert "approved by ann, bob (decision at seq " in told
    assert verified(ledger, auditor)["signed"] == 3


def test_an_auditor_reads_who_asked_for_whom_who_approved_and_who_was_to_do_it(tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    registry = people(tmp_path)
    key_of(tmp_path, "bank")
    agents(registry, "add", "--kind", "executor", "--key", tmp_path / "bank.pub.pem", "bank")
    leave = tmp_path / "leave.json"
    given = ("--from", "ursula", "--to", "billing-agent", "--action", "payments.*", "--resource", "account:*")
    assert sidecar("keys", "delegate", "--key", tmp_path / "ursula.pem", *given, "--out", leave).returncode == 0
    with serving(ledger, dev=False, SIDECAR_REGISTRY=str(registry)) as server:
        who = ("--server", server.address, "--agent", "billing-agent", "--key", tmp_path / "billing-agent.pem")
        ask = ("decide", *who, *LARGE, "--delegation", leave, "--executor", "bank", "--json")
        name = json.loads(sidecar(*ask).stdout)["decision_id"]
        for by in ("ann", "bob"):
            about = ("--server", server.address, "--by", by, "--key", tmp_path / f"{by}.pem", "--yes")
            assert sidecar("approvals", "approve", *about, name).returncode == 0
        assert sidecar(*ask, "--approval-of", name).returncode == 0
        assert server.stop() == 0
    time, some_key = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "[0-9a-f]{16}…"
    told = sidecar("show", ledger, "--decision", name).stdout  # and what was asked under its approvals
    asked, _, final = told.partition("  DECISION  ALLOW ")
    for part in (asked, final):
        for said in (
            f"asked by billing-agent with the role finance, who signed it at {time} with key {some_key}",
            r"on behalf of ursula \(user with the role finance\), who gave billing-agent leave for "
            rf"payments\.\* on account:\* until {time}, with key {some_key}",
        ):
            assert re.search(f"^          {said}$", part, re.MULTILINE), (said, part)
    assert "to be carried out by bank had it been allowed\n" in asked
    assert re.search(rf"waits for 2 of the approvers with the role finance-lead, until {time}\n", asked)
    assert re.search(rf"to be carried out by bank under a permit for what begins before {time}\n", final)
    assert re.search(r"asked again under the decision at seq \d+\n", final)
    for by in ("ann", "bob"):
        assert re.search(rf"approved by {by} with the role finance-lead, who signed it at {time} \(seq \d+\)\n", final)
    assert "payments.transfer account:acct-17 through bank: approved by ann and bob" in told


def test_a_person_at_a_terminal_is_asked(tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    registry = people(tmp_path)
    with serving(ledger, dev=False, SIDECAR_REGISTRY=str(registry)) as server:
        about = ("--server", server.address, "--agent", "billing-agent", "--key", tmp_path / "billing-agent.pem")
        name = json.loads(sidecar("decide", *about, *LARGE, "--json").stdout)["decision_id"]

        def typed(answer: bytes) -> int:
            ours, theirs = os.openpty()
            who = ["--server", server.address, "--by", "ann", "--key", str(tmp_path / "ann.pem")]
            command = [str(BIN / "sidecar"), "approvals", "approve", *who, name]
            try:
                with subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, env=environment()) as process:
                    os.write(ours, answer)
                    said, _ = process.communicate(timeout=60)
                assert b"12000" in said
                return process.returncode
            finally:
                os.close(ours)
                os.close(theirs)

        assert typed(b"n\n") == 1
        assert "approve by ann" not in sidecar("show", ledger).stdout
        assert typed(b"y\n") == 0
        assert "approve by ann" in sidecar("show", ledger).stdout


def test_acting_for_somebody(tmp_path: Path) -> None:
    ledger, auditor = made(tmp_path)
    registry = people(tmp_path)
    with serving(ledger, dev=False, SIDECAR_REGISTRY=str(registry)) as server:

        def leave(giver: str, action: str) -> Path:
            file = tmp_path / f"{giver}-{action}.json"
            who = ("--key", tmp_path / f"{giver}.pem", "--from", giver, "--to", "billing-agent")
            done = sidecar("keys", "delegate", *who, "--action", action, "--resource", "customer:*", "--out", file)
            assert done.returncode == 0, done.stderr
            return file

        def reads(*more: str | Path) -> subprocess.CompletedProcess[str]:
            about = ("--server", server.address, "--agent", "billing-agent", "--key", tmp_path / "billing-agent.pem")
            return sidecar("decide", *about, "--action", "crm.read", "--resource", "customer:acme-42", *more)

        assert reads("--delegation", leave("ursula", "crm.*")).returncode == 0
        for wrong in (("--chain", "x"), ("--resource", "customer"), ("--to", "")):
            given = ("--key", tmp_path / "ursula.pem", "--from", "ursula", "--to", "a", "--action", "a")
            said = sidecar("keys", "delegate", *given, "--resource", "a:*", *wrong, "--out", tmp_path / "no.json")
            assert said.returncode == 2 and wrong[0] in said.stderr and not (tmp_path / "no.json").exists()
        other = reads("--delegation", leave("ursula", "payments.*"))
        assert other.returncode == 1 and "PERMISSION_DENIED" in other.stderr
        unable = reads("--delegation", leave("cleo", "crm.*"))  # who may not do it herself
        assert unable.returncode == 1 and "delegator_no_scope" in unable.stdout
        broken = tmp_path / "broken.json"
        broken.write_text("{}")
        assert "not the file of a delegation" in reads("--delegation", broken).stderr
        assert server.stop() == 0
    assert "ALLOW billing-agent" in sidecar("show", ledger).stdout
    assert " for ursula crm.read customer:acme-42" in sidecar("show", ledger).stdout
    assert verified(ledger, auditor)["signed"] == 2
