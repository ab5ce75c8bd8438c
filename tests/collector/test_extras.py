"""Drivers are optional: nothing loads them before they are used, and what cannot be checked without one is said."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.chain import note
from sidecar.chain.timestamp import Timestamp
from sidecar.chain.tlog_proof import TlogProof
from tests.notary import Notary, ended, standing
from tests.program import environment
from tests.scribe import public, signing_key

DRIVERS = ("boto3", "botocore", "psycopg", "rfc3161_client")
LEDGER = ended()


@pytest.mark.parametrize("room", ["sidecar.collector", "sidecar.anchor", "sidecar.verify", "sidecar.cli.verify"])
def test_a_room_loads_no_driver(room: str) -> None:
    asked = f"import sys, {room}; print([name for name in {DRIVERS!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_verify_without_the_extra_leaves_timestamps_unchecked(tmp_path: Path) -> None:
    notary = Notary()
    notary.take(LEDGER)
    answer = notary.answer(notary.call_roll(standing(LEDGER)), LEDGER.chain_id)
    stamp = Timestamp(note.parse(TlogProof.parse(answer).checkpoint).text, 5, b"x")
    (tmp_path / "ledger").write_bytes(LEDGER.stream())
    (tmp_path / "ledger.tlog-proof").write_bytes(answer)
    (tmp_path / "ledger.timestamp").write_bytes(stamp.encode())
    identity = public(signing_key(LEDGER.name, "identity")).hex()
    trust = {
        "format": "sidecar/v1/trust",
        "chains": [{"chain": LEDGER.chain_id.hex(), "identity": identity}],
        "policy": notary.policy(),
        "tsa_roots": ["MAMCAQA="],
        "custodians": [],
    }
    (tmp_path / "trust").write_text(json.dumps(trust))
    asked = "import sys; sys.modules['rfc3161_client'] = None; from sidecar.cli import main; main()"
    arguments = ["verify", str(tmp_path / "ledger"), "--trust", str(tmp_path / "trust"), "--json"]
    done = subprocess.run(
        [sys.executable, "-c", asked, *arguments], capture_output=True, text=True, env=environment(), check=False
    )
    report = json.loads(done.stdout)
    assert (done.returncode, report["verdict"]) == (0, "OK"), report
    assert any("timestamp 1" in line for line in report["not_checked"])
