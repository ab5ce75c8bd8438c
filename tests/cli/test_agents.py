"""`sidecar agents`, `sidecar keys agent` and `--key`, against the real program without --dev."""

from __future__ import annotations

import json
import stat
import time
from pathlib import Path

import pytest

from sidecar.client import Ask, Decision, Guard, NoDecision
from tests.program import made, serving, sidecar

CUSTOMER = ("customer", "acme-42")


def key_of(place: Path, name: str, kind: str = "ed25519") -> Path:
    key = place / f"{name}.pem"
    done = sidecar("keys", "agent", "--type", kind, "--out", key)
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    return key


def agents(registry: Path, command: str, *arguments: str | Path) -> None:
    done = sidecar("agents", command, "--registry", registry, *arguments)
    assert done.returncode == 0, done.stderr


def until_refused(guard: Guard) -> str:
    """Why it is refused in the end; a change of the file counts within seconds."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            guard.ask("crm.read", CUSTOMER)
        except NoDecision as error:
            return str(error)
        time.sleep(0.05)
    raise AssertionError("it was never refused")


def verified(ledger: Path, key: Path, *more: str | Path) -> dict[str, int]:
    report = json.loads(sidecar("verify", ledger, "--custodian-key", key, *more, "--json").stdout)
    assert report["verdict"] == "UNANCHORED", report["findings"]
    decisions: dict[str, int] = report["decisions"]
    return decisions


def test_from_a_key_to_a_non_repudiable_decision_and_its_revocation(tmp_path: Path) -> None:
    ledger, auditor = made(tmp_path)
    registry = tmp_path / "registry.json"
    key = key_of(tmp_path, "billing", "p256")
    agents(registry, "add", "--key", tmp_path / "billing.pub.pem", "--role", "billing", "billing-agent")
    with serving(ledger, dev=False, SIDECAR_REGISTRY=str(registry)) as server:
        about = ("--server", server.address, "--agent", "billing-agent")
        asked = ("--action", "crm.read", "--resource", "customer:acme-42", "--json")
        unsigned = sidecar("decide", *about, *asked)
        assert unsigned.returncode == 1 and "signature: is missing" in unsigned.stderr
        signed = sidecar("decide", *about, *asked, "--key", key)
        assert signed.returncode == 0, signed.stderr
        decision = json.loads(signed.stdout)
        assert decision["agent_proof"] == "signature"
        done = sidecar("outcome", decision["decision_id"], *about, "--status", "executed", "--key", key)
        assert done.returncode == 0, done.stderr
        with server.guard(key=key) as guard:
            guard.ask("crm.read", CUSTOMER)
            agents(registry, "revoke", "billing-agent")
            assert "billing-agent is revoked" in until_refused(guard)
        assert server.stop() == 0
    shown = sidecar("show", ledger).stdout
    assert "billing-agent (signature, key " in shown and "PERMISSION_DENIED" in shown and "REGISTRY" in shown
    decisions = verified(ledger, auditor)
    assert decisions["signed"] >= 2 and decisions["asserted"] == 0
    chain, identity = genesis_of(ledger)
    key_id = decision_key(ledger, decision["seq"])
    pin = {"format": "sidecar/v1/trust", "chains": [{"chain": chain, "identity": identity}]}
    pin["principals"] = [{"id": "billing-agent", "keys": [key_id]}]
    trust = tmp_path / "trust.json"
    trust.write_text(json.dumps(pin))
    assert verified(ledger, auditor, "--trust", trust)["non_repudiable"] == decisions["signed"]
    said = sidecar("verify", ledger, "--trust", trust).stdout
    assert "non-repudiable (signed by a key you pinned)" in said


def genesis_of(ledger: Path) -> tuple[str, str]:
    payload = json.loads(sidecar("show", ledger, "--seq", "0", "--json").stdout)["payload"]
    chain = json.loads(sidecar("verify", ledger, "--json").stdout)["chain"]
    return chain, payload["identity"]


def decision_key(ledger: Path, seq: int) -> str:
    payload = json.loads(sidecar("show", ledger, "--seq", str(seq), "--json").stdout)["payload"]
    lines = dict(line.split(" ", 1) for line in payload["agent"]["statement"].splitlines()[1:])
    return lines["key"]


def test_a_guard_goes_on_in_the_next_epoch_and_a_rotation_overlaps(tmp_path: Path) -> None:
    ledger, auditor = made(tmp_path)
    registry = tmp_path / "registry.json"
    old, new = key_of(tmp_path, "old"), key_of(tmp_path, "new")
    agents(registry, "add", "--key", tmp_path / "old.pub.pem", "billing-agent")
    with serving(ledger, dev=False, SIDECAR_REGISTRY=str(registry)) as server:
        guard = server.guard(key=old)
        guard.ask("crm.read", CUSTOMER)
        assert server.stop() == 0
    agents(registry, "rotate", "--key", tmp_path / "new.pub.pem", "--overlap", "1h", "billing-agent")
    with serving(ledger, dev=False, SIDECAR_REGISTRY=str(registry)) as server:
        guard.ask("crm.read", CUSTOMER)  # signed for the epoch before, told so, signed anew
        answers = guard.ask_many([Ask("crm.read", CUSTOMER), Ask("crm.read", CUSTOMER)])
        assert all(isinstance(answer, Decision) for answer in answers)
        with server.guard(key=new) as other:
            other.ask("crm.read", CUSTOMER)
        guard.close()
        assert server.stop() == 0
    assert verified(ledger, auditor) == {
        "non_repudiable": 0, "signed": 5, "authenticated_in_transit": 0, "vouched": 0, "unopened": 0, "asserted": 0,
    }  # fmt: skip


def test_a_broken_registry_is_refused_and_the_last_good_stays(tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    registry = tmp_path / "registry.json"
    key = key_of(tmp_path, "billing")
    agents(registry, "add", "--key", tmp_path / "billing.pub.pem", "billing-agent")
    with serving(ledger, dev=False, SIDECAR_REGISTRY=str(registry)) as server:
        registry.write_text('{"format": "sidecar/v1/registry"}')
        deadline = time.monotonic() + 60
        with server.guard(key=key) as guard:
            while '"refused"' not in sidecar("show", ledger, "--json").stdout:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            guard.ask("crm.read", CUSTOMER)
        assert server.stop() == 0
    refused = [line for line in sidecar("show", ledger).stdout.splitlines() if "principals: is missing" in line]
    assert len(refused) == 1


@pytest.mark.parametrize(
    ("environment", "mend"),
    [
        ({}, "registry is not set"),
        ({"SIDECAR_REGISTRY": "/nowhere/registry.json"}, "cannot read registry"),
        ({"SIDECAR_REGISTRY": "BROKEN"}, "principals"),
        ({"SIDECAR_REQUIRE": "password", "SIDECAR_DEV": "1"}, "require must name"),
        ({"SIDECAR_SIGNATURE_WINDOW": "301", "SIDECAR_DEV": "1"}, "signature_window must be"),
    ],
)
def test_without_anybody_to_prove_it_does_not_start(environment: dict[str, str], mend: str, tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    broken = tmp_path / "broken.json"
    broken.write_text('{"format": "sidecar/v1/registry"}')
    given = {name: value.replace("BROKEN", str(broken)) for name, value in environment.items()}
    done = sidecar("serve", "--data-dir", ledger, **given)
    assert done.returncode == 2
    assert mend in done.stderr.splitlines()[-1]


def test_the_registry_is_written_the_same_whoever_adds_first(tmp_path: Path) -> None:
    for name in ("a", "b"):
        key_of(tmp_path, name)
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    for registry, order in ((one, "ab"), (two, "ba")):
        for name in order:
            attributes = ("--attribute", "limit=100", "--owner", "finance")
            agents(registry, "add", "--key", tmp_path / f"{name}.pub.pem", *attributes, f"{name}-agent")
    assert one.read_bytes() == two.read_bytes()
    listed = sidecar("agents", "list", "--registry", one)
    assert listed.stdout.splitlines() == [f"{name}-agent  agent  active  no roles  1 active key" for name in "ab"]
    assert json.loads(sidecar("agents", "list", "--registry", one, "--json").stdout)["principals"][0]["attributes"] == {
        "limit": 100
    }
    before = one.read_bytes()
    for wrong in (
        ("add", "--key", tmp_path / "a.pub.pem", "a-agent"),  # twice
        ("add", "--key", tmp_path / "a.pub.pem", "c-agent"),  # another's key
        ("add", "--key", tmp_path / "a.pem", "c-agent"),  # a private key
        ("add", "c-agent"),
        ("add", "--spiffe-id", "http://x", "c-agent"),
        ("add", "--key", tmp_path / "a.pub.pem", "--attribute", "limit", "c-agent"),
        ("revoke", "c-agent"),
        ("revoke", "--key", "zz", "a-agent"),
        ("rotate", "--key", tmp_path / "b.pub.pem", "a-agent"),
        ("rotate", "--key", tmp_path / "b.pub.pem", "--overlap", "soon", "a-agent"),
    ):
        done = sidecar("agents", wrong[0], "--registry", one, *wrong[1:])
        assert done.returncode == 2, (wrong, done.stderr)
        assert one.read_bytes() == before


def test_a_trust_file_of_what_is_registered(tmp_path: Path) -> None:
    """It pins the chain and active keys; a ledger without its beginning, or a registry that is none, gives no file."""
    ledger, auditor = made(tmp_path)
    registry = tmp_path / "registry.json"
    for name in ("billing", "old"):
        key_of(tmp_path, name)
    agents(registry, "add", "--key", tmp_path / "old.pub.pem", "billing-agent")
    agents(registry, "rotate", "--key", tmp_path / "billing.pub.pem", "--overlap", "0s", "billing-agent")
    agents(registry, "add", "--spiffe-id", "spiffe://a/other", "other-agent")
    made_now = sidecar("agents", "trust", "--registry", registry, ledger)
    assert made_now.returncode == 0, made_now.stderr
    chain, identity = genesis_of(ledger)
    told = json.loads(made_now.stdout)
    assert told["chains"] == [{"chain": chain, "identity": identity}]
    trust = tmp_path / "trust.json"
    trust.write_text(made_now.stdout)
    assert verified(ledger, auditor, "--trust", trust)["non_repudiable"] == 0  # read, and nothing decided yet
    assert [each["id"] for each in told["principals"]] == ["billing-agent", "other-agent"]
    assert told["principals"][1]["keys"] == []
    assert sidecar("agents", "trust", "--registry", trust, ledger).returncode == 2
    assert sidecar("agents", "trust", "--registry", registry, tmp_path).returncode == 2
