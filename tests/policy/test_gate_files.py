"""What the gate reads before any OPA runs: the tree, expectations.yaml, and the re-running of inputs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.errors import EngineTimeout
from sidecar.policy import STARTER_BUNDLE, STARTER_ENTRYPOINT, Evaluation, PolicyVersion, Rerun, WasmEngine, rerun
from sidecar.policy.expectations import parse_expectations
from sidecar.policy.findings import MOST_FINDINGS, Finding, Refused, bounded
from sidecar.policy.lined_yaml import MAX_BYTES, YamlRefused, read_yaml
from sidecar.policy.tree import TreeLimits, read_tree

from .conftest import REQUEST

TOO_LARGE = "with this file the policy is larger than the gate takes"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    place = tmp_path / "policy"
    (place / "sub").mkdir(parents=True)
    (place / "p.rego").write_text("package p\n")
    (place / "sub" / "data.json").write_text("{}")
    return place


def refusal(place: Path, limits: TreeLimits | None = None) -> list[tuple[str, str]]:
    with pytest.raises(Refused) as caught:
        read_tree(place, limits or TreeLimits())
    return [(finding.file, finding.message) for finding in caught.value.findings]


def test_only_the_policys_files_are_read(place: Path) -> None:
    for name in ("README.md", "policy.wasm", ".signatures.json", "values.yaml"):
        (place / name).write_text("x")
    for hidden in (".git", "..data"):
        (place / hidden).mkdir()
        (place / hidden / "x.rego").write_text("package x\n")
    (place / ".manifest").write_text("{}")
    assert list(read_tree(place, TreeLimits())) == [".manifest", "p.rego", "sub/data.json"]


def test_a_mounted_config_map_is_read(tmp_path: Path) -> None:
    (tmp_path / "..1").mkdir()
    (tmp_path / "..1" / "p.rego").write_text("package p\n")
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "p.rego").symlink_to("..data/p.rego")
    assert read_tree(tmp_path, TreeLimits()) == {"p.rego": b"package p\n"}


Make = Callable[[Path], object]


@pytest.mark.parametrize(
    ("make", "file", "cause"),
    [
        (lambda p: (p / "x.rego").symlink_to("/etc/passwd"), "x.rego", "link out of the policy directory"),
        (lambda p: (p / "x.rego").symlink_to("../../outside"), "x.rego", "link to nothing"),
        (lambda p: (p / "x.rego").symlink_to("x.rego"), "x.rego", "link to nothing"),
        (lambda p: (p / "loop").symlink_to("."), "loop", "not a file"),
        (lambda p: (p / "out").symlink_to("/etc"), "out", "link out of the policy directory"),
        (lambda p: os.mkfifo(p / "x.rego"), "x.rego", "neither a file nor a directory"),
        (lambda p: (p / "P.rego").write_text(""), "p.rego", "in case only"),
        (lambda p: (p / "SUB").mkdir(), "sub", "in case only"),
        (lambda p: (p / "caf\u00e9.rego", p / "cafe\u0301.rego")[0].write_text("") or (p / "cafe\u0301.rego").touch(),
         "caf\\xe9.rego", "in case only"),
        (lambda p: (p / "a\\b.rego").write_text(""), "a\\\\b.rego", "backslash"),
        (lambda p: (p / "a\nb.rego").write_text(""), "a\\nb.rego", "cannot be printed"),
        (lambda p: (p / "a\u202e.rego").write_text(""), "a\\u202e.rego", "cannot be printed"),
        (lambda p: (p / os.fsdecode(b"\xff.rego")).write_text(""), "\\udcff.rego", "cannot be printed"),
    ],
)  # fmt: skip
def test_trees_that_could_mean_two_things(place: Path, make: Make, file: str, cause: str) -> None:
    make(place)
    refused = refusal(place)
    assert [name for name, _ in refused] == [file]
    assert cause in refused[0][1]


def test_every_fault_of_a_tree_is_told_at_once(place: Path) -> None:
    (place / "x.rego").symlink_to("/etc/passwd")
    (place / "y.rego").symlink_to("nothing")
    assert [name for name, _ in refusal(place)] == ["x.rego", "y.rego"]


def test_trees_beyond_their_limits(place: Path) -> None:
    assert "more than 2 entries" in refusal(place, TreeLimits(entries=2))[0][1]
    assert "more than 1 files" in refusal(place, TreeLimits(files=1))[0][1]
    assert refusal(place, TreeLimits(bytes=9)) == [
        ("p.rego", "with this file the policy is larger than the gate takes")
    ]
    (place / "sub" / "a" / "b").mkdir(parents=True)
    assert "more than 2 deep" not in str(read_tree(place, TreeLimits(depth=2)))
    assert "more than 1 deep" in refusal(place, TreeLimits(depth=1))[0][1]


def test_a_sparse_file_of_a_gigabyte_is_not_read_whole(place: Path) -> None:
    with (place / "sub" / "data.json").open("r+b") as file:
        file.truncate(1 << 30)
    assert refusal(place) == [("sub/data.json", TOO_LARGE)]


def test_a_directory_without_rego(place: Path) -> None:
    (place / "p.rego").unlink()
    assert "no .rego file" in refusal(place)[0][1]


def test_findings_are_bounded_and_printable() -> None:
    kept = bounded([Finding("f\x1b[31m", 1, "m\n" + "x" * 5000)] * (MOST_FINDINGS + 7))
    assert len(kept) == MOST_FINDINGS + 1 and kept[-1].message == "and 7 more"
    assert kept[0].file == "f [31m" and len(kept[0].message) == 1000


def test_yaml_is_json_with_comments() -> None:
    text = b"# c\na: 1\nb: [1.5, -2e3, 0, true, null, ~]\nc: {d: yes, e: '7', f: 2026-11-23, g: 007}\nh: |\n  x\n  y\n"
    root = read_yaml(text)
    assert root.plain() == {
        "a": 1,
        "b": [1.5, -2000.0, 0, True, None, None],
        "c": {"d": "yes", "e": "7", "f": "2026-11-23", "g": "007"},
        "h": "x\ny\n",
    }
    assert type(root.value["b"].value[2].value) is int
    assert (root.value["c"].line, root.value["c"].value["e"].line, root.value["h"].line) == (4, 4, 5)


@pytest.mark.parametrize(
    ("raw", "line", "cause"),
    [
        (b"a: &x 1\nb: *x\n", 1, "anchor"),
        (b"a: &a [z,z]\nb: &b [*a,*a]\nc: [*b,*b]\n", 1, "anchor"),
        (b"a: 1\nb: !!python/object/apply:os.system ['id']\n", 2, "tag"),
        (b"a: !!binary aGk=\n", 1, "tag"),
        (b"<<: {a: 1}\n", 1, "not text"),
        (b"a: 1\n? [x]\n: 2\n", 2, "not text"),
        (b"a: 1\nb: 2\na: 3\n", 3, "'a' twice"),
        (b"a: 1\nb: [\n", 3, "not YAML"),
        (b"a: 1\n---\nb: 2\n", 2, "not YAML"),
        (b"", 1, "empty"),
        (b"# only\n", 1, "empty"),
        (b"a: \xff\n", 1, "not UTF-8"),
        (b"a: \x00\n", 1, "character"),
        (b"[" * 40 + b"]" * 40, 1, "nested"),
        (b"[" * 500_000, 1, "nested"),
        (b"a: " + b"x" * MAX_BYTES, 1, "larger"),
    ],
)
def test_yaml_that_is_refused(raw: bytes, line: int, cause: str) -> None:
    with pytest.raises(YamlRefused, match=cause) as caught:
        read_yaml(raw)
    assert caught.value.line == line


ITEM = """  - name: n
    input:
      agent: {id: a, attributes: {team: x}}
      action: act
      resource: {type: t, id: i}
      time: 2026-11-23T12:00:00.5Z
    expect: {effect: DENY, reasons: [b, a]}
"""


def test_an_expectation_becomes_the_whole_document() -> None:
    (made,), found = parse_expectations(f"expectations:\n{ITEM}".encode())
    assert found == []
    assert (made.name, made.line, made.effect, made.reasons, made.obligations) == ("n", 2, "DENY", ("a", "b"), None)
    assert made.document == {
        "agent": {"id": "a", "proof": "asserted", "roles": [], "attributes": {"team": "x"}},
        "action": "act",
        "resource": {"type": "t", "id": "i"},
        "arguments": {},
        "context": {},
        "purpose": "",
        "time": "2026-11-23T12:00:00.500000000Z",
        "executor": None,
        "delegation": [],
        "approvals": [],
    }
    assert made.document.keys() == REQUEST.keys()


@pytest.mark.parametrize(
    ("old", "new", "line", "cause"),
    [
        ("effect: DENY", "effect: NO", 8, "effect must be one of"),
        ("reasons: [b, a]", "reasons: b", 8, "reasons must be a list"),
        ("reasons: [b, a]", "reason: [b]", 8, "'reason' is not known here"),
        ("      action: act\n", "", 4, "action is missing"),
        ("action: act", "action: 7", 5, "action must be text"),
        ("action: act", "action: ''", 5, "action must be text"),
        ("{id: a, attributes: {team: x}}", "a", 4, "must be a mapping with id"),
        ("type: t, id: i", "type: t", 6, "id is missing"),
        ("12:00:00.5Z", "12:00:00+01:00", 7, "UTC time"),
        ("2026-11-23T", "2026-02-30T", 7, "UTC time"),
        ("      action: act", "      arguments: [1]\n      action: act", 5, "arguments must be a mapping"),
        ("      action: act", "      argumnets: {}\n      action: act", 5, "'argumnets' is not known"),
    ],
)
def test_expectations_that_are_none_have_their_line(old: str, new: str, line: int, cause: str) -> None:
    text = f"expectations:\n{ITEM.replace(old, new)}{ITEM}"
    good, found = parse_expectations(text.encode())
    assert len(good) == 1, "the others are still read"
    assert [(f.file, f.line) for f in found] == [("expectations.yaml", line)]
    assert cause in found[0].message


@pytest.mark.parametrize("text", ["expectations: []\n", "expectations: 1\n", "- a\n", "other: 1\n", "a: &b 1\n"])
def test_a_file_without_expectations(text: str) -> None:
    good, found = parse_expectations(text.encode())
    assert good == [] and len(found) == 1


class EverySecondTooSlow:
    """An engine at fault: it is too slow for every second question. It counts how many are under way."""

    version = PolicyVersion("opa", "1", "p/decision", "r", "")

    def __init__(self) -> None:
        self.under_way = self.most = 0

    async def evaluate(self, document: dict[str, Any], timeout: float) -> Evaluation:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            if document["n"] % 2:
                raise EngineTimeout("too slow")
            await asyncio.sleep(0)
            return Evaluation(
                {"effect": "ALLOW", "reasons": [{"code": str(document["n"]), "message": "m"}]}, self.version
            )
        finally:
            self.under_way -= 1

    async def ready(self) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError


def documents(count: int, taken: list[int]) -> Iterator[dict[str, Any]]:
    for number in range(count):
        taken.append(number)
        yield {"n": number}


def test_a_rerun_keeps_the_order_and_denies_by_cause() -> None:
    engine = EverySecondTooSlow()

    async def main() -> list[Rerun]:
        return [got async for got in rerun(engine, documents(100, []), at_once=7)]

    got = asyncio.run(main())
    assert [one.codes for one in got] == [("engine_timeout",) if n % 2 else (str(n),) for n in range(100)]
    assert [one.effect for one in got] == ["DENY" if n % 2 else "ALLOW" for n in range(100)]
    assert [one.decided for one in got] == [n % 2 == 0 for n in range(100)]
    assert 1 < engine.most <= 7


def test_a_rerun_takes_no_more_than_it_needs_and_can_be_left() -> None:
    taken: list[int] = []

    async def main() -> None:
        answers = rerun(EverySecondTooSlow(), documents(10_000, taken), at_once=4)
        for _ in range(10):
            await anext(answers)
        await answers.aclose()
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
    assert len(taken) == 13


def test_a_rerun_with_the_wasm_engine() -> None:
    async def main() -> list[Rerun]:
        engine = WasmEngine(STARTER_BUNDLE.read_bytes(), STARTER_ENTRYPOINT, workers=1)
        try:
            asked = [REQUEST, {**REQUEST, "arguments": {"amount": 1200, "currency": "EUR"}}, {"agent": object()}]
            return [got async for got in rerun(engine, asked, timeout=30)]
        finally:
            await engine.close()

    allowed, approval, broken = asyncio.run(main())
    assert (allowed.effect, approval.effect, broken.effect) == ("ALLOW", "REQUIRE_APPROVAL", "DENY")
    assert approval.codes == ("amount_over_limit",) and broken.cause == "engine_error"
    assert allowed.result["effect"] == "ALLOW" and allowed.version.engine == "wasm"  # type: ignore[index]
