"""The judgement of `verify.html`, under node, against `sidecar verify`'s: vectors, published bundles, mutations."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from sidecar.chain.ratchet import Ratchet
from sidecar.chain.seal import Seal
from sidecar.chain.stream import MAGIC, Kind, record, records
from sidecar.decide.entries import policy_inputs
from sidecar.errors import Malformed
from sidecar.policy import STARTER_BUNDLE
from sidecar.policy.document import encode_input
from sidecar.verify import Disclosure, Evidence, parse_trust, verify_stream
from tests.conformance import once
from tests.conformance.cases import TRUST, expected
from tests.conformance.chains import files
from tests.conformance.driving import Answer, ask, due
from tests.conformance.mutations import mutations
from tests.conformance.published import stream_name
from tests.conformance.test_conformance import judged
from tests.evidence.mutants import DISAGREED, questions
from tests.page.core import REFUSED, answers
from tests.scribe import signed_story, story

VECTORS = Path(__file__).resolve().parent.parent / "vectors"
STREAMS: list[dict[str, Any]] = json.loads((VECTORS / "ledger" / "streams.json").read_text())

PROGRAM = ("node", str(Path(__file__).resolve().parent.parent / "conformance" / "verify_html.mjs"))

Judged = tuple[str, int | None, int | None]


def _theirs(answer: Any) -> Judged:
    bad = answer["first_bad"] or {"segment": None, "seq": None}
    return answer["verdict"], bad["segment"], bad["seq"]


def _ours(stream: bytes, evidence: Evidence) -> Judged:
    report = verify_stream(BytesIO(stream).read, evidence)
    bad = report.first_bad()
    return report.verdict.name, bad and bad.segment, bad and bad.seq


def _keys(vector: dict[str, Any]) -> Disclosure:
    """The keys of the first four segments of each epoch that the stream holds a seal of."""
    chain = bytes.fromhex(vector["chain"])
    stream = (VECTORS / "ledger" / vector["file"]).read_bytes()
    starts: dict[int, int] = {}
    try:
        for kind, body in records(BytesIO(stream).read):
            if kind is Kind.SEAL:
                seal = Seal.parse(body.decode().rpartition("\n\n")[0] + "\n")
                starts.setdefault(seal.epoch, seal.segment)
    except Malformed:
        pass
    found = {}
    for epoch, first in starts.items():
        ratchet = Ratchet(chain, epoch, bytes.fromhex(vector["seeds"][str(epoch)]), first)
        for segment in range(first, first + 4):
            found.setdefault(segment, ratchet.advance())
    return Disclosure(chain, found)


def test_payloads_read_ahead_change_nothing() -> None:
    """By Workers that help with long files: every vector, in pieces, is judged as without them."""
    asked = [{"ask": "ahead", "path": str(VECTORS / "ledger" / vector["file"]), "size": 3_000} for vector in STREAMS]
    told = answers(asked)
    for vector, each in zip(STREAMS, told, strict=True):
        assert each["helped"] == each["alone"], vector["file"]
    assert sum(each["texts"] for each in told) > 80  # they did help


def test_vectors_without_a_key() -> None:
    asked = [
        {
            "ask": "stream",
            "path": str(VECTORS / "ledger" / v["file"]),
            "receipts": v["receipts"],
            "openings": v.get("openings"),
        }
        for v in STREAMS
    ]
    for vector, answer in zip(STREAMS, answers(asked), strict=True):
        due = vector["without_key"]
        assert _theirs(answer) == (due["verdict"], due["segment"], due["seq"]), (vector["file"], answer)


def test_vectors_with_disclosed_keys() -> None:
    """Keys that a custodian hands out; our verifier is given the same."""
    asked = []
    due = []
    for vector in STREAMS:
        keys = _keys(vector)
        path = VECTORS / "ledger" / vector["file"]
        asked.append({"ask": "stream", "path": str(path), "disclosure": keys.encode().decode()})
        due.append(_ours(path.read_bytes(), Evidence(disclosure=keys)))
    given = answers(asked)
    assert [_theirs(each) for each in given] == due
    assert any("disclosed keys" in line for line in given[0]["checked"])
    assert ("TAMPERED", 0, 2) in due  # bad-tag.bin, which no check without a key finds


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return once.published(tmp_path_factory)


def test_published_bundles(published: Path) -> None:
    rows = expected()
    asked = [
        {"ask": "bundle", "path": str(published / f"{name}.zip"), "trust": str(published / row["trust"])}
        for name, row in rows.items()
    ]
    for (name, wanted), answer in zip(rows.items(), answers(asked), strict=True):
        got = {"verdict": answer["verdict"], "first_bad": answer["first_bad"]}
        assert got == {"verdict": wanted["verdict"], "first_bad": wanted["first_bad"]}, (name, answer["reason"])


def test_mutated_bundles_are_judged_as_ours_judges_them(tmp_path: Path) -> None:
    _same_of_bundles(1, 80, tmp_path)


def _same_of_bundles(seed: int, count: int, tmp_path: Path) -> None:
    trust = TRUST["trust.json"]()
    (tmp_path / "trust.json").write_bytes(trust)
    asked, due, names = [], [], []
    for name, bundle in mutations(seed, count):
        (tmp_path / name).write_bytes(bundle)
        asked.append({"ask": "bundle", "path": str(tmp_path / name), "trust": str(tmp_path / "trust.json")})
        due.append(judged(bundle, trust))
        names.append(name)
    wrong = [
        (name, answer, wanted)
        for name, answer, wanted in zip(names, answers(asked), due, strict=True)
        if (answer["verdict"], answer["first_bad"]) != (wanted.verdict, _place(wanted))
    ]
    assert not wrong, wrong[:5]


def _place(wanted: Answer) -> dict[str, Any] | None:
    return None if wanted.first_bad is None else dict(zip(("chain", "segment", "seq"), wanted.first_bad, strict=True))


@pytest.mark.parametrize("name", ["good-agent", "good-crashed", "container-bomb", "31-no-tag-keys", "02-entry-deleted"])
def test_through_the_protocol(published: Path, name: str) -> None:
    row = expected()[name]
    assert ask(PROGRAM, published / f"{name}.zip", published / row["trust"]) == due(row)


def test_the_program_refuses_what_is_no_question(published: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{}")
    good = str(published / "good-agent.zip")
    for arguments in (
        ["verify", str(tmp_path / "not there")],
        ["verify", good, "--trust", str(tmp_path / "broken.json")],
        ["verify", good, "--bundle-trust"],
        ["verify"],
        ["verify", good, "--colour"],
    ):
        done = subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert done.stderr.count("\n") == 1 and "    at " not in done.stderr, done.stderr


@pytest.mark.parametrize("name", ["good-window", "01-flip-payload"])
def test_without_webcrypto_it_judges_the_same(published: Path, name: str) -> None:
    row = expected()[name]
    command = [*PROGRAM, "--no-webcrypto"]
    assert ask(command, published / f"{name}.zip", published / row["trust"]) == due(row)


def _mutations(stream: bytes, count: int, seed: int) -> list[bytes]:
    """Records flipped, cut, dropped, doubled, exchanged, taken from elsewhere; now and then two of them."""
    rng = random.Random(seed)
    rows = list(records(BytesIO(stream).read))
    made = []
    for _ in range(count):
        altered = [(kind, bytearray(body)) for kind, body in rows]
        for _ in range(rng.choice((1, 1, 1, 2))):
            at, other = rng.randrange(len(altered)), rng.randrange(len(altered))
            what = rng.randrange(7)
            if what <= 2:
                body = altered[at][1]
                # mostly where the fields are: a payload's bytes all give the same verdict
                place = rng.randrange(min(len(body), 260)) if rng.random() < 0.8 else rng.randrange(len(body))
                body[place] ^= 1 << rng.randrange(8)
            elif what == 3:
                del altered[at]
            elif what == 4:
                altered.insert(other, altered[at])
            elif what == 5:
                altered[at], altered[other] = altered[other], altered[at]
            else:
                altered = altered[: at + 1]
            if not altered:
                break
        made.append(MAGIC + b"".join(record(kind, bytes(body)) for kind, body in altered))
    return made


def test_mutations_are_judged_as_ours_judges_them(tmp_path: Path) -> None:
    _same_of_streams(0, tmp_path)


def test_mutants_that_two_verifiers_judged_differently(tmp_path: Path) -> None:
    _same_of_mutants(DISAGREED, tmp_path)


def _as_node_has_it(judged: Judged) -> tuple[str, float | None, float | None]:
    """Numbers that a double holds: `answer.mjs` reads the page's JSON, where they are exact, by node's own parser."""
    verdict, segment, seq = judged
    return verdict, segment and float(segment), seq and float(seq)


def _same_of_mutants(seeds: Iterable[int], tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = []
    due: list[Judged] = []
    for seed, data, held in questions(seeds):
        path = tmp_path / f"mutant-{seed}"
        path.write_bytes(data)
        keys = held.disclosure and held.disclosure.encode().decode()
        receipts = [each.decode() for each in held.receipts]
        asked.append({"ask": "stream", "path": str(path), "disclosure": keys, "receipts": receipts})
        due.append(_ours(data, held))
    found = map(_theirs, answers(asked))
    told = [(each["path"], *map(_as_node_has_it, both)) for each, *both in zip(asked, found, due, strict=True)]
    wrong = [each for each in told if each[1] != each[2]]
    assert not wrong, wrong[:5]


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1, 40))
def test_many_mutations(seed: int, tmp_path: Path) -> None:
    _same_of_streams(seed, tmp_path)
    _same_of_mutants(range(seed * 100, seed * 100 + 100), tmp_path)
    _same_of_bundles(seed, 300, tmp_path)


@pytest.mark.soak
def test_attacks(tmp_path: Path) -> None:
    """Every attack of tests/attacks that can be a bundle."""
    command = [sys.executable, "-m", "tests.conformance.attacks", str(tmp_path)]
    subprocess.run(command, cwd=Path(__file__).resolve().parents[2], check=True, capture_output=True)
    rows = json.loads((tmp_path / "expected.json").read_text())
    asked = [
        {
            "ask": "bundle",
            "path": str(tmp_path / f"{name}.zip"),
            "trust": row["trust"] and str(tmp_path / row["trust"]),
        }
        for name, row in rows.items()
    ]
    for (name, wanted), answer in zip(rows.items(), answers(asked), strict=True):
        got = (answer["verdict"], answer["first_bad"])
        assert got == (wanted["verdict"], wanted["first_bad"]), (name, answer["reason"])
    assert len(rows) > 500


def _same_of_streams(seed: int, tmp_path: Path) -> None:
    cases: list[bytes] = []
    end = files(3, 4)  # the stream of a window is that of a ledger that keeps its end, too
    for stream in (story().stream(), signed_story().stream(), end[stream_name()]):
        cases += [stream, *_mutations(stream, 70, seed)]
    asked: list[dict[str, Any]] = []
    for n, case in enumerate(cases):
        (tmp_path / f"{n}").write_bytes(case)
        asked.append({"ask": "stream", "path": str(tmp_path / f"{n}")})
    wrong = [
        (n, _theirs(answer), due, answer["reason"])
        for n, (case, answer) in enumerate(zip(cases, answers(asked), strict=True))
        if _theirs(answer) != (due := _ours(case, Evidence()))
    ]
    assert not wrong, wrong[:5]


def test_the_starter_policy_decides_again_as_recorded(tmp_path: Path) -> None:
    """Answers of the archived Wasm, by our own engine and by the page's: the same for good inputs and odd ones."""
    decisions = [json.dumps(each) for each in _decided()]
    (told,) = answers([{"ask": "rerun", "bundle": str(STARTER_BUNDLE), "decisions": decisions}])
    assert [each["status"] for each in told] == ["match"] * len(decisions), told
    altered = [{**each, "effect": "ALLOW" if each["effect"] == "DENY" else "DENY"} for each in _decided()]
    undecided = {**_decided()[0], "cause": "engine_timeout"}
    impure = {**_decided()[0], "impure_builtins": ["time.now_ns"]}
    given = [json.dumps(each) for each in (*altered, undecided, impure)]
    (told,) = answers([{"ask": "rerun", "bundle": str(STARTER_BUNDLE), "decisions": given}])
    assert [each["status"] for each in told] == ["mismatch"] * len(altered) + ["undecided", "impure"]


def test_inputs_are_rebuilt_byte_for_byte() -> None:
    """As the engines are given them, whatever way a caller spelt a number."""
    odd = r'{"a":[1e16,1e15,1E-5,1.5e-7,-0.0,0.1,100.0,1e300,9007199254740993.0,-0],"\u00e9":"\ud83d\ude00"}'
    value = {**_decided()[0]}
    value["request"] = {**value["request"], "arguments": odd, "context": ' {"x" : 2.50} ', "purpose": "a\nb"}
    value["agent"] = {**value["agent"], "attributes": {"limit": 1e21, "of": [0.5, 3]}}
    (given,) = answers([{"ask": "input", "value": json.dumps(value)}])
    assert given == [encode_input(each).decode() for each in policy_inputs(value)]


def _decided() -> Sequence[dict[str, Any]]:
    from tests.page.decided import decisions

    return decisions()


def test_a_page_that_lacks_a_built_in_says_so(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.write_bytes(b"no bundle")
    (told,) = answers([{"ask": "rerun", "bundle": str(bundle), "decisions": []}])
    assert told[0] == REFUSED


def test_trust_files_as_the_package_reads_them() -> None:
    good = json.loads(TRUST["trust.json"]())
    bad = [
        {**good, "x": 1},
        {**good, "format": "sidecar/v1/trust2"},
        {**good, "chains": []},
        {**good, "chains": good["chains"] * 2},
        {**good, "policy": 1},
        {**good, "policy": "quorum none"},
        {**good, "tsa_roots": ["x"]},
        {**good, "custodians": ["00"]},
        {**good, "tsa_roots": None},
    ]
    path = str(VECTORS / "ledger" / "good.bin")
    values = [json.dumps(value) for value in (good, {**good, "policy": None}, *bad)]
    given = answers({"ask": "stream", "path": path, "trust": value} for value in values)
    for value, told in zip(values, given, strict=True):
        try:
            parse_trust(value.encode())
            due = True
        except Malformed:
            due = False
        assert (not isinstance(told, tuple)) is due, value
