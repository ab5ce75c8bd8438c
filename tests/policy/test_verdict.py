"""What passes for a decision, and what must not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import EngineError, PolicyMisshaped
from sidecar.policy import Approval, Obligation, Reason, interpret

REASON = {"code": "c", "message": "m"}
DENY: dict[str, Any] = {"effect": "DENY", "reasons": [REASON]}


def test_a_whole_decision() -> None:
    verdict = interpret(
        {
            "effect": "REQUIRE_APPROVAL",
            "reasons": [{"code": "amount_over_limit", "message": "1200 € is too much", "rule": "limits"}],
            "obligations": [{"kind": "notify", "parameters": {"channel": "x"}}, {"kind": "log"}],
            "granted_by": ["finance"],
        }
    )
    assert verdict.effect == "REQUIRE_APPROVAL"
    assert verdict.reasons == (Reason("amount_over_limit", "1200 € is too much"),)
    assert verdict.obligations == (Obligation("notify", {"channel": "x"}), Obligation("log", {}))


WAIT: dict[str, Any] = {"effect": "REQUIRE_APPROVAL", "reasons": [REASON]}


def test_what_an_approval_takes() -> None:
    whole = {"count": 2, "roles": ["lead", "audit"], "expires_seconds": 60}
    assert interpret(WAIT | {"approval": whole}).approval == Approval(2, ("lead", "audit"), 60)
    assert interpret(WAIT | {"approval": {}}).approval == Approval(1, (), None)
    assert interpret(WAIT).approval is None


def test_allow_needs_no_reason_but_says_so() -> None:
    assert interpret({"effect": "ALLOW", "reasons": []}).reasons == ()


@pytest.mark.parametrize(
    ("result", "named"),
    [
        (True, "a boolean, not an object"),
        (None, "null"),
        ("ALLOW", "a string"),
        (1, "a number"),
        ([{"effect": "ALLOW", "reasons": []}], "an array"),
        ({}, "no effect"),
        ({"allow": True}, "no effect"),
        ({"effect": "allow", "reasons": []}, "effect is none of"),
        ({"effect": "ALLOW ", "reasons": []}, "effect is none of"),
        ({"effect": True, "reasons": []}, "effect is none of"),
        ({"effect": ["ALLOW"], "reasons": []}, "effect is none of"),
        ({"effect": {"ALLOW": 1}, "reasons": []}, "effect is none of"),
        ({"effect": "ALLOW"}, "no reasons"),
        ({"effect": "ALLOW", "reasons": None}, "reasons is null"),
        ({"effect": "ALLOW", "reasons": {}}, "reasons is an object"),
        ({"effect": "ALLOW", "reasons": ["because"]}, r"reasons\[0\] is a string"),
        ({"effect": "DENY", "reasons": []}, "DENY has no reason"),
        ({"effect": "REQUIRE_APPROVAL", "reasons": []}, "REQUIRE_APPROVAL has no reason"),
        ({"effect": "DENY", "reasons": [REASON, {"code": "c"}]}, r"reasons\[1\].message is missing"),
        ({"effect": "DENY", "reasons": [{"code": 7, "message": "m"}]}, r"reasons\[0\].code is missing"),
        ({"effect": "DENY", "reasons": [{"code": "c\n", "message": "m"}]}, "control character"),
        ({"effect": "DENY", "reasons": [{"code": "c", "message": "\ud800"}]}, "surrogate"),
        ({"effect": "DENY", "reasons": [{"code": "c" * 129, "message": "m"}]}, "longer than 128"),
        ({"effect": "DENY", "reasons": [{"code": "c", "message": "m" * 1025}]}, "longer than 1024"),
        ({"effect": "DENY", "reasons": [REASON] * 65}, "65 members"),
        (DENY | {"obligations": None}, "obligations is null"),
        (DENY | {"obligations": [{"kind": ""}]}, r"obligations\[0\].kind"),
        (DENY | {"obligations": [{"kind": "k", "parameters": []}]}, "parameters is not an object"),
        (DENY | {"obligations": [{"kind": "k", "parameters": {"x": "y" * 20000}}]}, "longer than 16384"),
        (DENY | {"obligations": [{"kind": "k", "parameters": {"x": 2**53}}]}, "cannot carry"),
        (DENY | {"obligations": [{"kind": "k"}] * 33}, "33 members"),
        (DENY | {"approval": {"count": 1}}, "DENY has an approval"),
        ({"effect": "ALLOW", "reasons": [], "approval": {}}, "ALLOW has an approval"),
        (WAIT | {"approval": None}, "approval is null"),
        (WAIT | {"approval": []}, "approval is an array"),
        (WAIT | {"approval": {"count": 0}}, "count is not a whole number from 1 to 8"),
        (WAIT | {"approval": {"count": 9}}, "count is not"),
        (WAIT | {"approval": {"count": True}}, "count is not"),
        (WAIT | {"approval": {"count": "2"}}, "count is not"),
        (WAIT | {"approval": {"roles": "lead"}}, "roles is a string"),
        (WAIT | {"approval": {"roles": [""]}}, "roles is missing"),
        (WAIT | {"approval": {"roles": ["r"] * 17}}, "17 members"),
        (WAIT | {"approval": {"expires_seconds": 0}}, "expires_seconds is not"),
        (WAIT | {"approval": {"expires_seconds": 604_801}}, "expires_seconds is not"),
        (WAIT | {"approval": {"expires_seconds": None}}, "expires_seconds is null"),
        (WAIT | {"approval": {"quorum": 2}}, "quorum is not a member"),
    ],
)
def test_odd_results_are_named_and_never_allowed(result: object, named: str) -> None:
    with pytest.raises(PolicyMisshaped, match=named):
        interpret(result)


def test_misshaped_is_the_policys_fault() -> None:
    assert issubclass(PolicyMisshaped, EngineError)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text() | st.sampled_from(["ALLOW", "DENY", "effect"]),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["effect", "reasons", "code", "x"]), inner),
    max_leaves=12,
)


@given(JSON)
def test_allow_comes_only_from_the_word(result: object) -> None:
    try:
        verdict = interpret(result)
    except PolicyMisshaped:
        return
    assert isinstance(result, dict)
    assert verdict.effect == result["effect"]
