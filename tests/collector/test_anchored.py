"""From a sidecar's ledger to OK: logged by the collector's log, witnessed, timestamped, receipts beside the ledger."""

from __future__ import annotations

import base64
import json
import queue
import shutil
from pathlib import Path

from sidecar.anchor import Chaser, Door, Pauses, Witness
from sidecar.anchor.authority import Authority
from sidecar.chain import note
from sidecar.chain.logged import Logged, parse_entry
from sidecar.chain.note import parse_vkey
from sidecar.chain.rollcall import Standing
from sidecar.chain.seal import Seal, seal_hash
from sidecar.chain.stream import Kind, records
from sidecar.collector import FleetLog
from sidecar.collector.index import open_sqlite
from sidecar.collector.roll import call_roll
from sidecar.collector.storage import FileStorage
from sidecar.ledger import ledger_stream
from tests.anchor.parties import OpensslAuthority, answering, litewitness, witness_vkey
from tests.collecting import ANYWHERE, collecting
from tests.collector.test_log import KEY, ORIGIN, VKEY
from tests.collector.test_shipping import until
from tests.program import made, serving, sidecar
from tests.scribe import signing_key

PATIENCE = 60.0  # seconds; only a failing test waits so long
WITNESS = signing_key("witness of all")


def test_a_sidecars_ledger_ends_ok(tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    (tmp_path / "c.toml").write_text("segment_entries = 3\n")
    with serving(ledger, "--config", tmp_path / "c.toml") as server:
        for number in range(4):
            asked = ["--agent", "billing-agent", "--action", "crm.read", "--resource", f"customer:c-{number}"]
            assert sidecar("decide", "--server", server.address, *asked).returncode == 0
        assert server.stop() == 0
    notes, standing = shipped(ledger)
    storage, index = FileStorage(tmp_path / "store"), open_sqlite(tmp_path / "index.db")
    log = FleetLog(storage, index, ORIGIN, KEY)
    taken = log.append(notes)
    index.stand(standing, 0)
    roll = call_roll(storage, index.standings, ORIGIN, lambda: standing.time or 0)
    (called,) = log.append([roll.call.text().encode()])
    authority = OpensslAuthority.make(tmp_path / "tsa")
    got: queue.Queue[object] = queue.Queue()
    with (
        litewitness(tmp_path, WITNESS, VKEY) as witness_url,
        answering(lambda path, body: (200, authority.reply(body))) as authority_url,
    ):
        witness = Witness(witness_vkey(WITNESS), Door(witness_url), log.consistency)
        stamping = Authority(Door(authority_url), (authority.root,))
        chasers = [
            Chaser(witness, lambda signed, said: got.put(log.cosigned(signed, said)), pauses=Pauses(first=0.01)),
            Chaser(stamping, lambda signed, said: got.put(said), pauses=Pauses(first=0.01)),
        ]
        for each in chasers:
            each.offer(log.signed)
        said = [got.get(timeout=PATIENCE) for _ in chasers]
        for each in chasers:
            each.close()
            assert each.age() == 0 and each.error is None
    receipts = ledger / "receipts"
    receipts.mkdir()
    for each in taken:
        data = log.receipt(each.position, Logged.parse(each.entry))
        (receipts / f"{each.position}.tlog-proof").write_bytes(data)
    answer = log.receipt(called.position, Logged(roll.call, roll.call.text(), roll.answer(0)))
    (receipts / "roll-call.tlog-proof").write_bytes(answer)
    (stamp,) = [each for each in said if not isinstance(each, bytes)]
    (receipts / "one.timestamp").write_bytes(stamp.encode())  # type: ignore[attr-defined]
    trust = tmp_path / "trust.json"
    trust.write_text(json.dumps(trusting(ledger, standing, authority.root)))
    done = sidecar("verify", ledger, "--trust", trust, "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["verdict"]) == (0, "OK"), report
    assert any("timestamp authority saw" in line for line in report["notes"])
    index.close()


def shipped(ledger: Path) -> tuple[list[bytes], Standing]:
    """The notes that a collector would be sent, and where the chain stands after them."""
    with ledger_stream(ledger) as read:
        found = [body for kind, body in records(read) if kind in (Kind.EPOCH, Kind.SEAL)]
    text = note.parse(found[-1]).text
    seal = parse_entry(text)
    assert isinstance(seal, Seal) and seal.span is not None
    last = (seal.first + seal.count - 1, seal.last, seal.span.wall_last)
    return found, Standing(seal.chain_id, seal.epoch, seal.segment, seal_hash(text), *last)


def trusting(ledger: Path, standing: Standing, root: bytes) -> dict[str, object]:
    genesis = json.loads(sidecar("show", ledger, "--seq", "0", "--json").stdout)["payload"]
    return {
        "format": "sidecar/v1/trust",
        "chains": [{"chain": standing.chain_id.hex(), "identity": genesis["identity"]}],
        "policy": f"log {VKEY}\nwitness w {witness_vkey(WITNESS)}\nquorum w\n",
        "tsa_roots": [base64.b64encode(root).decode()],
        "custodians": [],
    }


def test_an_old_copy_of_everything_is_told_by_a_witness(tmp_path: Path) -> None:
    """Objects and index brought back together agree with each other; only the witness knows, and nothing is signed."""
    place, witness = tmp_path / "collector", tmp_path / "witness"
    witness.mkdir()
    with collecting(place):
        pass
    vkey = parse_vkey((place / "log.vkey").read_text().strip())
    with litewitness(witness, WITNESS, vkey) as url:
        settings = {"COLLECTOR_WITNESSES": f"{witness_vkey(WITNESS)} {url}"}
        with collecting(place, **settings) as collector:
            until(lambda: cosigned(place) > 1)
            assert collector.stop() == 0
        shutil.copytree(place, tmp_path / "old")
        before = cosigned(place)
        with collecting(place, **settings) as collector:
            until(lambda: cosigned(place) > before + 1)
            assert collector.stop() == 0
        shutil.rmtree(place)
        (tmp_path / "old").rename(place)
        signed = sorted((place / "store/objects/log/checkpoint").iterdir())
        done = sidecar("collector", "serve", "--data-dir", place, "--dev", *ANYWHERE, **settings)
        assert done.returncode == 1 and "bring back the newer objects" in done.stderr, done.stderr
        assert sorted((place / "store/objects/log/checkpoint").iterdir()) == signed
        shutil.rmtree(place / "store")
        (place / "index.db").unlink()
        done = sidecar("collector", "serve", "--data-dir", place, "--dev", *ANYWHERE, **settings)
        assert done.returncode == 1 and "it has 0" in done.stderr, done.stderr
        assert not (place / "store/objects/log").exists()


def cosigned(place: Path) -> int:
    """How many checkpoints a witness cosigned."""
    return sum(path.is_file() for path in (place / "store/objects/log/cosigned").rglob("*"))
