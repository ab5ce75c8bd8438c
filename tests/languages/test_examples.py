"""An agent in another language has the .proto and nothing of ours: it asks, checks its receipt, acts and reports."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from sidecar.chain.digests import arguments_digest, target_digest
from sidecar.chain.permit import Permit
from sidecar.v1 import decision_pb2 as pb
from tests.api.desks import PEOPLE, Policy, desk
from tests.api.running import judged
from tests.api.test_delegated import sent
from tests.languages.building import GO_STUBS, HERE, go_example, go_permit, node_example
from tests.needs import needs_program
from tests.people import delegated
from tests.program import made, serving, sidecar

Build = Callable[[Path], list[str]]


def run(command: list[str], address: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command, address], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("build", [go_example, node_example])
def test_the_example_asks_acts_and_reports(build: Build, tmp_path: Path) -> None:
    command = build(tmp_path)
    ledger, key = made(tmp_path)
    with serving(ledger) as server:
        done = run(command, server.address)
        assert done.returncode == 0, done.stderr
        assert server.stop() == 0
        gone = run([*command], f"unix:{tmp_path}/nobody.sock")
        assert gone.returncode != 0
        assert "ALLOW" not in gone.stdout
    said = re.fullmatch(r"ALLOW (\S+) at seq (\d+), outcome at seq (\d+)\n", done.stdout)
    assert said is not None, done.stdout
    decision, outcome = (entry(ledger, seq) for seq in said.group(2, 3))
    assert decision["decision_id"] == said[1]
    assert (decision["type"], decision["request"]["action"], decision["effect"]) == ("DECISION", "crm.read", "ALLOW")
    assert (outcome["type"], outcome["decision_id"], outcome["status"]) == ("OUTCOME", said[1], "executed")
    assert json.loads(outcome["response"]) == {"name": "Acme GmbH"}
    report = json.loads(sidecar("verify", ledger, "--custodian-key", key, "--json").stdout)
    assert report["verdict"] == "UNANCHORED", report["findings"]


def test_the_go_example_says_how_it_is_built() -> None:
    said = (HERE / "go" / "main.go").read_text().partition("package main")[0]
    assert f"protoc -I ../../../proto {' '.join(GO_STUBS)} " in re.sub(r" \\\n//\s+", " ", said)


@pytest.mark.parametrize("kind", ["ed25519", "p256"])
def test_the_node_example_signs(kind: str, tmp_path: Path) -> None:
    """From proto/SIGNING.md alone: a sidecar that believes signatures alone answers, and anybody can check them."""
    command = node_example(tmp_path)
    ledger, _ = made(tmp_path)
    registry = tmp_path / "registry.json"
    key = tmp_path / "agent.pem"
    assert sidecar("keys", "agent", "--type", kind, "--out", key).returncode == 0
    public = tmp_path / "agent.pub.pem"
    assert sidecar("agents", "add", "--registry", registry, "--key", public, "billing-agent").returncode == 0
    with serving(ledger, dev=False, SIDECAR_REGISTRY=str(registry)) as server:
        unsigned = run(command, server.address)
        assert unsigned.returncode == 1 and unsigned.stdout == ""
        assert "sign the message" in unsigned.stderr and unsigned.stderr.count("\n") == 1
        done = subprocess.run([*command, server.address, str(key)], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert server.stop() == 0
    report = json.loads(sidecar("verify", ledger, "--json").stdout)
    assert (report["verdict"], report["decisions"]["signed"]) == ("UNANCHORED", 1), report["findings"]


@pytest.mark.parametrize("kind", ["ed25519", "p256"])
def test_an_approver_in_node_signs_its_word(kind: str, tmp_path: Path) -> None:
    """From proto/SIGNING.md alone: the sidecar takes it, allows by it, and anybody can check it."""
    command = node_example(tmp_path, "approve.js")
    approver = tmp_path / "approver.pem"
    assert sidecar("keys", "agent", "--type", kind, "--out", approver).returncode == 0
    spki = load_pem_public_key((tmp_path / "approver.pub.pem").read_bytes()).public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    known = {"spki": base64.b64encode(spki).decode(), "status": "active"}
    people = tuple(each | {"keys": [known]} if each["id"] == "ann" else each for each in PEOPLE)

    async def story() -> None:
        async with desk(tmp_path, Policy(terms={"roles": ["lead"]})) as d:
            await d.know(*people)
            asked = await d.ask(delegations=sent(delegated("ursula", "billing-agent")))

            async def word(said: str) -> subprocess.CompletedProcess[str]:
                more = [f"unix:{tmp_path}/s.sock", str(approver), "ann", said, "geprüft"]
                options = {"capture_output": True, "text": True, "timeout": 120}
                return await asyncio.to_thread(subprocess.run, [*command, *more], **options)

            done = await word("approve")
            assert (done.returncode, done.stdout) == (0, f"{asked.decision_id} approved\n"), done.stderr
            given = {"approval_of": asked.decision_id, "delegations": sent(delegated("ursula", "billing-agent"))}
            assert (await d.ask(**given)).effect == pb.EFFECT_ALLOW
            await d.ask()
            assert (await word("reject")).stdout.endswith(" rejected\n")
            (first, second) = d.entries("APPROVAL")
            assert (first["verdict"], second["verdict"], first["comment"]) == ("approve", "reject", "geprüft")

    asyncio.run(story())
    report = judged(tmp_path / "ledger")
    assert report.verdict.name == "UNANCHORED", report.findings


def entry(ledger: Path, seq: str) -> dict:
    payload = json.loads(sidecar("show", ledger, "--seq", seq, "--json").stdout)["payload"]
    assert isinstance(payload, dict)
    return payload


GIVEN = Permit(
    b"c" * 32, "0190a5b2-5c3d-7a10-8000-0123456789ab", 17, "billing-agent", "crm-api",
    target_digest("crm.read", "customer", "acmé-42"), arguments_digest(b'{"n":1}'), 2**62,
)  # fmt: skip
IDENTITY = Ed25519PrivateKey.generate()


def node_permit(_: Path) -> list[str]:
    return [needs_program("node"), str(HERE / "node" / "permit.js")]


def checked(program: list[str], note: bytes, **changed: str) -> subprocess.CompletedProcess[bytes]:
    """What an executor says of a permit."""
    asked = {
        "chain": GIVEN.chain_id.hex(), "identity": IDENTITY.public_key().public_bytes_raw().hex(),
        "executor": "crm-api", "action": "crm.read", "type": "customer", "id": "acmé-42", "arguments": '{"n":1}',
    } | changed  # fmt: skip
    return subprocess.run([*program, *asked.values()], input=note, capture_output=True, timeout=60)


@pytest.mark.parametrize("build", [node_permit, go_permit])
def test_an_executor_checks_a_permit_offline(build: Build, tmp_path: Path) -> None:
    program = build(tmp_path)
    note = GIVEN.sign(IDENTITY)
    done = checked(program, note)
    assert (done.returncode, done.stdout.decode().strip()) == (0, GIVEN.decision_id), done.stderr
    for name, other in (
        *(("chain", "dd" * 32), ("identity", "11" * 32), ("executor", "bank-api"), ("action", "crm.write")),
        *(("type", "customeracm"), ("id", "é-42"), ("arguments", '{"n": 1}'), ("arguments", "")),
    ):
        refused = checked(program, note, **{name: other})
        assert refused.returncode == 1 and not refused.stdout, name
    spoilt = bytearray(note)
    spoilt[60] ^= 1
    late = dataclasses.replace(GIVEN, not_after=1_764_100_000_000_000_000).sign(IDENTITY)
    other = GIVEN.sign(Ed25519PrivateKey.generate())
    twice = note + note.split(b"\n\n")[1]
    for bad in (bytes(spoilt), late, other, twice, b"", note[:-1]):
        refused = checked(program, bad)
        assert refused.returncode == 1 and not refused.stdout and b"permit refused" in refused.stderr
