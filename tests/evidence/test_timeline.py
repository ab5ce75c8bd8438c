"""`sidecar timeline`: everything that belongs to an attempt, gaps in their place, four forms of one model."""

from __future__ import annotations

import csv
import html
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import pytest

from sidecar.chain import strictjson
from sidecar.chain.acts import Prune
from sidecar.chain.entry import EntryType
from sidecar.chain.payload import policy_time
from sidecar.chain.stream import Kind, records
from sidecar.errors import UsageError
from sidecar.evidence import Range, Row, Timeline, page, sheet, text, timeline
from tests.evidence.commands import here
from tests.evidence.day import AGENT, SECOND, Day, day
from tests.program import sidecar
from tests.scribe import START, Scribe

MINUTE = 60 * SECOND


@pytest.fixture(scope="module")
def whole() -> Day:
    return day()


def told(s: Scribe, agent: str | None = AGENT, start: int | None = None, end: int | None = None) -> Timeline:
    return timeline(records(BytesIO(s.stream()).read), Range(start, end, agent))


def decisions(told: Timeline) -> dict[int, dict[str, Any]]:
    return {row.seq: row.about for row in told.rows if row.kind == "decision"}


def kinds(told: Timeline) -> list[tuple[str, int]]:
    return [(row.kind, row.seq) for row in told.rows if row.kind != "decision"]


def test_an_attempt_has_all_that_belongs_to_it(whole: Day) -> None:
    of = {name: decisions(told(whole.s))[whole.seqs[name]] for name in ("read", "deny", "asks", "again")}
    done = whole.seqs["read done"]
    assert of["read"]["outcomes"][0] | {"by": None} == {
        "seq": done, "time": policy_time(whole.s.headers[done].wall_ns), "by": None,
        "status": "executed", "downstream_status": "200", "response": '{"name":"Acme GmbH"}', "response_digest": None,
        "began": None, "duration_ns": "12400000", "under_permit": False, "changed_arguments": False, "sealed": [],
    }  # fmt: skip
    judged = of["read"]["policy"]
    assert (judged["entry"], judged["commit"]["id"][:7], judged["signer"]["principal"]) == (
        2,
        "4f2c91a",
        "ada@example.com",
    )
    assert [(c["arguments"], c["effect"], c["reasons"][0]["code"]) for c in of["deny"]["considered"]] == [
        ('{"amount":400}', "ALLOW", "within_limit")
    ]
    assert [each["call"] for each in of["deny"]["refused"]] == ["ReportOutcome"]
    giver = of["asks"]["on_behalf_of"][0]
    assert (giver["id"], giver["to"], giver["actions"], giver["resources"]) == (
        "carla@example.com", AGENT, ["payments.*"], ["account:*"],
    )  # fmt: skip
    assert [(a["by"]["id"], a["verdict"], a["comment"]) for a in of["asks"]["approvals"]] == [
        ("bob@example.com", "approve", ""), ("dana@example.com", "approve", "checked against the contract"),
    ]  # fmt: skip
    assert [(a["seq"], a["effect"]) for a in of["asks"]["asked_again"]] == [(whole.seqs["again"], "ALLOW")]
    assert (
        of["again"]["asked_under"]["decision_seq"] == whole.seqs["asks"]
        and of["again"]["executor"] == "payments-gateway"
    )
    assert (of["again"]["outcomes"][0]["status"], of["again"]["outcomes"][0]["downstream_status"]) == ("failed", "503")
    assert all(not about["gaps"] for about in of.values())


def test_gaps_stand_in_their_place(whole: Day) -> None:
    account = told(whole.s, start=START - MINUTE)
    gaps = [(row.kind, row.seq) for row in account.rows if row.gap]
    lost, late, waiting = (whole.seqs[name] for name in ("lost", "late", "waiting"))
    assert gaps == [
        ("outside", 1), ("refusal", 6), ("refusal", 7), ("down", 14), ("clock", 15), ("decision", lost),
        ("decision", late), ("decision", waiting), ("outside", waiting),
    ]  # fmt: skip
    said = {row.seq: row.said for row in account.rows if row.gap}
    assert "(3 times)" in said[6] and "may be anybody's" in said[6] and "not on record" in said[14]
    about = decisions(account)
    assert about[lost]["gaps"] == ["allowed, and no outcome is recorded up to entry 19 at 2026-01-01T01:10:32.020Z"]
    assert about[late]["gaps"] == ["denied for want of a decision (engine_timeout)"]
    assert about[waiting]["gaps"][0].startswith("approvals given: 0 of 1, and it was not asked again; it waits")
    assert [row.seq for row in account.rows] == sorted(row.seq for row in account.rows)


def test_only_of_this_agent_in_this_window(whole: Day) -> None:
    other = told(whole.s, "another-agent")
    assert [*decisions(other)] == [whole.seqs["other"]]
    assert [row.seq for row in other.rows if row.kind == "refusal"] == [6, 8]  # nobody's, and its own
    first, second = (whole.s.headers[whole.seqs[name]].wall_ns for name in ("read", "deny"))
    assert [*decisions(told(whole.s, start=first, end=second))] == [whole.seqs["read"]]
    assert decisions(told(whole.s, start=first, end=first + 1))[whole.seqs["read"]]["outcomes"]  # though it came after
    late = told(whole.s, start=first + 1, end=second)
    assert kinds(late) == [("outcome", whole.seqs["read done"])] and "before this window" in late.rows[0].said
    assert [*decisions(told(whole.s, None))] == sorted(
        seq for seq, value in whole.s.payloads.items() if value["type"] == "DECISION"
    )


def test_a_sidecar_that_was_down_touches_every_window_in_its_time(whole: Day) -> None:
    down = whole.s.headers[14].wall_ns
    assert kinds(told(whole.s, start=down - 3 * MINUTE, end=down - 2 * MINUTE)) == [("down", 14)]
    assert kinds(told(whole.s, start=down + 1, end=down + SECOND)) == []


def changed(arrange: Callable[[Scribe, int], object]) -> Timeline:
    s = Scribe()
    s.open()
    s.policy()
    arrange(s, s.decision())
    s.close()
    return told(s)


def other_arguments(s: Scribe, seq: int) -> None:
    value = s.outcome_value(seq) | {"arguments_digest": "0" * 64}
    s.write(EntryType.OUTCOME, strictjson.dumps(value), ref_seq=seq)


def step_unsaid(s: Scribe, seq: int) -> None:
    s.outcome(seq)
    s.wall_offset += 5 * SECOND
    s.rejected(principal="x")


@pytest.mark.parametrize(
    ("arrange", "said"),
    [
        (lambda s, seq: None, "allowed, and no outcome is recorded"),
        (other_arguments, "the arguments differ"),
        (lambda s, seq: (s.outcome(seq), s.outcome(seq)), "2 outcomes are recorded"),
        (lambda s, seq: (s.outcome(seq), s.outcome(s.decision("DENY"))), "though it was not allowed"),
        (step_unsaid, "+5.000 s before this entry, and no entry says so"),
        (lambda s, seq: (s.outcome(seq), s.records.pop(4), s.records.pop(4)), "entries 2 to 3 are not here"),
        (lambda s, seq: (s.outcome(seq), s.records.pop(4)), "the entry that put its policy in force is not here"),
    ],
)
def test_each_gap_is_found(arrange: Callable[[Scribe, int], object], said: str) -> None:
    found = [gap for row in changed(arrange).rows if row.gap for gap in row.about.get("gaps", [row.said])]
    assert any(said in each for each in found), found


def test_a_whole_account_has_no_gap() -> None:
    assert not [row for row in changed(lambda s, seq: s.outcome(seq)).rows if row.gap]


def test_what_cannot_be_read_is_a_gap(whole: Day) -> None:
    stream = whole.s.stream()
    cut = timeline(records(BytesIO(stream[:-700]).read), Range(agent=AGENT))
    assert cut.rows[-1].kind == "unreadable" and cut.rows[-1].gap and "ended early" in cut.rows[-1].said
    s = day().s
    body = next(r for r in s.records if r.seq == 5)
    body.body = body.body[:-1] + b"X"
    assert ("unreadable", 5) in kinds(told(s))


def test_what_is_withheld_is_one_gap_in_its_place() -> None:
    s = day().s
    for r in s.records:
        if r.seq in (5, 6, 7, 12):
            r.kind, r.body = Kind.BARE, r.body[:216]
    account = told(s)
    gaps = [(row.seq, row.about["through"]) for row in account.rows if row.kind == "withheld"]
    assert gaps == [(5, 7), (12, 12)] and all(row.gap for row in account.rows if row.kind == "withheld")
    assert [row.seq for row in account.rows] == sorted(row.seq for row in account.rows)


def test_what_the_authority_allowed_is_told() -> None:
    s = Scribe(authority=True)
    s.open()
    s.policy()
    s.outcome(s.decision())
    s.seal("count")
    s.grant(Prune(s.chain_id, (s.run(0, 0),), "the retention period is over"))
    s.close()
    account = told(s)
    assert [(act["act"], act["reason"]) for act in account.read["allowed"]] == [
        ("prune", "the retention period is over")
    ]
    said = "The authority allowed at 2026-01-01T00:00:01Z: prune: the retention period is over"
    assert said in " ".join(line.strip() for line in text(account, 60)) and said in "".join(page([account]))


def test_a_window_that_is_too_long_is_refused(whole: Day) -> None:
    read = list(records(BytesIO(whole.s.stream()).read))
    assert timeline(read, Range(agent=AGENT), most=len(whole.s.payloads))
    for most in (1, 8, 15):
        with pytest.raises(UsageError, match=f"more than {most} entries.*give a shorter one"):
            timeline(read, Range(agent=AGENT), most=most)


HOSTILE = [
    "<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "=HYPERLINK(\"http://x\")", "+1+cmd|' /C calc'!A0",
    "@SUM(1)", "-2+3", "\t=1", "\x1b[31mred\x1b[0m", "a\r\nb", "\u202egpj.exe", "' =1", "\uff1d1", "&lt;b&gt;", "]]>",
]  # fmt: skip


def hostile() -> Timeline:
    s = Scribe()
    s.open()
    s.policy()
    for word in HOSTILE:
        value = s.decision_value("DENY")
        value["agent"]["id"] = AGENT
        value["reasons"] = [{"code": word, "message": word}]
        value["request"] |= {"action": word, "purpose": word, "resource": {"type": word, "id": word}}
        value["request"]["alternatives"] = [{"action": word, "resource": {"type": "t", "id": word}, "arguments": ""}]
        value["alternatives"] = [{"effect": "DENY", "reasons": value["reasons"]}]
        s.write(EntryType.DECISION, strictjson.dumps(value))
        s.rejected(cause=word, principal=AGENT, field=word)
    s.close()
    return told(s)


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_hostile_word_is_only_a_word_on_the_page() -> None:
    read = Page()
    source = "\n".join(page([hostile()]))
    read.feed(source)
    assert read.tags <= {
        "html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "h3", "p", "code", "ol", "li", "time",
        "span", "dl", "dt", "dd",
    }  # fmt: skip
    assert read.attributes <= {"lang", "charset", "http-equiv", "content", "name", "class", "id", "datetime"}
    assert "<script>alert(1)</script>" in read.text and "default-src 'none'" in source
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", source)
    assert html.escape('"><img src=x onerror=alert(1)>') in source


def test_a_hostile_word_is_no_formula_in_a_spreadsheet() -> None:
    lines = list(sheet([hostile()]))
    assert all(line.endswith("\r\n") and "\n" not in line[:-2] and "\r" not in line[:-2] for line in lines)
    read = list(csv.reader(StringIO("".join(lines), newline="")))
    assert {len(each) for each in read} == {len(read[0])}
    cells = [cell for each in read[1:] for cell in each]
    assert not [cell for cell in cells if cell.lstrip(' "').startswith(("=", "+", "-", "@", "\uff1d"))]
    assert '\'=HYPERLINK("http://x")' in cells and "'-2+3" in cells


@pytest.mark.parametrize("width", [20, 60, 200])
def test_lines_stay_lines_and_within_their_width(width: int) -> None:
    lines = list(text(hostile(), width))
    assert all(line.isprintable() and len(line) <= max(width, 40) for line in lines)


def test_the_forms_tell_the_same(whole: Day, tmp_path: Path) -> None:
    file = tmp_path / "ledger"
    file.write_bytes(whole.s.stream())
    window = ("--agent", AGENT, "--from", "2025-12-31T23:59:00Z", "--to", "2026-01-01T05:00:00+01:00")
    forms = {}
    for form in ("json", "csv", "html"):
        out = tmp_path / f"account.{form}"
        done = here("timeline", file, *window, "--format", form, "--out", out)
        assert done.returncode == 0, done.stderr
        forms[form] = out.read_bytes().decode()
    account = json.loads(forms["json"])
    places = [(row["kind"], row["seq"], row["gap"]) for row in account["rows"]]
    assert account["from"] == "2025-12-31T23:59:00.000000000Z" and account["read"]["verified"] is False
    read = csv.DictReader(StringIO(forms["csv"], newline=""))
    assert [(row["kind"], int(row["seq"]), row["gap"] == "yes") for row in read] == places
    on_page = re.findall(r'<li class="(gap|row)" id="entry-(\d+)-(\w+)">', forms["html"])
    assert [(kind, int(seq), gap == "gap") for gap, seq, kind in on_page] == places
    done = here("timeline", file, *window)
    assert done.returncode == 0 and "\x1b" not in done.stdout
    assert 'answered      {"name":"Acme GmbH"}' in done.stdout and "✗ GAP  no sidecar was running" in done.stdout
    assert sidecar("timeline", file, *window, "--format", "csv", "--out", tmp_path / "account.csv").returncode == 2


def test_a_row_says_what_it_is_to_programs() -> None:
    row = Row("clock", 3, START, "it moved", gap=True, about={"step_ns": "5"})
    assert row.to_json() == {
        "kind": "clock", "gap": True, "seq": 3, "time": policy_time(START), "said": "it moved", "step_ns": "5"
    }  # fmt: skip
