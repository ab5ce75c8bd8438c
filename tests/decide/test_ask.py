"""Each limit on a request, by the field it names."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.chain.request import Option, Request
from sidecar.decide.ask import Limits, check_json, check_request, check_size
from sidecar.errors import RequestError

GOOD = Request(
    "billing-agent",
    Option("payments.transfer", "account", "acme-42", b'{"amount": 120}'),
    context=b'{"session": "s-1"}',
    purpose="an invoice is due",
    trace_parent="00-" + "a" * 32 + "-" + "b" * 16 + "-01",
    idempotency_key="k",
    alternatives=(Option("payments.request", "account", "acme-42"),),
)


def test_a_good_request_passes() -> None:
    check_request(GOOD)
    check_request(replace(GOOD, agent="アシスタント-7", wanted=replace(GOOD.wanted, resource_id="a" * 1024)))


def wanted(**changes: object) -> Request:
    return replace(GOOD, wanted=replace(GOOD.wanted, **changes))


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (replace(GOOD, agent=""), "agent"),
        (replace(GOOD, agent="a" * 257), "agent"),
        (replace(GOOD, agent="a\nb"), "agent"),
        (replace(GOOD, agent="a\x7f"), "agent"),
        (replace(GOOD, agent="a\u0085b"), "agent"),
        (replace(GOOD, agent="a\ufdd0"), "agent"),
        (replace(GOOD, agent="a\U0001ffff"), "agent"),
        (wanted(action=""), "action"),
        (wanted(action="x" * 257), "action"),
        (wanted(resource_type=""), "resource.type"),
        (wanted(resource_id=""), "resource.id"),
        (wanted(resource_id="x" * 1025), "resource.id"),
        (wanted(resource_id="x\x00"), "resource.id"),
        (wanted(arguments=b"[]"), "arguments"),
        (wanted(arguments=b"{"), "arguments"),
        (wanted(arguments=b'{"a": 1, "a": 2}'), "arguments"),
        (wanted(arguments=b'{"a": 1, "\\u0061": 2}'), "arguments"),
        (wanted(arguments=b'{"a": NaN}'), "arguments"),
        (wanted(arguments=b'{"a": 1e400}'), "arguments"),
        (wanted(arguments=b'{"a": 9007199254740992}'), "arguments"),
        (wanted(arguments=b'{"a": "\\ud800"}'), "arguments"),
        (wanted(arguments=b'{"a": "\xff"}'), "arguments"),
        (wanted(arguments=b'{"a":' + b"[" * 64 + b"]" * 64 + b"}"), "arguments"),
        (replace(GOOD, context=b'"text"'), "context"),
        (replace(GOOD, purpose="x" * 1025), "purpose"),
        (replace(GOOD, trace_parent="00-xyz"), "trace_parent"),
        (replace(GOOD, idempotency_key="k" * 129), "idempotency_key"),
        (replace(GOOD, last_receipt=b"r" * 4097), "last_receipt"),
        (replace(GOOD, alternatives=GOOD.alternatives * 9), "alternatives"),
        (replace(GOOD, alternatives=(Option("a", "", "b"),)), "alternatives[0].resource.type"),
        (replace(GOOD, alternatives=(*GOOD.alternatives, Option("a", "t", "b", b"7"))), "alternatives[1].arguments"),
    ],
)
def test_each_limit_names_its_field(request_: Request, field: str) -> None:
    with pytest.raises(RequestError) as refused:
        check_request(request_)
    assert refused.value.field == field
    assert "\n" not in str(refused.value)


def test_the_deepest_nesting_passes() -> None:
    check_request(wanted(arguments=b'{"a":' + b"[" * 63 + b"]" * 63 + b"}"))


def test_size() -> None:
    check_size(1024, Limits(1024))
    with pytest.raises(RequestError):
        check_size(1025, Limits(1024))


def test_limits_have_limits() -> None:
    with pytest.raises(ValueError):
        Limits(3 * 1024 * 1024)


def test_a_response_may_be_any_value() -> None:
    check_json("response", b"null", any_value=True)
    with pytest.raises(RequestError):
        check_json("response", b"nil", any_value=True)
