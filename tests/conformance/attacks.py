"""The attacks of `tests/attacks` as published bundles: what each test has judged, put into a bundle with what it held.

    python -m tests.conformance.attacks DIRECTORY       # runs tests/attacks, writes what they judge

A stream is taken over where the bundle has the same verdict for it as the stream alone, or a worse one at the same
place: with keys disclosed, and not a custodian's, a wrong tag is known only at the seal. Segment files, and timestamps,
which a verifier need not check whole, are left out.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from sidecar.chain import note, payload, seeds, tlog_proof
from sidecar.chain.entry import EntryType, Header, StoredEntry
from sidecar.chain.epoch import EpochNote
from sidecar.chain.ratchet import Ratchet, SegmentKeys
from sidecar.chain.stream import Kind, records
from sidecar.errors import SidecarError
from sidecar.verify import Disclosure, Evidence, Report, Trust, verify_bundle
from sidecar.verify.policy import Policy
from sidecar.verify.trust import parse_trust
from tests.conformance.packing import Files, packed

PUBLISH = os.environ.get("TESTS_PUBLISH_ATTACKS", "")
_OF_ONE_TEST = 6
_ENDS = re.compile(r"the stream ends with segment (-?\d+), and")
_published: Counter[str] = Counter()


class Bytes:
    """A bundle in memory."""

    def __init__(self, data: bytes) -> None:
        self._data, self.size = data, len(data)

    def read_at(self, offset: int, size: int) -> bytes:
        return self._data[offset : offset + size]


def publish(stream: bytes, evidence: Evidence, report: Report) -> None:
    """Write one bundle, if this stream can be one and its test has not had its share."""
    test = re.sub(r"[^A-Za-z0-9]+", "-", os.environ["PYTEST_CURRENT_TEST"].partition("::")[2].removesuffix(" (call)"))
    starts = stream.startswith((b"SDCSEG\0\x01\x02", b"SDCSEG\0\x01\x08"))
    if _published[test] >= _OF_ONE_TEST or report.chain_id is None or not starts:
        return
    made = _bundle(stream, evidence, report)
    if made is None:
        return
    bundle, trust = made
    judged = verify_bundle(Bytes(bundle), Evidence(trust=parse_trust(trust) if trust else None))
    plain, bad = report.first_bad(), judged.first_bad()
    same = (plain is None) == (bad is None) and (
        plain is None or bad is None or (plain.segment, plain.seq) == (bad[1].segment, bad[1].seq)
    )
    if not same or judged.verdict < report.verdict:
        return
    name = f"attack-{test.strip('-').lower()[:100]}-{_published[test]}"
    _published[test] += 1
    place = Path(PUBLISH)
    (place / f"{name}.zip").write_bytes(bundle)
    (place / f"{name}.trust.json").write_bytes(trust or b"")
    where = None if bad is None else {"chain": bad[0] and bad[0].hex(), "segment": bad[1].segment, "seq": bad[1].seq}
    row = {"trust": f"{name}.trust.json" if trust else None, "verdict": judged.verdict.name, "first_bad": where}
    (place / f"{name}.row.json").write_text(json.dumps(row))


def _bundle(stream: bytes, evidence: Evidence, report: Report) -> tuple[bytes, bytes | None] | None:
    chain = report.chain_id
    assert chain is not None
    place = f"data/chains/{chain.hex()}"
    if evidence.timestamps or any(not d.startswith(f"{tlog_proof.KIND}\n".encode()) for d in evidence.logged):
        return None
    if any(not data.startswith(b"old ") for data in evidence.consistency):
        return None
    files: Files = {f"{place}/stream.sdcseg": stream}
    for number, data in enumerate((*evidence.logged, *evidence.consistency), 1):
        files[f"{place}/receipts/{number}"] = data
    for number, data in enumerate(evidence.receipts, 1):
        files[f"{place}/callers/{number}"] = data
    keys = evidence.disclosure if evidence.open_seed is None else Disclosure(chain, dict(_keys(stream, evidence)))
    if keys is not None:
        files[f"{place}/disclosure.json"] = keys.encode()
    trust = None if evidence.trust is None else _trust(evidence.trust)
    last = _last_segment(files, chain, report.entries)
    return packed({**files, "data/case.json": _case(chain, last, report.entries)}), trust


def _case(chain: bytes, last: int, entries: int) -> bytes:
    claim = {"chain": chain.hex(), "first_segment": 0, "last_segment": last, "entries": entries, "through": None}
    case = {
        "format": "sidecar/v1/evidence", "case": "attack", "from": "1970-01-01T00:00:00.000000000Z",
        "to": "9999-01-01T00:00:00.000000000Z", "agents": None, "profile": "full", "exporter": "tests",
        "exported": "2026-02-01T00:00:00.000000000Z", "source": {"kind": "ledger", "place": "tests"},
        "chains": [claim], "statements": [],
    }  # fmt: skip
    return json.dumps(case).encode()


def _last_segment(files: Files, chain: bytes, entries: int) -> int:
    """What our verifier says is the last: a claim that is surely wrong makes it tell."""
    asked = packed({**files, "data/case.json": _case(chain, 2**53 - 1, entries)})
    for _, finding in verify_bundle(Bytes(asked), Evidence()).findings:
        found = _ENDS.search(finding.reason)
        if found is not None:
            return max(0, int(found[1]))
    return 0


def _keys(stream: bytes, evidence: Evidence) -> Iterator[tuple[int, SegmentKeys]]:
    """What a custodian who opens what it can would disclose of all segments that have a seal."""
    ratchet, segment, before, genesis = None, 0, b"", b""
    assert evidence.open_seed is not None
    try:
        for kind, body in records(BytesIO(stream).read):
            if kind is Kind.EPOCH:
                before, ratchet = body, None
            elif kind is Kind.ENTRY and body[8:9] in (b"\x01", b"\x02"):
                stored = StoredEntry.parse(body)
                content = stored.payload(Header.decode(stored.header).payload_len)
                if body[8] == EntryType.GENESIS:
                    genesis = content
                else:
                    epoch = EpochNote.parse(note.parse(before).text)
                    custody = seeds.custody_of(payload.parse(EntryType.GENESIS, genesis))
                    shares = seeds.shares_of(payload.parse(EntryType.OPEN, content))
                    seed = evidence.open_seed(custody, epoch.chain_id, epoch.epoch, shares)
                    ratchet = Ratchet(epoch.chain_id, epoch.epoch, seed, epoch.segment)
                    segment = epoch.segment
            elif kind is Kind.SEAL and ratchet is not None:
                yield segment, ratchet.advance()
                segment += 1
    except SidecarError:
        return


def _trust(trust: Trust) -> bytes:
    value: dict[str, Any] = {
        "format": "sidecar/v1/trust",
        "chains": [{"chain": chain.hex(), "identity": key.hex()} for chain, key in trust.chains.items()],
        "custodians": [each.hex() for each in trust.custodians],
        "principals": [{"id": name, "keys": sorted(keys)} for name, keys in trust.principals.items()],
    }
    if trust.policy is not None:
        value["policy"] = _policy(trust.policy)
    return json.dumps(value).encode()


def _policy(policy: Policy) -> str:
    rows = [f"log {key}" for key in policy.logs]
    rows += [f"witness {name} {key}" for name, key in policy.witnesses.items()]
    rows += [f"group {name} {count} {' '.join(members)}" for name, (count, members) in policy.groups.items()]
    return "".join(f"{row}\n" for row in [*rows, f"quorum {policy.quorum}"])


def gather(directory: Path) -> int:
    """`expected.json` of what was written; how many bundles."""
    table = {}
    for row in sorted(directory.glob("*.row.json")):
        table[row.name.removesuffix(".row.json")] = json.loads(row.read_text())
        row.unlink()
    (directory / "expected.json").write_text(json.dumps(table, indent=1) + "\n")
    return len(table)


def main(directory: Path) -> int:
    """Run the attacks and gather what they published."""
    import subprocess

    directory.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "tests/attacks"]
    done = subprocess.run(command, env={**os.environ, "TESTS_PUBLISH_ATTACKS": str(directory)}, check=False)
    print(gather(directory), "bundles")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
