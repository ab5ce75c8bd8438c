"""The second half of `helm test` says no where it must: it runs here as it is, but for its two paths."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.program import environment, made, serving, sidecar

from .rendering import SIDECAR

SCRIPT = (SIDECAR / "files" / "verify_test.py").read_text()


def judged(ledger: Path, receipt: Path) -> int:
    text = SCRIPT.replace("/var/lib/sidecar/ledger", str(ledger)).replace("/run/test/receipt.txt", str(receipt))
    assert text.count(str(ledger)) == text.count(str(receipt)) == 1
    return subprocess.run([sys.executable, "-c", text], env=environment(), capture_output=True, check=False).returncode


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, Path]]:
    """Two ledgers, each with the receipt of a decision."""
    found = []
    for name in ("one", "two"):
        place = tmp_path_factory.mktemp(name)
        ledger, _ = made(place)
        with serving(ledger) as server:
            receipt = place / "receipt.txt"
            where = ("--server", server.address, "--agent", "billing-agent", "--receipt-out", receipt)
            answer = sidecar("decide", *where, "--action", "crm.read", "--resource", "customer:acme-42")
            assert answer.returncode == 0, answer.stderr
            assert judged(ledger, receipt) == 0  # while the sidecar is at work, as in the pod
            assert server.stop() == 0
        found.append((ledger, receipt))
    return found


def test_what_holds_is_taken(asked: list[tuple[Path, Path]]) -> None:
    assert [judged(*each) for each in asked] == [0, 0]


def test_another_ledgers_receipt_is_not(asked: list[tuple[Path, Path]]) -> None:
    (ledger, _), (_, receipt) = asked
    assert judged(ledger, receipt) == 1


def test_no_receipt_is_not(asked: list[tuple[Path, Path]], tmp_path: Path) -> None:
    empty = tmp_path / "receipt.txt"
    assert judged(asked[0][0], empty) == 1
    empty.touch()
    assert judged(asked[0][0], empty) == 1


def test_no_ledger_is_not(asked: list[tuple[Path, Path]], tmp_path: Path) -> None:
    assert judged(tmp_path / "ledger", asked[0][1]) == 1
