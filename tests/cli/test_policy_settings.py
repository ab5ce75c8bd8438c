"""What the settings of source, trust, gate and staleness do to a sidecar that serves."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path

import pytest

from sidecar.chain.entry import EntryType
from sidecar.config import Config
from sidecar.errors import UsageError
from tests.cli.test_policy_from_git import Team, configured, eventually, refusals
from tests.cli.test_policy_in_force import PERIOD, shown, until, write
from tests.faults.load import recorded
from tests.needs import needs_program
from tests.program import made, serving, serving_unready, sidecar

KEY = "a secret of at least thirty-two bytes"


def bundle(directory: Path, *, signed: bool) -> Path:
    """The policy of a directory as a bundle file, signed with `KEY` or not."""
    out = directory.with_suffix(".tar.gz")
    sign = ("--signing-key", KEY, "--signing-alg", "HS256") if signed else ()
    opa = needs_program("opa")
    ignore = ("--ignore", "*_test.rego", "--ignore", "expectations.yaml")
    claims = directory.with_suffix(".claims.json")
    claims.write_text('{"keyid": "team"}')
    named = ("--claims-file", claims) if signed else ()
    subprocess.run([opa, "build", "-b", *ignore, *sign, *named, "-o", out, directory], check=True)
    return out


def test_only_a_signed_bundle_is_taken(tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    policy = write(tmp_path / "policy")
    (tmp_path / "key").write_text(KEY)
    trust = {
        "SIDECAR_POLICY_TRUST_BUNDLE_KEY_FILE": str(tmp_path / "key"),
        "SIDECAR_POLICY_TRUST_BUNDLE_KEY_ID": "team",
        "SIDECAR_POLICY_TRUST_BUNDLE_ALGORITHM": "HS256",
    }
    flags = ("--engine", "opa", "--policy", bundle(policy, signed=False))
    done = sidecar("serve", "--data-dir", ledger, "--dev", *flags, **trust)
    assert done.returncode == 2 and "signature" in done.stderr
    bundle(policy, signed=True)
    with serving(ledger, *flags, **trust, **PERIOD) as server:
        until(server, "crm.read", ("ALLOW", "reader"))
        served = policy.with_suffix(".tar.gz")
        served.unlink()
        write(served, action="crm.write")  # a directory in its place, which nobody signed
        eventually(ledger, lambda history: "only signed bundle files" in str(refusals(history)))
        until(server, "crm.write", ("DENY", "not_granted"))
        assert server.stop() == 0
    active = shown(ledger)["active"]
    assert active["source"]["kind"] == "bundle"
    assert {step["step"]: step["outcome"] for step in active["gate"]}["signature"] == "passed"


@pytest.mark.parametrize(
    ("settings", "cause"),
    [
        ({"policy_source_path": "p", "policy_source_git_url": "/r"}, "both set"),
        ({"opa": "unix:/s"}, "the engine is wasm"),
        ({"opa": "unix:/s", "engine": "opa", "policy_source_git_url": "/r"}, "the running OPA named by opa holds"),
        ({"policy_source_git_ref": "main"}, "policy_source_git_ref is set, but policy.source.git.url is not"),
        ({"policy_trust_allowed_signers": "s"}, "allowed_signers is for commits"),
        ({"policy_trust_allowed_signers": "s", "engine": "opa", "opa": "unix:/s"}, "allowed_signers is for commits"),
        ({"policy_trust_allowed_signers": "s", "policy_source_path": "p"}, "allowed_signers is for commits"),
        ({"policy_trust_bundle_key_file": "k", "policy_trust_bundle_key_id": "i"}, "is for bundle files"),
        ({"policy_trust_bundle_key_file": "k", "policy_source_path": "p"}, "bundle_key_id is not set"),
        ({"policy_trust_bundle_key_id": "i", "policy_source_path": "p"}, "bundle_key_file is not set"),
    ],
)
def test_trust_that_would_have_no_effect_is_refused(settings: dict[str, str], cause: str) -> None:
    with pytest.raises(UsageError, match=cause):
        Config(data_dir="x", **settings)  # type: ignore[arg-type]


def test_an_impure_policy_is_let_in_by_name_and_says_so(tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    policy = write(tmp_path / "policy")
    rule = (policy / "p.rego").read_text()
    (policy / "p.rego").write_text(
        rule.replace('input.action == "crm.read"', 'input.action == "crm.read"\n\ttime.now_ns() > 0')
    )
    flags = ("--engine", "opa", "--policy", policy)
    done = sidecar("serve", "--data-dir", ledger, "--dev", *flags)
    assert done.returncode == 2 and "time.now_ns" in done.stderr
    with serving(ledger, *flags, SIDECAR_POLICY_GATE_ALLOW_BUILTINS="time.now_ns") as server:
        until(server, "crm.read", ("ALLOW", "reader"))
        assert server.stop() == 0
    assert shown(ledger)["active"]["impure_builtins"] == ["time.now_ns"]
    decided = [payload for header, payload in recorded(ledger) if header.type is EntryType.DECISION]
    assert decided and all(payload["impure_builtins"] == ["time.now_ns"] for payload in decided)
    assert "(not exactly re-runnable: uses time.now_ns)" in sidecar("show", ledger).stdout
    assert "NOT exactly re-runnable: uses time.now_ns" in sidecar("policy", "show", ledger).stdout


def test_a_rollback_is_taken_only_where_it_is_allowed(tmp_path: Path) -> None:
    team = Team(tmp_path)
    ledger, _ = made(tmp_path)
    config = configured(tmp_path, team, {"url": f"file://{team.repository.path}", "depth": 0})
    first = team.push("crm.read", "one")
    second = team.push("crm.write", "two", first)
    with serving(ledger, "--config", config) as server:
        until(server, "crm.write", ("ALLOW", "two"))
        team.repository.git("update-ref", "refs/heads/main", first)
        eventually(ledger, lambda history: first in dict(refusals(history)))
        until(server, "crm.write", ("ALLOW", "two"))
        assert server.stop() == 0
    assert shown(ledger)["active"]["revision"] == second
    with serving(ledger, "--config", config, SIDECAR_POLICY_TRUST_ALLOW_ROLLBACK="true") as server:
        until(server, "crm.read", ("ALLOW", "one"))
        assert server.stop() == 0


def test_a_source_that_is_gone_for_too_long_denies(tmp_path: Path) -> None:
    """Also after a restart, which makes the policy no younger."""
    team = Team(tmp_path)
    ledger, _ = made(tmp_path)
    served, away = team.repository.path, tmp_path / "away"
    stale = {"SIDECAR_POLICY_MAX_STALENESS": "2", "SIDECAR_POLICY_STALE": "deny"}
    flags = ("--config", configured(tmp_path, team, {"url": f"file://{served}"}))
    team.push("crm.read", "one")
    with serving(ledger, *flags, **stale) as server:
        until(server, "crm.read", ("ALLOW", "one"))
        served.rename(away)
        until(server, "crm.read", ("DENY", "policy_stale"))
        assert server.stop() == 0
    with serving_unready(ledger, *flags, **stale) as server:
        until(server, "crm.read", ("DENY", "policy_stale"))
        away.rename(served)
        until(server, "crm.read", ("ALLOW", "one"))
        assert server.stop() == 0
    after = itertools.dropwhile(lambda entry: entry[1].get("event") != "resumed", recorded(ledger))
    assert next(p["cause"] for h, p in after if h.type is EntryType.DECISION) == "policy_stale"
