"""`sidecar authority`: a request is shown, signed and read again, away from any ledger."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from sidecar.chain.acts import AcceptLoss, Position, Prune, Run
from sidecar.cli.authority import authority
from sidecar.errors import UsageError
from tests.program import sidecar
from tests.scribe import secret

CHAIN = secret("chain")
PRUNE = Prune(CHAIN, (Run(0, 41, secret("seal")),), "90 days are over")
LOSS = AcceptLoss(CHAIN, Position(42, 1_001, secret("kept")), Position(45, 1_200, secret("lost")), "disk lost")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("authority")
    assert sidecar("keys", "authority", "--out", folder / "authority.pem").returncode == 0
    assert sidecar("keys", "authority", "--out", folder / "other.pem").returncode == 0
    return folder


def run(*arguments: str | Path, answer: str = "") -> tuple[int, str, str]:
    done = CliRunner().invoke(authority, [str(a) for a in arguments], input=answer)
    if isinstance(done.exception, UsageError):
        return 2, done.stdout, str(done.exception)
    return done.exit_code, done.stdout, done.stderr


def test_a_request_is_shown_signed_and_read_again(keys: Path, tmp_path: Path) -> None:
    (tmp_path / "request.json").write_bytes(PRUNE.encode())
    note = tmp_path / "prune.note"
    signed = sidecar(
        "authority", "sign", tmp_path / "request.json", "--key", keys / "authority.pem", "--out", note, "--yes"
    )
    assert signed.returncode == 0, signed.stderr
    assert f"payloads of segments 0 to 41 (seal {secret('seal').hex()})" in signed.stderr
    code, out, _ = run("show", note, "--key", keys / "authority.pub.pem", "--json")
    shown = json.loads(out)
    assert code == 0 and shown["verified"] is True and shown["act"] == "prune"
    assert shown["body"] == json.loads(PRUNE.encode())
    code, out, _ = run("show", note)
    assert code == 0 and out.startswith("NOT VERIFIED") and "because: 90 days are over" in out
    code, _, error = run("show", note, "--key", keys / "other.pub.pem")
    assert code == 2 and "not signed by that authority key" in error


def test_signing_is_asked_for(keys: Path, tmp_path: Path) -> None:
    (tmp_path / "request.json").write_bytes(LOSS.encode())
    sign = ["sign", tmp_path / "request.json", "--key", keys / "authority.pem", "--out", tmp_path / "loss.note"]
    assert run(*sign, answer="n\n")[0] == 2 and not (tmp_path / "loss.note").exists()
    code, _, shown = run(*sign, answer="y\n")
    assert code == 0 and "goes on at entry 1001, segment 42" in shown and "up to entry 1199, segment 45" in shown
    code, _, error = run(*sign, answer="y\n")
    assert code == 2 and "exists" in error.lower()


def test_what_cannot_be_signed_or_read(keys: Path, tmp_path: Path) -> None:
    (tmp_path / "request.json").write_bytes(PRUNE.encode()[:-1])
    sign = ["sign", tmp_path / "request.json", "--out", tmp_path / "note", "--yes", "--key"]
    assert run(*sign, keys / "authority.pem")[0] == 2
    (tmp_path / "request.json").write_bytes(PRUNE.encode())
    code, _, error = run(*sign, keys / "authority.pub.pem")
    assert code == 2 and "no private key" in error
    assert sidecar("keys", "custodian", "--out", tmp_path / "custodian.pem").returncode == 0
    code, _, error = run(*sign, tmp_path / "custodian.pem")
    assert code == 2 and "not Ed25519" in error
    assert not (tmp_path / "note").exists()
    (tmp_path / "none").write_bytes(b"none")
    assert run("show", tmp_path / "none")[0] == 2
