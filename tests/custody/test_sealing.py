"""Which values are taken out of a payload, and that nothing else is touched: by pointers, and by what repeats them.

Whole entries, over the wire, are in `tests/api/test_personal.py`.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from sidecar.chain import payload as payloads
from sidecar.chain import personal, strictjson
from sidecar.chain.entry import EntryType
from sidecar.custody import FieldSealer, Pointers, SubjectKeys
from sidecar.errors import Malformed, ProofRejected, RequestError, UsageError
from tests.scribe import Scribe

CHAIN = b"c" * 32
KEY = "k" * 22


def decision(arguments: Any, context: Any = None, **members: Any) -> dict[str, Any]:
    """A payload that is about this; ``arguments`` may be a text."""
    value = Scribe("x").decision_value("ALLOW")
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    value["request"] |= {"arguments": text, "idempotency_key": KEY}
    if context is not None:
        value["request"]["context"] = json.dumps(context)
    return value | members


def sealer(place: Path, *fields: str, subject: str = "/arguments/id") -> FieldSealer:
    return FieldSealer(Pointers(subject, fields), SubjectKeys.open(place, CHAIN), CHAIN)


def sealed(by: FieldSealer, value: dict[str, Any], seq: int = 7) -> dict[str, Any]:
    """What is stored at ``seq``; that it is proper, and opens to what it was, is looked at on the way."""
    before = copy.deepcopy(value)
    taken = by.seal(EntryType.DECISION, value, None)
    assert value == before and taken is not None
    written = personal.bind(strictjson.dumps(taken[0]), CHAIN, seq, taken[1])
    stored = payloads.parse(EntryType.DECISION, written)
    again = strictjson.parse_object(written)
    by.open(seq, again)
    assert again.pop("personal") == {"subject": stored["personal"]["subject"]} and again == before
    for change in (seq + 1,):  # at another place it does not fit
        with pytest.raises(ProofRejected):
            by.open(change, strictjson.parse_object(written))
    return stored


def places(stored: dict[str, Any]) -> list[str]:
    return [each["in"] + each["pointer"] for each in stored["personal"]["fields"]]


def test_only_what_is_named_is_taken_and_the_text_around_it_stays(tmp_path: Path) -> None:
    text = '{ "id" :"c-1",\n"e":{"a":[1,{"b":"\\u00e9\\\\\\""}]}, "keep" : "c" , "n": 7e0 }'
    stored = sealed(sealer(tmp_path, "/arguments/e/a/1/b", "/arguments/n", "/arguments/nothing"), decision(text))
    assert stored["request"]["arguments"] == '{ "id" :"",\n"e":{"a":[1,{"b":""}]}, "keep" : "c" , "n": "" }'
    key = "/request/idempotency_key"
    assert places(stored) == [f"/request/arguments{p}" for p in ("/id", "/e/a/1/b", "/n")] + [key]


def test_a_named_array_or_object_is_taken_whole(tmp_path: Path) -> None:
    value = decision({"id": 5, "who": {"name": "Ann Quux", "tags": ["a", "longer"]}}, {"seen": "longer", "of": "Ann"})
    stored = sealed(sealer(tmp_path, "/arguments/who", "/arguments/who/name"), value)
    assert json.loads(stored["request"]["arguments"]) == {"id": "", "who": ""}
    assert json.loads(stored["request"]["context"]) == {"seen": "", "of": "Ann"}  # three characters are not looked for


def test_what_repeats_a_value_is_taken_wherever_it_may_be(tmp_path: Path) -> None:
    value = decision(
        {"id": 471_100, "mail": "ann@x.org", "text": "to ann@x.org!", "sum": 471_100, "other": 4711},
        reasons=[{"code": "ann@x.org", "message": "ann@x.org again"}, {"code": "a", "message": "nobody"}],
        obligations=[{"kind": "k", "parameters": {"a": [{"to": "<ann@x.org>"}], "ann@x.org": 1, "n": 471_100}}],
        result={"deep": [[{"x": "ann@x.org"}]], "n": 471_100, "flag": True, "m": 471_101},
    )
    value["request"]["purpose"] = "about 471100"
    stored = sealed(sealer(tmp_path, "/arguments/mail"), value)
    assert places(stored) == [
        "/obligations/0/parameters/a/0/to", "/obligations/0/parameters/n", "/reasons/0/message",
        *(f"/request/arguments/{name}" for name in ("id", "mail", "text", "sum")),
        "/request/idempotency_key", "/request/purpose", "/result/deep/0/0/x", "/result/n",
    ]  # fmt: skip
    assert stored["result"]["m"] == 471_101 and stored["reasons"][1]["message"] == "nobody"


def test_a_pointer_into_the_result(tmp_path: Path) -> None:
    value = decision({"id": "c-1"}, result={"score": {"of": 1.5}, "effect": "ALLOW"})
    stored = sealed(sealer(tmp_path, "/result/score", "/result/score/of"), value)
    assert stored["result"] == {"score": "", "effect": "ALLOW"}
    whole = sealed(sealer(tmp_path, "/result"), decision({"id": "c-1"}, result=[1, 2]))
    assert whole["result"] == ""


def test_nothing_personal_nothing_sealed(tmp_path: Path) -> None:
    by = sealer(tmp_path, "/arguments/mail", "/context/name")
    for arguments, context in (("", None), ("{}", None), ({"a": 1}, {"b": 1}), ({"mail": None}, {"name": None})):
        assert by.seal(EntryType.DECISION, decision(arguments, context), None) is None
    assert not SubjectKeys.read(tmp_path, CHAIN).subjects()


def test_one_person_one_key_whatever_the_spelling(tmp_path: Path) -> None:
    by = sealer(tmp_path, subject="/context/~1id")
    texts = ('{"/id":"caf\\u00e9"}', '{ "/id" : "café" }', '{"/id":4711}', '{"/id":"4711"}')
    values = [decision("{}") for _ in texts]
    for value, text in zip(values, texts, strict=True):
        value["request"]["context"] = text
    names = [sealed(by, value)["personal"]["subject"] for value in values]
    assert names[0] == names[1] and len(set(names)) == 3


def test_more_than_can_be_looked_for_is_refused_before_it_is_tried(tmp_path: Path) -> None:
    """It took a minute for a request of 1 MiB, on a thread that nobody could stop, six of them for everybody."""
    by = sealer(tmp_path, "/arguments/who")
    many = {"id": 1, "who": [f"{n:08x}" for n in range(4_000)], "all": [f"{n:06x}zz" for n in range(4_000)]}
    with pytest.raises(RequestError, match="request: has too many personal values"):
        by.seal(EntryType.DECISION, decision(many), None)
    assert not SubjectKeys.read(tmp_path, CHAIN).subjects()
    assert by.seal(EntryType.DECISION, decision(many | {"who": many["who"][:40]}), None)


def test_of_an_outcome_too_long_to_look_through_all_is_sealed(tmp_path: Path) -> None:
    by = sealer(tmp_path, "/arguments/who")
    about = sealed(by, decision({"id": 1, "who": [f"{n:08x}" for n in range(500)]}))
    for length, left in ((1_000, ("{", "200")), (200_000, ('"', ""))):
        said = {"response": json.dumps({"a": "x" * length, "b": "0000002a"}), "downstream_status": "200", "by": {}}
        taken = by.seal(EntryType.OUTCOME, said, about)
        assert taken is not None
        assert (taken[0]["response"][0], taken[0]["downstream_status"]) == left and "2a" not in taken[0]["response"]


def test_more_values_than_a_payload_may_have(tmp_path: Path) -> None:
    by = sealer(tmp_path, "/arguments/mail")
    many = {"id": 1, "mail": "ann@x.org", "all": ["ann@x.org"] * 4_096}
    with pytest.raises(RequestError, match="4096 personal values"):
        by.seal(EntryType.DECISION, decision(many), None)
    most = {"id": 1, "mail": "ann@x.org", "all": ["ann@x.org"] * 4_093}
    assert len(places(sealed(by, decision(most)))) == 4_096


def test_without_its_key_nothing_is_put_back(tmp_path: Path) -> None:
    by = sealer(tmp_path / "a", "/arguments/mail")
    taken = by.seal(EntryType.DECISION, decision({"id": 1, "mail": "ann@x.org"}), None)
    assert taken is not None
    written = personal.bind(strictjson.dumps(taken[0]), CHAIN, 7, taken[1])
    value = strictjson.parse_object(written)
    sealer(tmp_path / "b").open(7, value)
    assert value == strictjson.parse_object(written)
    value["personal"]["sealed"] = "AAAA" + value["personal"]["sealed"][4:]
    with pytest.raises(Malformed):
        by.open(7, value)


@pytest.mark.parametrize(
    ("subject", "fields"),
    [
        ("customer", ()), ("", ()), ("/arguments", ()), ("/context", ()), ("/response/id", ()), ("/result/id", ()),
        ("/purpose", ()), ("/arguments/~2", ()), ("/arguments/id", ("/agent/id",)), ("/arguments/id", ("/purpose/x",)),
        ("/arguments/id", ("",)), ("/arguments/id", ("/resource/id",)), ("/arguments/id", ("/argumentsx/y",)),
        ("/arguments/id", ("/arguments",)), ("/arguments/id", ("/a" * 65,)),
    ],
)  # fmt: skip
def test_pointers_that_lead_nowhere(subject: str, fields: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="personal"):
        Pointers(subject, fields)
