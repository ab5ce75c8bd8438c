"""Writes `tests/vectors/shipping/`: what proto/SHIPPING.md says, in bytes, one chain's way to a collector.

`.venv/bin/python -m tests.vectors.make_shipping` writes them anew; `tests/collector/test_shipping_vectors.py` fails
where they are stale, computes what is signed again, and has both `sidecar.ship` and `sidecar.collector` go by them.
"""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

from sidecar.chain import lines, note
from sidecar.chain.ack import Ack
from sidecar.chain.epoch import epoch_hash
from sidecar.chain.limits import ZERO32
from sidecar.chain.note import VerifierKey
from sidecar.chain.parcel import enrol_message, parcel_message
from tests.scribe import Scribe, public, signing_key, stream

FOLDER = Path(__file__).parent / "shipping"
ORIGIN = "log.example.org/fleet"
LOG = signing_key("log")
NOW = 1_767_225_660_000_000_000
TOKEN = b"a-token-that-was-handed-over"
NAME = "shipping"


def build() -> dict[str, bytes]:
    """Every file, by name."""
    whole, end, cloned, restored = chain(), chain(), chain(), chain(short=True)
    mark = len(whole.records)
    end.close()
    cloned.leaf = bytes(32)  # goes on from an entry that nobody holds
    cloned.decision()
    before = len(restored.records)
    restored.crash()
    sent = [
        ("first", whole.records, "", whole),
        ("first", whole.records, "", whole),
        ("gap", end.records[-1:], "GAP", whole),
        ("fork", cloned.records[mark:], "FORK", whole),
        ("rollback", restored.records[before:], "ROLLBACK", whole),
        ("no-parcel", b"no parcel", "MALFORMED", whole),
        ("last", end.records[mark:], "", end),
    ]
    files: dict[str, bytes] = {"genesis.json": whole.genesis}
    steps = []
    for name, content, code, after in sent:
        parcel = content if isinstance(content, bytes) else deflated(stream(content))
        signature = signing_key(NAME, "identity").sign(parcel_message(whole.chain_id, parcel))
        files[f"{name}.parcel"] = parcel
        if not code:
            files[f"{name}.ack"] = ack(after)
        place = {"segment": after.segment, "seq": after.seq}
        steps.append({"parcel": name, "signature": signature.hex(), "refused": code, **place})
    forged = signing_key("stranger").sign(parcel_message(whole.chain_id, files["last.parcel"]))
    forgery = {"parcel": "last", "signature": forged.hex(), "refused": "WRONG_KEY"}
    steps.insert(-1, {**forgery, "segment": whole.segment, "seq": whole.seq})
    enrolment = signing_key(NAME, "identity").sign(enrol_message(whole.genesis, TOKEN))
    files["steps.json"] = _json(steps)
    files["keys.json"] = _json(
        {
            "chain": whole.chain_id.hex(),
            "identity_private": signing_key(NAME, "identity").private_bytes_raw().hex(),
            "log_private": LOG.private_bytes_raw().hex(),
            "log": str(VerifierKey(ORIGIN, public(LOG))),
            "now": str(NOW),
            "token": TOKEN.decode(),
            "enrolment": enrolment.hex(),
        }
    )
    files["0.run"] = run(STARTS, files["first.parcel"], steps[0]["signature"])
    files["1.run"] = run(standing(whole), files["last.parcel"], steps[-1]["signature"])
    files["alarm.txt"] = alarm(whole.chain_id)
    return files


def chain(*, short: bool = False) -> Scribe:
    """A sealed segment with a policy and a decision, and entries of the next with a head. ``short``: one less."""
    made = Scribe(NAME)
    made.open()
    made.policy()
    made.decision()
    made.seal("count")
    made.decision()
    if not short:
        made.decision()
        made.head()
    return made


def deflated(data: bytes) -> bytes:
    """RFC 1950 in stored blocks: these bytes are the same whoever deflates. Any other deflating is as good."""
    parts = [data[at : at + 65_535] for at in range(0, len(data), 65_535)]
    blocks = [struct.pack("<BHH", part is parts[-1], len(part), len(part) ^ 0xFFFF) + part for part in parts]
    return b"\x78\x01" + b"".join(blocks) + zlib.adler32(data).to_bytes(4, "big")


STARTS: dict[str, Any] = {
    **dict.fromkeys(("run", "epoch", "segment", "seq", "first", "wall"), "0"),
    **dict.fromkeys(("leaf", "seal", "key", "note"), ZERO32.hex()),
    "peaks": [],
    "ended": "",
    "cuts": [],
}


def standing(of: Scribe) -> dict[str, Any]:
    """What a collector holds of the chain after the first parcel: `STARTS` for it."""
    numbers = {"run": 1, "epoch": of.epoch, "segment": of.segment, "seq": of.seq, "first": of.first}
    said = {name: str(value) for name, value in numbers.items()} | {"wall": str(of.headers[of.seq - 1].wall_ns)}
    noted = epoch_hash(note.parse(of.notes[of.epoch]).text)
    hashes = (of.leaf, of.seal_before, public(of.signing[of.segment]), noted)
    said |= {name: each.hex() for name, each in zip(("leaf", "seal", "key", "note"), hashes, strict=True)}
    return said | {"peaks": [each.hex() for each in of.tree.peaks], "ended": "", "cuts": []}


def run(before: dict[str, Any], parcel: bytes, signature: Any) -> bytes:
    """The object that a parcel becomes."""
    held = json.dumps(before, separators=(",", ":")).encode()
    return b"SDCRUN\x00\x01" + struct.pack(">I", len(held)) + held + bytes.fromhex(signature) + parcel


def ack(of: Scribe) -> bytes:
    """The acknowledgement of all that the scribe wrote."""
    return note.sign(Ack(of.chain_id, of.epoch, of.segment, of.seq - 1, of.leaf, NOW).text(), ORIGIN, LOG)


def alarm(chain_id: bytes) -> bytes:
    """What is posted to a webhook."""
    rows = [("chain", chain_id.hex()), ("kind", "SILENT"), ("time", str(NOW)), ("detail", "nothing was shipped")]
    return note.sign(lines.join("sidecar/v1/alarm", [*rows, ("evidence", "-")]), ORIGIN, LOG)


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file, content in build().items():
        (FOLDER / file).write_bytes(content)
