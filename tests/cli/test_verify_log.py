"""`sidecar verify --trust`: receipts beside a ledger or a segment file make it OK."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from sidecar.anchor import Door
from sidecar.anchor.authority import Authority
from sidecar.chain.stream import MAGIC, Kind, record
from sidecar.chain.tlog_proof import TlogProof
from tests.anchor.parties import OpensslAuthority, answering
from tests.notary import Notary, ended, standing
from tests.program import sidecar
from tests.scribe import Scribe, public, signing_key

LEDGER = ended()


class Auditor:
    """A ledger's stream in a file, a log that holds it, a trust file."""

    def __init__(self, place: Path) -> None:
        self.place, self.ledger, self.trust = place, place / "ledger.seg", place / "trust.json"
        self.ledger.write_bytes(LEDGER.stream())
        self.notary = Notary(witnesses=1)
        self.notary.take(LEDGER)
        self.roll = self.notary.call_roll(standing(LEDGER))
        self.answer = self.notary.answer(self.roll, LEDGER.chain_id)
        self.trusting(self.notary)

    def trusting(self, notary: Notary, scribe: Scribe = LEDGER, roots: tuple[bytes, ...] = ()) -> None:
        identity = public(signing_key(scribe.name, "identity")).hex()
        value = {
            "format": "sidecar/v1/trust",
            "chains": [{"chain": scribe.chain_id.hex(), "identity": identity}],
            "policy": notary.policy(),
            "tsa_roots": [base64.b64encode(root).decode() for root in roots],
            "custodians": [],
        }
        self.trust.write_text(json.dumps(value))

    def verify(self, *more: str | Path, path: Path | None = None) -> tuple[int, str, str]:
        done = sidecar("verify", path or self.ledger, "--trust", self.trust, "--json", *more)
        return done.returncode, json.loads(done.stdout)["verdict"] if done.stdout else "", done.stderr + done.stdout


@pytest.fixture
def auditor(tmp_path: Path) -> Auditor:
    return Auditor(tmp_path)


def test_ok_with_receipts_beside_or_named(auditor: Auditor) -> None:
    assert auditor.verify()[:2] == (4, "UNANCHORED")
    named = auditor.place / "roll"
    named.write_bytes(auditor.answer)
    assert auditor.verify("--receipt", named)[:2] == (0, "OK")
    named.rename(auditor.place / "ledger.seg.roll.tlog-proof")
    assert auditor.verify()[:2] == (0, "OK")
    plain = sidecar("verify", auditor.ledger, "--trust", auditor.trust)
    assert plain.returncode == 0 and plain.stdout.startswith("OK\n")
    # Without the pin the same files prove nothing, and another ledger's files are not taken for this one's.
    assert sidecar("verify", auditor.ledger).returncode == 4
    other = auditor.place / "ledger2.seg"
    other.write_bytes(auditor.ledger.read_bytes())
    assert auditor.verify(path=other)[:2] == (4, "UNANCHORED")


def test_a_segment_file_with_its_receipt(auditor: Auditor) -> None:
    file = auditor.place / "segment-3"
    file.write_bytes(MAGIC + b"".join(record(Kind(r.kind), r.body) for r in LEDGER.segment_file(3)))
    assert auditor.verify(path=file)[:2] == (4, "UNANCHORED")
    (auditor.place / "segment-3.tlog-proof").write_bytes(auditor.notary.of_seal(LEDGER, 3))
    assert auditor.verify(path=file)[:2] == (0, "OK")


def test_consistency_files_and_timestamps_beside(auditor: Auditor, tmp_path_factory: pytest.TempPathFactory) -> None:
    auditor.notary.witnesses = []
    authority = OpensslAuthority.make(tmp_path_factory.mktemp("tsa") / "one")
    auditor.trusting(auditor.notary, roots=(authority.root,))
    answer = auditor.notary.answer(auditor.roll, LEDGER.chain_id)
    with answering(lambda path, body: (200, authority.reply(body))) as url:
        stamp = Authority(Door(url), (authority.root,)).vouch(TlogProof.parse(answer).checkpoint)
    for name, data in (
        ("roll.tlog-proof", answer),
        ("seal.tlog-proof", auditor.notary.of_seal(LEDGER, 0, 5)),
        ("a.timestamp", stamp.encode()),
    ):
        (auditor.place / f"ledger.seg.{name}").write_bytes(data)
    assert auditor.verify()[:2] == (3, "INCOMPLETE")
    (auditor.place / "ledger.seg.5.tlog-consistency").write_bytes(auditor.notary.consistency(5))
    code, verdict, said = auditor.verify()
    assert (code, verdict) == (0, "OK") and "a timestamp authority saw" in said
    damaged = json.loads(stamp.encode()) | {"nonce": "1"}
    (auditor.place / "ledger.seg.a.timestamp").write_text(json.dumps(damaged))
    assert auditor.verify()[:2] == (1, "TAMPERED")


def test_a_ledger_directory_with_its_receipts(auditor: Auditor, tmp_path: Path) -> None:
    """What lies in `receipts/` is read; a receipt of another chain is TAMPERED."""
    home = tmp_path / "home"
    assert sidecar("init", "--data-dir", home).returncode == 0
    folder = home / "receipts"
    folder.mkdir()
    (folder / "roll.tlog-proof").write_bytes(auditor.answer)
    (folder / "notes.txt").write_text("not a receipt")
    assert auditor.verify(path=home)[:2] == (1, "TAMPERED")


@pytest.mark.parametrize("data", [b"", b"rubbish", b"c2sp.org/tlog-proof@v1\n", b"old x\n\n", b"{}", b"\xff"])
def test_what_is_no_receipt_says_nothing_against_the_ledger(auditor: Auditor, data: bytes) -> None:
    wrong = auditor.place / "wrong"
    wrong.write_bytes(data)
    code, verdict, said = auditor.verify("--receipt", wrong)
    assert (code, verdict, said.count("\n")) == (2, "", 1) and str(wrong) in said


def test_a_root_that_is_no_certificate(auditor: Auditor) -> None:
    auditor.trusting(auditor.notary, roots=(b"no certificate",))
    code, verdict, said = auditor.verify()
    assert (code, verdict, said.count("\n")) == (2, "", 1) and "root" in said
