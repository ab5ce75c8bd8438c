"""The registry's file: strict, and refused whole; validity at a time."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from sidecar.chain import registry
from sidecar.chain.registry import MAX_SIZE, Span
from sidecar.errors import Malformed
from tests.identity.agents import BILLING, GATEWAY, PAYROLL, registry_of, registry_text

KEY = BILLING.entry()["keys"][0]
EARLY, LATE = "2026-01-01T00:00:00.000000000Z", "2026-06-01T00:00:00.000000000Z"


def test_who_is_in_it() -> None:
    ids = [{"id": "spiffe://example.org/billing", "not_after": LATE}]
    read = registry_of(BILLING.entry(spiffe_ids=ids), GATEWAY.entry("executor"))
    assert read.principals["payments-gateway"].kind == "executor"
    assert read.key_owners == {BILLING.key_id: "billing-agent", GATEWAY.key_id: "payments-gateway"}
    assert read.spiffe_owners == {"spiffe://example.org/billing": "billing-agent"}
    assert read.principals["billing-agent"].spiffe_ids["spiffe://example.org/billing"].holds(EARLY)


@pytest.mark.parametrize(
    ("span", "before", "at_start", "between", "at_end"),
    [
        (Span(), True, True, True, True),
        (Span(EARLY), False, True, True, True),
        (Span(None, LATE), True, True, True, False),
        (Span(EARLY, LATE), False, True, True, False),
    ],
)
def test_validity(span: Span, before: bool, at_start: bool, between: bool, at_end: bool) -> None:
    times = ("2025-12-31T23:59:59.999999999Z", EARLY, "2026-03-01T00:00:00.000000000Z", LATE)
    assert [span.holds(at) for at in times] == [before, at_start, between, at_end]


BAD: list[tuple[dict[str, Any], str]] = [
    ({"id": ""}, "id"),
    ({"id": " a"}, "id"),
    ({"id": "b\u00e9"}, "id"),
    ({"id": "x" * 257}, "id"),
    ({"id": 1}, "id"),
    ({"kind": "admin"}, "kind"),
    ({"kind": ["agent"]}, "kind"),
    ({"status": "retired"}, "status"),
    ({"owner": "x" * 1025}, "owner"),
    ({"roles": ["a"] * 65}, "roles"),
    ({"roles": [1]}, "roles"),
    ({"attributes": []}, "attributes"),
    ({"keys": [KEY] * 17}, "keys"),
    ({"keys": [KEY, KEY]}, "twice"),
    ({"keys": [{**KEY, "status": "expired"}]}, "status"),
    ({"keys": [{**KEY, "note": ""}]}, "unknown member"),
    ({"keys": [{**KEY, "not_after": "2026-01-01"}]}, "not_after"),
    ({"keys": [{**KEY, "not_before": None}]}, "not_before"),
    ({"keys": [{**KEY, "spki": KEY["spki"] + "\n"}]}, "spki"),
    ({"keys": [{**KEY, "spki": base64.b64encode(bytes(44)).decode()}]}, "spki"),
    ({"keys": ["x"]}, "object"),
    ({"spiffe_ids": [{"id": "https://example.org/a"}]}, "id"),
    ({"spiffe_ids": [{"id": "spiffe://Example.org/a"}]}, "id"),
    ({"spiffe_ids": [{"id": "spiffe://example.org"}]}, "id"),
    ({"spiffe_ids": [{"id": "spiffe://example.org/a/"}]}, "id"),
    ({"spiffe_ids": [{"id": "spiffe://example.org/a?b"}]}, "id"),
    ({"password": "x"}, "unknown member"),
]


@pytest.mark.parametrize(("members", "why"), BAD)
def test_a_file_with_any_fault_is_refused_whole(members: dict[str, Any], why: str) -> None:
    with pytest.raises(Malformed, match=why):
        registry_of(PAYROLL.entry(), BILLING.entry(**members))


@pytest.mark.parametrize("name", list(BILLING.entry()))
def test_every_member_is_needed(name: str) -> None:
    entry = BILLING.entry()
    del entry[name]
    with pytest.raises(Malformed, match=name):
        registry_of(entry)


def test_nothing_belongs_to_two() -> None:
    ids = [{"id": "spiffe://example.org/billing"}]
    for two in (
        (BILLING.entry(), BILLING.entry(id="another")),
        (BILLING.entry(spiffe_ids=ids), PAYROLL.entry(spiffe_ids=ids)),
    ):
        with pytest.raises(Malformed, match="belongs to billing-agent too"):
            registry_of(*two)
    with pytest.raises(Malformed, match="id is there twice"):
        registry_of(BILLING.entry(), PAYROLL.entry(id="billing-agent"))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b'{"format":"sidecar/v1/registry"}',
        b'{"format":"sidecar/v2/registry","principals":[]}',
        b'{"format":"sidecar/v1/registry","principals":[],"principals":[]}',
        b'{"format":"sidecar/v1/registry","principals":[],"more":1}',
        b'{"format":"sidecar/v1/registry","principals":[{}]}',
        registry_text() + b" " * MAX_SIZE,
    ],
)
def test_what_is_no_registry(text: bytes) -> None:
    with pytest.raises(Malformed):
        registry.parse(text)


def test_too_many_principals() -> None:
    many = [json.dumps(BILLING.entry(id=f"a{n}", keys=[], owner="", purpose="", roles=[])) for n in range(20_001)]
    text = '{"format":"sidecar/v1/registry","principals":[' + ",".join(many) + "]}"
    with pytest.raises(Malformed, match="20000"):
        registry.parse(text.replace(" ", "").encode())
