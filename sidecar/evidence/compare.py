"""What a recorded decision says against what its policy says when it is asked again.

A decision has options: the action itself, then its alternatives. Of the action effect, reasons, obligations, what an
approval takes and the policy's whole result are compared; of an alternative, of which no more is recorded, effect and
reasons. Values are compared as JSON: members in any order, but 1 is not 1.0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from sidecar.chain.payload import CAUSES
from sidecar.policy import Approval, Rerun, Verdict

ENGINE_CAUSES: Final = CAUSES - {"policy"}
UNANSWERED: Final = frozenset({"engine_timeout", "engine_unavailable"})
"""Causes of a re-run that say nothing about the record: this machine's engine gave no answer."""


@dataclass(frozen=True, slots=True)
class Difference:
    """``what`` differs of which option (0: the action, n: alternative n - 1): as recorded, and as it came out."""

    option: int
    what: str
    recorded: object
    rerun: object

    def to_json(self) -> dict[str, Any]:
        """As `sidecar replay --json` has it; ``alternative`` counts from 0, null is the action itself."""
        option = self.option - 1 if self.option else None
        return {"alternative": option, "what": self.what, "recorded": self.recorded, "rerun": self.rerun}


def contradictions(decision: Mapping[str, Any]) -> list[Difference]:
    """What is wrong with a decision for want of a decision, by itself: such a one is a DENY with its cause."""
    if decision["effect"] == "DENY" and [r["code"] for r in decision["reasons"]] == [decision["cause"]]:
        return []
    said = {"effect": decision["effect"], "reasons": decision["reasons"]}
    return [Difference(0, f"a {decision['cause']} that is not recorded as DENY for that reason", said, None)]


def action_differences(decision: Mapping[str, Any], now: Rerun) -> list[Difference]:
    """Where the action came out otherwise."""
    verdict = now.verdict
    pairs: list[tuple[str, object, object]] = [
        ("cause", decision["cause"], now.cause),
        ("effect", decision["effect"], verdict.effect),
        ("reasons", decision["reasons"], _reasons(verdict)),
        ("obligations", decision["obligations"], _obligations(verdict)),
        ("terms", _terms(decision["terms"]), _asked(verdict)),
        ("result", decision["result"], now.result),
        ("revision", decision["policy"]["revision"], now.version.revision),
    ]  # fmt: skip
    return [Difference(0, *pair) for pair in pairs if not same(pair[1], pair[2])]


def alternative_differences(option: int, recorded: Mapping[str, Any], now: Rerun) -> list[Difference]:
    """Where the alternative ``option`` - 1 came out otherwise."""
    verdict = now.verdict
    pairs = (("effect", recorded["effect"], verdict.effect), ("reasons", recorded["reasons"], _reasons(verdict)))
    return [Difference(option, *pair) for pair in pairs if not same(pair[1], pair[2])]


def undecided(recorded: Mapping[str, Any]) -> bool:
    """Whether an alternative's record reads like a DENY for want of a decision: no more is recorded of why."""
    codes = [reason["code"] for reason in recorded["reasons"]]
    return recorded["effect"] == "DENY" and len(codes) == 1 and codes[0] in ENGINE_CAUSES


def same(one: object, other: object) -> bool:
    """Whether two values are the same JSON."""
    try:
        return orjson.dumps(one, option=orjson.OPT_SORT_KEYS) == orjson.dumps(other, option=orjson.OPT_SORT_KEYS)
    except (orjson.JSONEncodeError, RecursionError):  # what no payload can hold was not recorded
        return False


def _reasons(verdict: Verdict) -> list[dict[str, str]]:
    return [{"code": reason.code, "message": reason.message} for reason in verdict.reasons]


def _obligations(verdict: Verdict) -> list[dict[str, Any]]:
    return [{"kind": obligation.kind, "parameters": obligation.parameters} for obligation in verdict.obligations]


def _terms(recorded: Mapping[str, Any] | None) -> object:
    """Without the time at which they end: that is counted from the sidecar's clock, not by the policy."""
    return None if recorded is None else {"count": recorded["count"], "roles": recorded["roles"]}


def _asked(verdict: Verdict) -> object:
    if verdict.effect != "REQUIRE_APPROVAL":
        return None
    asked = verdict.approval or Approval()
    return {"count": asked.count, "roles": list(asked.roles)}


def differing(differences: Sequence[Difference]) -> str:
    """In words, for one line: `effect, result; alternative 2: reasons`."""
    options = sorted({each.option for each in differences})
    parts = []
    for option in options:
        whats = ", ".join(each.what for each in differences if each.option == option)
        parts.append(f"alternative {option - 1}: {whats}" if option else whats)
    return "; ".join(parts)
