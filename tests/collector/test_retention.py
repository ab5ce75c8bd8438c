"""What a collector prunes, what it must not, and the certificate: by the command line, beside a collector that runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sidecar.chain import acts, authority_note
from sidecar.chain.acts import Prune, Run
from sidecar.chain.stream import Kind
from sidecar.collector.runs import Runs
from sidecar.collector.storage import FileStorage
from tests.collecting import Collecting, collecting
from tests.collector.test_ingest import Sender, rolled
from tests.collector.test_shipping import decide
from tests.program import serving, sidecar
from tests.scribe import Scribe, secret, signing_key

NOW = 2**62  # ns: after every seal of a scribe; before the real clock's now where it must be
SIGNED = 1_770_000_000_000_000_000


def founded(place: Path) -> Path:
    """A ledger with a custodian and an authority, whose keys are beside it."""
    for kind in ("custodian", "authority"):
        assert sidecar("keys", kind, "--out", place / f"{kind}.pem").returncode == 0
    keys = ["--custodian", place / "custodian.pub.pem", "--authority", place / "authority.pub.pem"]
    assert sidecar("init", "--data-dir", place / "ledger", *keys).returncode == 0
    return place / "ledger"


def chain(name: str, retention: str = "default") -> Scribe:
    """Segments 0 and 1 sealed, 2 open."""
    s = Scribe(name, authority=True, retention=retention)
    s.open()
    s.policy()
    s.outcome(s.decision())
    s.seal("count")
    s.decision("DENY")
    s.rejected()
    s.seal("count")
    s.decision()
    s.head()
    return s


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collecting]:
    with collecting(tmp_path_factory.mktemp("retention") / "collector") as running:
        yield running


def run(collector: Collecting, command: str, *more: str | Path) -> tuple[int, str]:
    done = sidecar("collector", command, "--data-dir", collector.place, "--dev", *more)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


def signed(tmp: Path, act: acts.Act, key: Ed25519PrivateKey, time: int = SIGNED) -> Path:
    note = tmp / f"{len(list(tmp.iterdir()))}.note"
    note.write_bytes(authority_note.compose(act, time, key))
    return note


def pem(tmp: Path, scribe: Scribe) -> Path:
    assert scribe.authority is not None
    public = scribe.authority.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp / "authority.pub.pem").write_bytes(public)
    return tmp / "authority.pub.pem"


def verified(collector: Collecting, scribe: Scribe) -> dict[str, Any]:
    done = sidecar("collector", "verify", "--data-dir", collector.place, "--dev", "--json", "--workers", "1")
    found = json.loads(done.stdout)
    assert done.returncode == 0 and found["wrong"] == [], found
    said: dict[str, Any] = next(each for each in found["chains"] if each["chain"] == scribe.chain_id.hex())
    return said


def payloads(collector: Collecting, scribe: Scribe) -> list[int]:
    """The numbers of the entries whose payload is stored."""
    runs = Runs(FileStorage(collector.place / "store"))
    held = runs.chain(scribe.chain_id)
    assert held is not None
    found, number = [], 0
    while (each := runs.read(held, number)) is not None:
        found += [int.from_bytes(body[16:24], "big") for kind, body in runs.records(each) if kind is Kind.ENTRY]
        number += 1
    return found


def test_from_request_to_certificate(collector: Collecting, tmp_path: Path) -> None:
    s = chain("pruned")
    assert s.authority is not None
    sender = Sender(s, collector)
    cut = next(i for i, r in enumerate(s.records) if r.kind is Kind.ENTRY and r.seq == 6)
    sender.ship(s.records[:cut])  # a run that holds a part of segment 1, and one with the rest
    sender.ship(s.records[cut:])
    rolled(sender)
    name, request = s.chain_id.hex(), tmp_path / "request.json"
    code, said = run(collector, "prune", "--chain", name, "--days", "1", "--reason", "it is old", "--request", request)
    assert code == 0, said
    act = acts.parse(request.read_bytes())
    assert isinstance(act, Prune) and act.runs == (s.run(0, 1),)
    note, out = signed(tmp_path, act, s.authority), tmp_path / "certificate"
    # a legal hold on this chain forbids it, on another it does not
    assert run(collector, "hold", "case-1", "--chain", name, "--reason", "a letter")[0] == 0
    assert run(collector, "hold", "case-2", "--chain", secret("other").hex(), "--reason", "another")[0] == 0
    code, said = run(collector, "prune", "--note", note, "--out", out)
    assert code == 2 and "under legal hold (case-1)" in said and not out.exists()
    assert payloads(collector, s) == list(range(8))
    code, said = run(collector, "hold", "case-1", "--release", "--chain", name, "--reason", "settled")
    assert code == 0 and "case-1  released" in said
    code, said = run(collector, "prune", "--note", note, "--out", out)
    assert code == 0 and "4 payloads pruned" in said, said
    assert payloads(collector, s) == [0, 1, 2, 7]
    # the certificate, offline
    key = ["--log-key", collector.key, "--authority", pem(tmp_path, s)]
    done = sidecar("collector", "certificate", out, *key, "--json")
    told = json.loads(done.stdout)
    assert (told["chain"], told["segments"], told["payloads"], told["entries"]) == (name, "0-1", 4, 8)
    assert told["reason"] == "it is old" and told["leaf"] == s.leaf.hex()
    forged = tmp_path / "forged"
    forged.write_bytes(out.read_bytes().replace(b"payloads 4", b"payloads 3"))
    assert sidecar("collector", "certificate", forged, *key).returncode == 2
    other = sidecar("collector", "certificate", out, *key[:2], "--authority", pem(tmp_path, chain("else")))
    assert other.returncode == 2
    # verified afterwards: PRUNED, nothing is wrong; and the chain goes on
    found = verified(collector, s)
    assert (found["verdict"], found["entries"]) == ("PRUNED", 8) and "it is old" in found["accepted"][0]
    assert sender.ship(s.records).seq == 8  # known, without the payloads
    mark = len(s.records)
    s.decision()
    s.head()
    assert sender.ship(s.records[mark:]).seq == 9
    code, said = run(collector, "prune", "--note", note, "--out", tmp_path / "again")
    assert code == 2 and "no payload that is here" in said
    assert sender.alarms() == []


def test_a_restart_after_pruning_everything_sealed(tmp_path: Path) -> None:
    """The newest run is a pruned one, and the collector goes on from it."""
    s = chain("restarted")
    s.seal("count")
    assert s.authority is not None
    with collecting(tmp_path / "collector") as collector:
        sender = Sender(s, collector)
        sender.ship(s.records)
        rolled(sender)
        note = signed(tmp_path, Prune(s.chain_id, (s.run(0, 2),), "old"), s.authority)
        assert run(collector, "prune", "--note", note, "--out", tmp_path / "certificate")[0] == 0
        assert collector.stop() == 0
    mark = len(s.records)
    s.decision()
    s.head()
    with collecting(tmp_path / "collector") as collector:
        assert Sender(s, collector).ship(s.records[mark:]).seq == 9
        assert verified(collector, s)["verdict"] == "PRUNED"


def test_what_nobody_may_prune(collector: Collecting, tmp_path: Path) -> None:
    """By another key, chain or history; what is not sealed or not in the log; signed in the future."""
    s, mallory = chain("kept"), signing_key("mallory")
    assert s.authority is not None
    sender = Sender(s, collector)
    sender.ship(s.records)
    rolled(sender)
    good = Prune(s.chain_id, (s.run(0, 1),), "old")
    history = Prune(s.chain_id, (Run(0, 1, secret("of another history")),), "old")
    unsealed = Prune(s.chain_id, (Run(0, 2, secret("not sealed")),), "old")
    unknown = Prune(secret("unknown"), good.runs, "old")
    for note, why in (
        (signed(tmp_path, good, mallory), "did not sign it"),
        (signed(tmp_path, good, s.identity), "did not sign it"),
        (signed(tmp_path, history, s.authority), "not held with the seal"),
        (signed(tmp_path, unsealed, s.authority), "not held with the seal"),
        (signed(tmp_path, unknown, s.authority), "not enrolled here"),
        (signed(tmp_path, good, s.authority, time=NOW), "signed in the future"),
    ):
        code, said = run(collector, "prune", "--note", note, "--out", tmp_path / "certificate")
        assert code == 2 and why in said, (why, said)
    assert payloads(collector, s) == list(range(8))


@pytest.mark.parametrize("profile", ["sec-17a-4", "of another house"])
def test_a_retention_profile_refuses(collector: Collecting, tmp_path: Path, profile: str) -> None:
    s = chain(profile.replace(" ", "-"), profile)
    assert s.authority is not None
    sender = Sender(s, collector)
    sender.ship(s.records)
    rolled(sender)
    note = signed(tmp_path, Prune(s.chain_id, (s.run(0, 1),), "too early"), s.authority)
    code, said = run(collector, "prune", "--note", note, "--out", tmp_path / "certificate")
    assert code == 2 and profile in said and payloads(collector, s) == list(range(8))
    kept = [path.stat().st_mtime for path in (collector.place / "store/objects/chain" / s.chain_id.hex()).iterdir()]
    assert all(mtime > 1_900_000_000 for mtime in kept) == (profile == "sec-17a-4")


def test_a_ledgers_own_file(tmp_path: Path) -> None:
    """From decisions that were shipped to a pruned ledger that verifies with exit 0, and goes on."""
    ledger, trust = founded(tmp_path), tmp_path / "trust.json"
    request, note = tmp_path / "request.json", tmp_path / "note"
    with collecting(tmp_path / "collector") as running:
        config = tmp_path / "c.toml"
        config.write_text("segment_entries = 3\n" + running.settings())
        with serving(ledger, "--config", config) as server:
            for number in range(5):
                decide(server, number)
            early = sidecar("prune", ledger, "--request", tmp_path / "x", "--days", "1", "--reason", "too early")
            assert early.returncode == 2 and "no segment was sealed so long ago" in early.stderr
            assert server.stop() == 0
        running.trust(trust)
        asked = sidecar("prune", ledger, "--request", request, "--days", "0", "--reason", "the collector keeps it")
        assert asked.returncode == 0, asked.stderr
        for key in ("custodian", "authority"):
            sign = sidecar("authority", "sign", request, "--key", tmp_path / f"{key}.pem", "--out", note, "--yes")
        assert sign.returncode == 0, sign.stderr
        hidden = (ledger / "receipts").rename(tmp_path / "receipts")
        refused = sidecar("prune", ledger, "--note", note, "--trust", trust)
        assert refused.returncode == 2 and "no receipt of the pinned log covers" in refused.stderr
        hidden.rename(ledger / "receipts")
        assert sidecar("prune", ledger, "--note", note).returncode == 2
        done = sidecar("prune", ledger, "--note", note, "--trust", trust)
        assert done.returncode == 0 and "5 payloads pruned" in done.stdout, done.stderr
        verified = sidecar("verify", ledger, "--trust", trust, "--custodian-key", tmp_path / "custodian.pem")
        assert verified.returncode == 0 and verified.stdout.startswith("PRUNED\n"), verified.stdout
        again = sidecar("prune", ledger, "--note", note, "--trust", trust)
        assert again.returncode == 2 and "no payload that is here" in again.stderr
        with serving(ledger, "--config", config) as server:
            decide(server, 7)
            assert server.stop() == 0
        assert running.status()["alarms"] == []
    report = json.loads(sidecar("verify", ledger, "--trust", trust, "--json").stdout)
    assert report["verdict"] == "PRUNED", report
    shown = sidecar("show", ledger)
    assert shown.returncode == 0 and shown.stdout.count("its payload is not here") == 5
