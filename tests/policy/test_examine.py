"""Trust in a candidate, and in a policy that was accepted under other terms."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sidecar.policy import AllowedSigners, BundleKey, Candidate, GateSettings, OpaProgram, Terms, examine

NOBODY = OpaProgram("/nonexistent/opa", "1.22.2")  # trust comes before the gate, which would need one
FIRST = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHOcLeeuTlx6jVQKG4hpzSgyGKCBEpoPCpbe7JZnhMFT"
KEY = BundleKey("team", "HS256", Path("/nonexistent/key"))


def signers(options: str) -> AllowedSigners:
    return AllowedSigners.parse(f"ann@example.org {options} {FIRST}\n")


@pytest.mark.parametrize(
    ("terms", "candidate", "cause"),
    [
        (Terms(signers=signers("")), Candidate("r", {"p.rego": b""}), "only signed commits"),
        (Terms(signers=signers("")), Candidate("r", bundle=b"x"), "only signed commits"),
        (Terms(GateSettings(bundle_key=KEY)), Candidate("r", {"p.rego": b""}), "only signed bundle files"),
        (Terms(), Candidate("r", {"p.rego": b""}, follows=False), "not its ancestor"),
    ],
)
def test_what_is_not_trusted_does_not_come_to_the_gate(terms: Terms, candidate: Candidate, cause: str) -> None:
    examined = asyncio.run(examine(NOBODY, candidate, terms))
    assert examined.bundle is None and [step["step"] for step in examined.steps] == ["trust"]
    assert cause in examined.cause


def signature(note: str, outcome: str = "passed") -> list[dict[str, str]]:
    return [
        {"step": "check", "outcome": "passed", "note": note},
        {"step": "signature", "outcome": outcome, "note": note},
    ]


def test_terms_that_changed_since() -> None:
    key = signers("").lines[0].key.fingerprint
    assert Terms().objection("", [], []) == ""
    assert Terms(signers=signers("")).objection(key, [], []) == ""
    assert Terms(signers=signers('valid-before="20200101Z"')).objection(key, [], []) == "", "it may outlive its key"
    for other in ("", key[:-1], key + "="):
        assert "not signed by a key that is allowed" in Terms(signers=signers("")).objection(other, [], [])
    with_file = AllowedSigners.parse(f'a namespaces="git" {FIRST[:-1]}U\nb namespaces="file" {FIRST}\n')
    assert "not signed by a key that is allowed" in Terms(signers=with_file).objection(key, [], [])
    signed = Terms(GateSettings(bundle_key=KEY))
    assert signed.objection("", signature("signed with the key 'team' (HS256)"), []) == ""
    for steps in ([], signature("not signed"), signature("signed with the key 'team' (HS256)", "failed")):
        assert "bundle was not signed" in signed.objection("", steps, [])
    assert "bundle was not signed" in signed.objection("", signature("signed with the key 'other' (HS256)"), [])
    assert "uses rand.intn, which" in Terms(GateSettings(allow_builtins=("time.now_ns",))).objection(
        "", [], ["time.now_ns", "rand.intn"]
    )
