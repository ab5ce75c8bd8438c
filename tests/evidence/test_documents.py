"""The documents of a bundle: certificate, report, timeline, events, entries; two profiles; hostile data is data."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import subprocess
import sys
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

from sidecar.chain import strictjson
from sidecar.chain.entry import EntryType
from sidecar.chain.payload import policy_time
from sidecar.chain.timestamp import Timestamp
from sidecar.errors import AnchorRefused
from sidecar.evidence.received import Received
from sidecar.evidence.report import shown
from tests.evidence.bundled import KEY, exported
from tests.evidence.commands import here
from tests.evidence.day import AGENT, Day, day
from tests.evidence.test_timeline import HOSTILE
from tests.evidence.verapdf import verapdf
from tests.needs import needs_program
from tests.notary import TIME, Notary, standing
from tests.program import environment, sidecar
from tests.scribe import Scribe, story

SECRET = "4711-0815"
NOT_DOCUMENTS = ("stream.sdcseg",)


@pytest.fixture(scope="module")
def whole() -> Day:
    return day()


@pytest.fixture(scope="module")
def files(whole: Day) -> dict[str, bytes]:
    return exported(whole.s, story())


def statement(files: dict[str, bytes]) -> dict[str, Any]:
    envelope = json.loads(files["certificate.dsse.json"])
    read: dict[str, Any] = json.loads(b64decode(envelope["payload"]))
    return read


def text_of(pdf: bytes, place: Path) -> str:
    """What a reader of the PDF reads, in one line and without the places where words may break."""
    program = needs_program("pdftotext")
    file = place / "report.pdf"
    file.write_bytes(pdf)
    done = subprocess.run([program, "-raw", file, "-"], capture_output=True, check=True, text=True)
    return " ".join(done.stdout.replace("\u200b", "").split())


# --- certificate


def verified(envelope: bytes, key: Ed25519PrivateKey) -> Envelope:
    read = Envelope.from_dict(json.loads(envelope))
    keyid = next(iter(read.signatures))
    read.verify([SSlibKey.from_crypto(key.public_key(), keyid=keyid)], 1)
    return read


def test_a_stranger_s_dsse_verifier_takes_the_certificate_and_no_other(files: dict[str, bytes]) -> None:
    envelope = files["certificate.dsse.json"]
    assert json.loads(verified(envelope, KEY).payload)["_type"] == "https://in-toto.io/Statement/v1"
    with pytest.raises(VerificationError):
        verified(envelope, Ed25519PrivateKey.generate())
    changed = json.loads(envelope)
    payload = b64decode(changed["payload"]).replace(b"case 7", b"case 8")
    assert payload != b64decode(changed["payload"])
    with pytest.raises(VerificationError):
        verified(json.dumps(changed | {"payload": b64encode(payload).decode()}).encode(), KEY)


def test_the_certificate_is_about_every_other_file(files: dict[str, bytes]) -> None:
    subject = {each["name"]: each["digest"]["sha256"] for each in statement(files)["subject"]}
    inside = {
        f"data/{name}": hashlib.sha256(data).hexdigest() for name, data in files.items() if "manifest" not in name
    }
    due = {
        n: d
        for n, d in inside.items()
        if not n.endswith(("certificate.dsse.json", "report.pdf", "bagit.txt", "info.txt"))
    }
    assert subject == due and [*subject] == sorted(subject) and "data/case.json" in subject


def test_the_certificate_says_who_produced_sealed_and_judged(files: dict[str, bytes], whole: Day) -> None:
    said, case = statement(files)["predicate"], json.loads(files["case.json"])
    assert {name: said[name] for name in ("case", "from", "to", "agents", "profile", "statements")} == {
        name: case[name] for name in ("case", "from", "to", "agents", "profile", "statements")
    }
    assert (said["judged"]["verdict"], said["judged"]["trust"]) == ("TAMPERED", None)  # the day's signatures are none
    assert said["judged"]["first_bad"]["verdict"] == "TAMPERED"
    chain = next(each for each in said["chains"] if each["chain"] == whole.s.chain_id.hex())
    assert chain["identity"] == whole.s.identity.public_key().public_bytes_raw().hex()
    assert [each["epoch"] for each in chain["produced"]] == [0, 1]
    assert (chain["sealed"]["segments"], chain["sealed"]["crashed"]) == (1, [0])
    assert (chain["received"], chain["timestamped"], len(chain["custodians"])) == ([], [], 1)
    assert said["exported"]["key"] == json.loads(files["certificate.dsse.json"])["signatures"][0]["keyid"]


def test_receipts_say_who_received_and_a_time_only_if_it_was_checked() -> None:
    s = with_secrets()
    log = Notary(witnesses=2)
    log.take(s)
    roll = log.call_roll(standing(s))
    checkpoint = "log.example.org\n7\n" + b64encode(b"r" * 32).decode() + "\n"
    files = [
        log.of_seal(s, 0),
        log.answer(roll, s.chain_id),
        Timestamp(checkpoint, 5, b"x").encode(),
        b"{}",
        b"neither",
    ]

    def refuse(stamp: Timestamp) -> int:
        raise AnchorRefused("no root")

    for check, time in ((None, None), (refuse, None), (lambda stamp: 86_400, "1970-01-02T00:00:00.000000000Z")):
        told = Received(check).take(files).to_json()
        assert told["timestamped"] == [{"log": "log.example.org", "size": 7, "time": time}]
    [received] = told["received"]
    assert (received["log"], received["receipts"], received["size"]) == (log.origin, 2, len(log.entries))
    assert len(received["cosigned_by"]) == 2 and received["roll_call"] == policy_time(TIME * 10**9)


def test_the_same_things_give_the_same_bytes(files: dict[str, bytes], whole: Day) -> None:
    assert exported(whole.s, story()) == files


def test_without_a_key_nobody_signs_and_that_is_said(whole: Day, tmp_path: Path) -> None:
    files = exported(whole.s, key=None)
    assert "certificate.dsse.json" not in files
    assert "none: the exporter gave no key" in text_of(files["report.pdf"], tmp_path)


# --- report


def test_the_report_carries_the_certificate_and_the_account(files: dict[str, bytes], tmp_path: Path) -> None:
    read = text_of(files["report.pdf"], tmp_path)
    assert hashlib.sha256(files["certificate.dsse.json"]).hexdigest() in read
    for said in (
        "Evidence report: case 7", "TAMPERED Something was changed.", "It is no legal advice, and no claim",
        "Article 12(1) and (2)", "Article 19(1)", "Article 26(6)", "PI1.4", "PI1.5", "CC7.2", "CC7.3",
        "240.17a-4(f)(2)",
        "FINRA Rule 4511", "section 404", "164.312(b)", "164.312(c)(1) and (2)", "Allowed under approvals (1)",
        "approved by bob@example.com, dana@example.com", "commit 4f2c91a8d7e6 by Ada Byte", "allowed, and no outcome",
        "no sidecar was running", "sealed by the run after it: 0", "Yours to do",
    ):  # fmt: skip
        assert said in read, said
    for claim in ("compliant", "complies with", "certified", "guarantee"):
        assert not re.search(rf"(?<!anybody )\b{claim}\b(?! anything)", read), claim


def test_the_report_is_pdf_a_by_its_own_words(files: dict[str, bytes]) -> None:
    pdf = files["report.pdf"]
    assert pdf.startswith(b"%PDF-1.7") and b"<pdfaid:part>2</pdfaid:part>" in pdf
    assert (
        b"<pdfaid:conformance>A</pdfaid:conformance>" in pdf
        and b"/EmbeddedFile" not in pdf
        and b"/JavaScript" not in pdf
    )


def test_the_report_is_pdf_a_by_another_s_judgement(files: dict[str, bytes], tmp_path: Path) -> None:
    good, bad = tmp_path / "good.pdf", tmp_path / "bad.pdf"
    good.write_bytes(files["report.pdf"])
    bad.write_bytes(files["report.pdf"].replace(b"<pdfaid:part>2<", b"<pdfaid:part>9<"))
    said = subprocess.run([*verapdf(), "--flavour", "2a", good, bad], capture_output=True, text=True).stdout
    assert said.count('profileName="PDF/A-2A') == 2, said[-2_000:]
    assert re.findall(r'isCompliant="(\w+)"', said) == ["true", "false"]
    for_all = subprocess.run([*verapdf(), "--flavour", "ua1", good], capture_output=True, text=True).stdout
    assert 'profileName="PDF/UA-1' in for_all and 'isCompliant="true"' in for_all, for_all[-2_000:]


def test_hostile_words_are_words_in_the_report(tmp_path: Path) -> None:
    words = [
        *HOSTILE,
        "#panic()",
        '#import "/etc/passwd": *',
        "*bold* $x$ @ref <label>",
        "\\u{41}",
        "x" * 5_000,
        "中文 😀 \ue000",
    ]
    s = Scribe()
    s.open()
    s.policy()
    for word in words:
        value = s.decision_value("REQUIRE_APPROVAL")
        value["agent"]["id"] = word[:200]
        value["request"] |= {"action": word, "resource": {"type": word[:50], "id": word}}
        value["reasons"] = [{"code": "c", "message": word[:1_000]}]
        s.write(EntryType.DECISION, strictjson.dumps(value))
    s.close()
    files = exported(s, name="#panic() *b* 中 <script>")
    read = text_of(files["report.pdf"], tmp_path)
    assert "Evidence report: #panic() *b* <U+4E2D> <script>" in read
    for word in (
        "#panic() #panic():",
        '#import "/etc/passwd": *',
        "*bold* $x$ @ref <label>",
        "<U+4E2D><U+6587> <U+1F600>",
    ):
        assert word in read, word
    assert "x" * 5_000 not in read
    cells = [cell for row in csv.reader(io.StringIO(files["entries.csv"].decode(), newline="")) for cell in row]
    assert not [cell for cell in cells if cell.lstrip(' "').startswith(("=", "+", "-", "@", "\uff1d"))]
    assert all(cell.isprintable() or "\xa0" in cell for cell in cells) and "'@SUM(1)" in cells


def test_every_character_that_is_shown_can_be_set(tmp_path: Path) -> None:
    from sidecar.evidence.report import _SHOWN

    s = Scribe()
    s.open()
    value = s.decision_value("DENY")
    value["request"]["action"] = "".join(sorted(_SHOWN))
    s.write(EntryType.DECISION, strictjson.dumps(value))
    s.close()
    assert exported(s)["report.pdf"].startswith(b"%PDF")  # Typst refuses what a font has not
    assert shown("中") == "<U+4E2D>" and len(shown("y" * 10_000)) < 700


def test_a_report_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    ledger, out = tmp_path / "ledger", tmp_path / "case.zip"
    assert here("init", "--data-dir", ledger).returncode == 0
    program = "import sys; sys.modules['typst'] = None; from sidecar.cli import main; main()"
    window = ["--from", "2026-01-01", "--to", "2099-01-01"]
    command = [sys.executable, "-c", program, "evidence", "export", ledger, *window, "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    assert "report.pdf was left out: the report needs Typst; install decision-sidecar[evidence]" in done.stderr


# --- events


def fingerprints(line: bytes) -> tuple[str, str]:
    """What the event says, and what RFC 8785 and SHA-256 give for it, by another JSON writer."""
    event = json.loads(line)
    said = event["attestation_list"][0].pop("fingerprint")
    written = json.dumps(event, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    assert (said["algorithm_id"], said["serialization_id"], said["encoding_id"]) == (3, 2, 1)
    return said["value"], hashlib.sha256(written.encode()).hexdigest()


def test_events_are_a_hash_chain_by_their_own_rules(files: dict[str, bytes]) -> None:
    before: dict[str, dict[str, Any]] = {}
    for line in files["events.ocsf.jsonl"].splitlines():
        event = json.loads(line)
        said, due = fingerprints(line)
        assert said == due
        attested = event["attestation_list"][0]
        last = before.get(attested["chain_uid"])
        assert ("prev_event" in attested) == (last is not None)
        if last is not None:
            told = attested["prev_event"]
            assert (told["uid"], told["type_uid"]) == (last["metadata"]["uid"], last["type_uid"])
            assert told["fingerprint"] == last["attestation_list"][0]["fingerprint"]
        before[attested["chain_uid"]] = event
    assert len(before) == 2


REQUIRED = {"activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid"}
CLASSES = {  # OCSF 1.9.0: class, category, and what else is required there
    "DECISION": (6003, 6, {"actor", "api", "src_endpoint"}),
    "OUTCOME": (6003, 6, {"actor", "api", "src_endpoint"}),
    "APPROVAL": (6003, 6, {"actor", "api", "src_endpoint"}),
    "REJECTED": (6003, 6, {"actor", "api", "src_endpoint"}),
    "POLICY": (3004, 3, {"entity"}),
    "OPEN": (6002, 6, {"app"}),
    "CLOSE": (6002, 6, {"app"}),
    "CLOCK": (0, 0, set()),
    "GENESIS": (0, 0, set()),
}


def test_each_entry_is_an_event_of_its_class(files: dict[str, bytes], whole: Day) -> None:
    events = [json.loads(line) for line in files["events.ocsf.jsonl"].splitlines()]
    assert {e["metadata"]["event_code"] for e in events} == {*CLASSES}
    for event in events:
        uid, category, more = CLASSES[event["metadata"]["event_code"]]
        assert (event["class_uid"], event["category_uid"]) == (uid, category)
        assert event["type_uid"] == uid * 100 + event["activity_id"] and {*event} >= REQUIRED | more
        assert event["metadata"]["version"] == "1.9.0" and "record_integrity" in event["metadata"]["profiles"]
    of = {e["metadata"]["uid"]: e for e in events}
    named = {name: of[f"{whole.s.chain_id.hex()}/{seq}"] for name, seq in whole.seqs.items()}
    effects = {name: (named[name]["action_id"], named[name]["disposition_id"]) for name in ("read", "deny", "asks")}
    assert effects == {"read": (1, 1), "deny": (2, 2), "asks": (99, 14)}
    assert (named["again done"]["status_id"], named["again done"]["status_code"]) == (2, "503")
    assert (named["late"]["status_id"], named["late"]["status_code"]) == (2, "engine_timeout")
    leaf = whole.s.leaf_of(whole.seqs["read"])
    assert named["read"]["raw_data_hash"]["value"] == leaf.hex()
    assert named["read"]["metadata"]["correlation_uid"] == named["read done"]["metadata"]["correlation_uid"]


# --- entries, timeline


def test_every_entry_has_a_record(files: dict[str, bytes], whole: Day) -> None:
    read = list(csv.DictReader(io.StringIO(files["entries.csv"].decode(), newline="")))
    own = [row for row in read if row["chain"] == whole.s.chain_id.hex()]
    assert [int(row["seq"]) for row in own] == [*range(whole.s.seq)]
    assert [row["type"] for row in own] == [whole.s.payloads[seq]["type"] for seq in range(whole.s.seq)]
    row = own[whole.seqs["deny"]]
    assert (row["agent"], row["action"], row["effect"]) == (AGENT, "payments.refund", "DENY")
    assert own[whole.seqs["again done"]]["about_seq"] == str(whole.seqs["again"])
    assert all(row["leaf"] == whole.s.leaf_of(int(row["seq"])).hex() for row in own)


def test_the_timeline_in_a_bundle_is_of_all_its_chains(files: dict[str, bytes], whole: Day) -> None:
    told = json.loads(files["timeline.json"])
    assert told["format"] == "sidecar/v1/timelines" and len(told["chains"]) == 2
    own = next(each for each in told["chains"] if each["read"]["chain"] == whole.s.chain_id.hex())
    assert [row["seq"] for row in own["rows"] if row["kind"] == "decision"] == [
        seq for seq in range(whole.s.seq) if whole.s.payloads[seq]["type"] == "DECISION"
    ]


def test_lean_is_without_events_and_entries_and_has_the_same_figures(files: dict[str, bytes], whole: Day) -> None:
    lean = exported(whole.s, story(), lean=True)
    assert {*files} - {*lean} == {"events.ocsf.jsonl", "entries.csv"}
    assert lean["timeline.json"] == files["timeline.json"]
    assert statement(lean)["predicate"] == statement(files)["predicate"]


# --- profiles


def with_secrets() -> Scribe:
    s = Scribe()
    s.open()
    s.policy()
    value = s.decision_value("ALLOW")
    value["request"] |= {"arguments": f'{{"card":"{SECRET}"}}', "purpose": SECRET}
    value["request"]["context"] = f'{{"c":"{SECRET}","door":{{"kind":"mcp","tool":"{SECRET}"}}}}'
    value["request"]["alternatives"] = [
        {"action": "a", "resource": {"type": "t", "id": "i"}, "arguments": f'{{"card":"{SECRET}"}}'}
    ]
    value["alternatives"] = [{"effect": "DENY", "reasons": [{"code": "c", "message": "m"}]}]
    seq = s.write(EntryType.DECISION, strictjson.dumps(value))
    done = s.outcome_value(seq) | {"response": f'{{"card":"{SECRET}"}}'}
    s.write(EntryType.OUTCOME, strictjson.dumps(done), ref_seq=seq)
    s.close()
    return s


def test_external_leaves_values_out_of_every_document(tmp_path: Path) -> None:
    s = with_secrets()
    for profile, due in (("full", True), ("external", False)):
        files = exported(s, profile=profile)
        documents = {name: data for name, data in files.items() if not name.endswith(NOT_DOCUMENTS)}
        documents["report.pdf"] = text_of(files["report.pdf"], tmp_path).encode()
        found = {name for name, data in documents.items() if SECRET.encode() in data}
        assert found == ({"events.ocsf.jsonl", "timeline.json"} if due else set())
    row = next(row for row in json.loads(files["timeline.json"])["rows"] if row["kind"] == "decision")
    mark = "[left out: profile external]"
    assert (row["arguments"], row["considered"][0]["arguments"], row["outcomes"][0]["response"]) == (mark, mark, mark)
    assert statement(files)["predicate"]["profile"] == "external"


def test_of_others_a_bundle_about_one_agent_says_nothing(whole: Day) -> None:
    files = exported(whole.s, agents=(AGENT,))
    told = json.loads(files["timeline.json"])
    assert {row["agent"]["id"] for row in told["rows"] if row["kind"] == "decision"} == {AGENT}
    for name in ("timeline.json", "events.ocsf.jsonl", "entries.csv"):
        assert b"another-agent" not in files[name], name
    withheld = [json.loads(line) for line in files["events.ocsf.jsonl"].splitlines()]
    assert [e["unmapped"].get("payload") for e in withheld].count("withheld or pruned") >= 1


# --- the protocol


def test_every_member_that_is_written_is_in_the_protocol(files: dict[str, bytes]) -> None:
    protocol = (Path(__file__).parents[2] / "proto" / "CERTIFICATE.md").read_text("utf-8")
    named = set(re.findall(r"[`\"]([a-z_]+)[`\"]", protocol))
    said, told = statement(files)["predicate"], json.loads(files["timeline.json"])["chains"][1]
    rows = [row for row in told["rows"] if row["kind"] == "decision"]
    assert {*said, *said["exported"], *said["judged"], *(name for each in said["chains"] for name in each)} <= named
    assert {*told, *told["read"], *(name for row in rows for name in row)} <= named
    assert {row["kind"] for row in told["rows"]} <= named
    assert {*files["entries.csv"].decode().split("\r\n")[0].split(",")} <= named


# --- the command


def test_the_command_signs_with_the_exporter_s_key(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    assert here("init", "--data-dir", ledger).returncode == 0
    assert here("keys", "exporter", "--out", tmp_path / "exporter.pem").returncode == 0
    window, out = ("--from", "2026-01-01", "--to", "2099-01-01"), tmp_path / "case.zip"
    wrong = sidecar("evidence", "export", ledger, *window, "--out", out, "--certificate-key", ledger / "ledger.mdb")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1) and "sidecar keys exporter" in wrong.stderr
    done = here("evidence", "export", ledger, *window, "--out", out, "--certificate-key", tmp_path / "exporter.pem")
    assert done.returncode == 0, done.stderr
    told = json.loads(here("timeline", out, "--agent", "x", "--format", "json").stdout)
    assert told["read"]["entries"] == 3 and here("replay", out).returncode == 3
