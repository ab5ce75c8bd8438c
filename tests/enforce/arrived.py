"""That what reached the service is what was decided: whatever a client sent, and however it was framed."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from tests.enforce.gateway import Gateway
from tests.enforce.upstream import Act

JUDGED = ("x-hint",)


def as_decided(it: Gateway, acts: Sequence[Act]) -> None:
    """Each of them is the request that one ALLOW of its own was given for."""
    decisions = {each["decision_id"]: each for each in it.of("DECISION")}
    named = [act.headers["x-sidecar-decision-id"] for act in acts]
    assert len(set(named)) == len(named), "an ALLOW was used twice"
    for act, decision_id in zip(acts, named, strict=True):
        decision = decisions[decision_id]
        asked = json.loads(decision["request"]["arguments"])
        path, _, query = act.path.partition("?")
        assert decision["effect"] == "ALLOW"
        assert (act.method, path, query) == (asked["method"], asked["raw_path"], asked["query"])
        assert act.headers["host"].lower() in (asked["host"], f"{asked['host']}:443")
        assert {name: act.headers[name] for name in JUDGED if name in act.headers} == asked["headers"]
        if asked["body_complete"]:
            assert len(act.body) == asked["body_size"] and _same(act.body, asked["body"])


def _same(sent: bytes, judged: dict[str, Any] | None) -> bool:
    if judged is None:
        return sent == b""
    ((kind, value),) = judged.items()
    return bool(json.loads(sent) == value if kind == "json" else base64.b64decode(value) == sent)
