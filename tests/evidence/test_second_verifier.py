"""`verify.py`, the verifier in one file: alone in its own process, on every vector, and agreeing with the package's.

That it agrees on every attack is held in `tests.scribe.judge`, which asks both.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from sidecar.chain.ratchet import Ratchet, SegmentKeys
from sidecar.chain.stream import Kind, records
from sidecar.chain.tlog_proof import TlogProof
from sidecar.verify import Disclosure, Evidence, verify_stream
from sidecar.verify.openings import parse_openings
from tests.anchor.parties import OpensslAuthority
from tests.attacks.test_attacks_anchors import LEDGER, logged, stamped
from tests.conformance.cases import CASES, TRUST
from tests.conformance.driving import Answer, ask, due
from tests.conformance.make import TABLE
from tests.conformance.mutations import mutations
from tests.conformance.once import published
from tests.conformance.test_conformance import judged
from tests.evidence.mutants import DISAGREED, questions
from tests.needs import needs_program
from tests.scribe import SOAK, Scribe
from tests.second import FILE, VERIFY, comparable, first_bad, second

VECTORS = Path(__file__).parents[1] / "vectors"
STREAMS = [
    row
    for row in json.loads((VECTORS / "ledger" / "streams.json").read_text())
    if comparable((VECTORS / "ledger" / row["file"]).read_bytes(), Evidence())
]
ROWS = json.loads(TABLE.read_text())
ALONE = (sys.executable, "-I", str(FILE))
MOST_LINES, WIDEST = 1_870, 120
MUTANTS = 6_000 if SOAK else 100
BUNDLES = 3_000 if SOAK else 80


def run(where: Path, *arguments: object) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON of the file run by itself, with nothing of the package in sight."""
    command = [*ALONE, "verify", *map(str, arguments), "--json"]
    done = subprocess.run(command, cwd=where, capture_output=True, check=False)
    assert not done.stderr, done.stderr.decode()
    return done.returncode, json.loads(done.stdout)


# --- what it is


def test_it_is_no_longer_than_it_says() -> None:
    lines = FILE.read_text().splitlines()
    assert len(lines) <= MOST_LINES and max(map(len, lines)) <= WIDEST


def test_it_imports_the_standard_library_and_cryptography_alone() -> None:
    roots = set()
    for node in ast.walk(ast.parse(FILE.read_text())):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module is not None
            roots.add(node.module.split(".")[0])
    assert roots - sys.stdlib_module_names == {"cryptography"}


def test_nothing_else_is_loaded_when_it_runs(tmp_path: Path) -> None:
    """From another directory, isolated: of all that is installed here, cryptography and what that needs."""
    (tmp_path / "case.zip").write_bytes(CASES["good-crashed"].make())
    program = (
        "import runpy, sys\n"
        "started = set(sys.modules)\n"
        "sys.argv = ['verify.py', 'verify', 'case.zip', '--json']\n"
        "try:\n"
        f"    runpy.run_path({str(FILE)!r}, run_name='__main__')\n"
        "except SystemExit as ended:\n"
        "    assert ended.code == 4, ended\n"
        "print(*{name.split('.')[0] for name in set(sys.modules) - started}, file=sys.stderr)\n"
    )
    command = [sys.executable, "-I", "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert set(done.stderr.split()) - sys.stdlib_module_names == {"cryptography", "_cffi_backend", "_openssl"}


# --- the vectors


def keys_of(row: dict[str, Any], data: bytes) -> dict[int, SegmentKeys]:
    """Keys of the segments, from the seeds of a vector and the epoch notes that say where each epoch starts."""
    starts, last = {}, 0
    for kind, body in records(BytesIO(data).read):
        rows = dict(line.split(" ", 1) for line in body.decode(errors="replace").splitlines() if " " in line)
        if kind is Kind.EPOCH:
            starts[int(rows["epoch"])] = int(rows["segment"])
        if kind is Kind.SEAL:
            last = max(last, int(rows["segment"]))
    keys = {}
    for epoch, seed in row["seeds"].items():
        if int(epoch) in starts:
            first = starts[int(epoch)]
            ratchet = Ratchet(bytes.fromhex(row["chain"]), int(epoch), bytes.fromhex(seed), first)
            following = min((s for s in starts.values() if s > first), default=last + 1)
            keys |= {segment: ratchet.advance() for segment in range(first, following)}
    return keys


@pytest.mark.parametrize("row", STREAMS, ids=[row["file"] for row in STREAMS])
def test_stream_vectors(row: dict[str, Any]) -> None:
    data = (VECTORS / "ledger" / row["file"]).read_bytes()
    told, other = second(data, held_for(row))
    assert told == tuple(row["without_key"].values()), other.findings()


def held_for(row: dict[str, Any]) -> Evidence:
    """What a vector is judged with."""
    openings = parse_openings(row["openings"].encode()) if row.get("openings") else None
    return Evidence(receipts=[text.encode() for text in row["receipts"]], openings=openings)


@pytest.mark.parametrize("row", STREAMS, ids=[row["file"] for row in STREAMS])
def test_stream_vectors_with_disclosed_keys(row: dict[str, Any]) -> None:
    data = (VECTORS / "ledger" / row["file"]).read_bytes()
    if "cut" in row["file"] or "length" in row["file"]:
        return  # no keys can be told from what cannot be read to its end
    chain = bytes.fromhex(row["chain"])
    held = replace(held_for(row), disclosure=Disclosure(chain, keys_of(row, data)))
    told, other = second(data, held)
    assert told == first_bad(verify_stream(BytesIO(data).read, held)), other.findings()


def test_log_vectors(tmp_path: Path) -> None:
    """All receipts of the vectors' log, with its key and its witness's pinned: everything is anchored."""
    log, keys = VECTORS / "log", json.loads((VECTORS / "log" / "keys.json").read_text())
    row = STREAMS[0]
    genesis = next(
        b for k, b in records(BytesIO((VECTORS / "ledger" / row["file"]).read_bytes()).read) if k is Kind.ENTRY
    )
    identity = VERIFY.strict(VERIFY.stored_payload(VERIFY.Header._make(VERIFY.LAYOUT.unpack_from(genesis)), genesis))[
        "identity"
    ]
    policy = f"log {keys['log']}\nwitness w {keys['witness']}\nquorum w\n"
    trust = {"format": "sidecar/v1/trust", "chains": [{"chain": row["chain"], "identity": identity}], "policy": policy}
    names = ["roll-call.tlog-proof", *(f"entry-{n}.tlog-proof" for n in range(7)), "from-3.tlog-consistency"]
    stream, report = BytesIO((VECTORS / "ledger" / row["file"]).read_bytes()), VERIFY.Report()
    logged = [(log / name).read_bytes() for name in names]
    VERIFY.judge_stream(stream.read, report, VERIFY.read_trust(json.dumps(trust).encode()), [], [], logged, {})
    assert report.worst == VERIFY.UNANCHORED, report.findings()  # its tail is open, and one of its segments crashed
    assert report.checked["receipts of the pinned log, up to segment 5"]
    trust["policy"] = policy.replace("quorum w", "quorum none").replace(
        "log.example.org/fleet+6", "log.example.org/fleet+7"
    )
    (tmp_path / "trust.json").write_text(json.dumps(trust))
    done = subprocess.run([*ALONE, "verify", str(FILE), "--trust", "trust.json"], cwd=tmp_path, capture_output=True)
    assert done.returncode == 2 and b"no verifier key" in done.stderr and done.stderr.count(b"\n") == 1


def test_signing_vectors() -> None:
    signing = VECTORS / "signing"
    digests = json.loads((signing / "digests.json").read_text())
    keys = {each["type"]: b64decode(each["spki"]) for each in json.loads((signing / "keys.json").read_text())}
    for row in digests["request"]:

        def option(each: dict[str, str]) -> dict[str, Any]:
            return {**each, "resource": {"type": each["type"], "id": each["id"]}}

        def base64_of(text: str) -> str:
            return VERIFY.base64.b64encode(bytes.fromhex(text)).decode()

        asked = {**row, **option(row["wanted"]), "alternatives": [option(each) for each in row["alternatives"]]}
        asked["last_receipt"] = base64_of(row["last_receipt"])
        asked["delegations"] = [
            {"text": d["text"], "key": base64_of(d["key"]), "signature": base64_of(d["signature"])}
            for d in row["delegations"]
        ]
        decision = {"agent": {"id": row["agent"]}, "request": asked}
        assert VERIFY.request_digest(decision).hex() == row["digest"]
        assert VERIFY.action_digest(decision).hex() == row["action_digest"]
    for row in json.loads((signing / "statements.json").read_text()):
        text, signature = row["statement"].encode(), bytes.fromhex(row["signature"])
        assert VERIFY.read_lines(row["statement"], "statement")["kind"] == row["kind"]
        assert VERIFY.signed_by(keys[row["key"]], signature, text)
        assert not VERIFY.signed_by(keys[row["key"]], signature, text + b"x")
        assert not VERIFY.signed_by(keys[row["key"]], bytes(64), text)
    permit = json.loads((signing / "permit.json").read_text())
    text, _, signature = VERIFY.read_one(permit["permit"].encode(), "permit")
    VERIFY.check_signer(text, signature, f"sidecar.v1/{permit['chain']}/identity", bytes.fromhex(permit["identity"]))


# --- the published bundles


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published(tmp_path_factory)


@pytest.mark.parametrize("name", sorted(CASES))
def test_published_bundle(made: Path, name: str) -> None:
    row = ROWS[name]
    assert judged_alone((made / f"{name}.zip").read_bytes(), (made / row["trust"]).read_bytes()) == due(row)


@pytest.mark.parametrize("name", ["good-agent", "good-crashed", "container-bomb", "31-no-tag-keys", "02-entry-deleted"])
def test_through_the_protocol(made: Path, name: str) -> None:
    assert ask(ALONE, made / f"{name}.zip", made / ROWS[name]["trust"]) == due(ROWS[name])


def judged_alone(bundle: bytes, trust: bytes) -> Answer:
    """The second verifier's answer, in this process."""
    report = VERIFY.Report()
    VERIFY.judge_bundle(BytesIO(bundle), report, VERIFY.read_trust(trust))
    bad = next((found for found in report.findings() if found[0] > VERIFY.UNANCHORED), None)
    return Answer(VERIFY.VERDICTS[report.worst], None if bad is None else bad[1:4])


# --- both agree


def test_agreement_on_changed_ledgers() -> None:
    for seed, data, held in questions((*DISAGREED, *range(MUTANTS))):
        if not comparable(data, held):
            continue  # its first record is now context, as that of a segment file
        told, other = second(data, held)
        due_here = verify_stream(BytesIO(data).read, held)
        assert told == first_bad(due_here), (seed, due_here.findings[:5], other.findings()[:5])


def test_agreement_on_changed_bundles() -> None:
    trust = TRUST["trust.json"]()
    for name, bundle in mutations(0, BUNDLES):
        assert judged_alone(bundle, trust) == judged(bundle, trust), name


# --- timestamps: imprint and nonce, and who is to be asked for the rest


@pytest.mark.parametrize(("what", "verdict"), [("good", "OK"), ("nonce", "TAMPERED"), ("bytes", "TAMPERED")])
def test_timestamps(what: str, verdict: str, tmp_path: Path) -> None:
    needs_program("openssl")
    notary, answer = logged()
    authority = OpensslAuthority.make(tmp_path / "tsa")
    stamp = stamped(authority, TlogProof.parse(answer).checkpoint)
    value = json.loads(stamp.encode())
    if what == "nonce":
        value["nonce"] = str(int(value["nonce"]) ^ 1)
    if what == "bytes":
        value["response"] = json.loads(stamped(authority, notary.signed(2)).encode())["response"]
    held = Evidence(trust=notary.trust(LEDGER), logged=[answer], timestamps=[json.dumps(value).encode()])
    told, report = second(LEDGER.stream(), held)
    assert told[0] == verdict, report.findings()
    assert (what == "good") == any("openssl ts -verify" in line for line in report.not_checked)


# --- the person's side


def test_what_a_person_is_told(tmp_path: Path) -> None:
    bundle, trust = tmp_path / "case.zip", tmp_path / "trust.json"
    bundle.write_bytes(CASES["02-entry-deleted"].make())
    trust.write_bytes(TRUST["trust.json"]())
    done = subprocess.run([*ALONE, "verify", str(bundle), "--trust", str(trust)], capture_output=True, text=True)
    first, *rest = done.stdout.splitlines()
    assert done.returncode == 1 and first.startswith("TAMPERED: ") and "not checked:" in rest
    assert any(line.startswith("  TAMPERED chain ") and ", seq " in line for line in rest)


@pytest.mark.parametrize(
    "arguments", [[], ["verify"], ["verify", "nowhere.zip"], ["verify", str(FILE), "--trust", str(FILE)]]
)
def test_misuse(arguments: Sequence[str], tmp_path: Path) -> None:
    done = subprocess.run([*ALONE, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and not done.stdout and "Traceback" not in done.stderr


def test_memory_is_flat(tmp_path: Path) -> None:
    """A process of its own on 100,000 entries, in soak a million: what one needs over what a small ledger needs."""
    peaks = [_peak(tmp_path, count) for count in ((20_000, 1_000_000) if SOAK else (500, 6_000))]
    assert peaks[1] < peaks[0] + 40_000, peaks  # KiB


def _peak(where: Path, entries: int) -> int:
    s = Scribe()
    s.open()
    path = where / f"{entries}.sdcseg"
    with path.open("wb") as file:
        file.write(b"SDCSEG\0\1")
        for n in range(entries):
            s.rejected()
            if n % 1_000 == 999:
                s.seal("count")
            if len(s.records) > 1_000:
                _flush(s, file)
        s.close()
        _flush(s, file)
    program = (
        "import resource, runpy, sys\n"
        "verify = runpy.run_path(sys.argv[1])\n"
        "report = verify['Report']()\n"
        "verify['judge_stream'](open(sys.argv[2], 'rb').read, report, None, [], [], [], {})\n"
        "assert report.worst == 3 and report.chains[0][1] == int(sys.argv[3]) + 3, report.findings()\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    command = [sys.executable, "-I", "-c", program, str(FILE), str(path), str(entries)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _flush(s: Scribe, file: Any) -> None:
    for each in s.records:
        file.write(bytes((each.kind,)) + len(each.body).to_bytes(4, "big") + each.body)
    s.records.clear()
    s.payloads.clear()
    s.headers.clear()
