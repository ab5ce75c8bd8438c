"""What a client is told where nothing was done: in words for a model and a person, and the same for programs."""

from __future__ import annotations

from typing import Any, Final

from sidecar.client import Decision, NoDecision, Refused
from sidecar.enforce.mcp.frame import Frame, error, result
from sidecar.enforce.mcp.kinds import Kind
from sidecar.enforce.words import named, told

REFUSED: Final = -32090
"""JSON-RPC's code of what a decision, or the lack of one, did not let through."""
UNANSWERED: Final = -32091
"""JSON-RPC's code of what was passed on and has no answer that could be handed back."""

_VERSION: Final = "io.modelcontextprotocol/protocolVersion"  # in `_meta` of each request since 2026-07-28
_DATA: Final = "sidecar/decision"


def refusal(asked: Frame, server: str, why: Exception) -> bytes:
    """The answer to a request that was not passed on, because of ``why``."""
    return _answer(asked, _told(asked, server, why), REFUSED, _data(why))


def unpinned(asked: Frame, server: str, kind: Kind, decision: Decision, how: str) -> bytes:
    """The answer to an allowed request about what is not as it was pinned. ``how``: as in `catalog.Listed`."""
    how_so = {
        "new": f"nobody has pinned this {kind.word} yet",
        "changed": f"the server has changed this {kind.word}'s description since it was pinned",
        "gone": f"the server does not list this {kind.word}",
        "unknown": f"the server does not list its {kind.word}s, so that nobody can tell whether this one is as it was",
    }[how]
    text = (
        f"Not done: {how_so}, and nothing was sent to the server {server}. A person looks at the difference with "
        f"`sidecar mcp --review-pins` and allows it with `--accept-pins`. {named(decision)}"
    )
    return _answer(asked, text, REFUSED, {**_decided(decision), "pin": how})


def unanswered(asked: Frame, decision: Decision | None, what: str) -> bytes:
    """The answer to a request that was passed on, and got none that could be handed back."""
    text = (
        f"No answer: {what}. It was passed on, so it may have been done. {named(decision) if decision else ''}".strip()
    )
    return _answer(asked, text, UNANSWERED, _decided(decision) if decision else None)


def _answer(asked: Frame, text: str, code: int, data: dict[str, Any] | None) -> bytes:
    """For a tool's call a result that is an error, which the model reads; for anything else JSON-RPC's error."""
    if asked.method != "tools/call":
        return error(asked.id_text, code, text, data)
    meta = asked.params.get("_meta")
    modern = {"resultType": "complete"} if isinstance(meta, dict) and _VERSION in meta else {}
    more = {"_meta": {_DATA: data}} if data else {}
    return result(asked.id_text, {**modern, "content": [{"type": "text", "text": text}], "isError": True, **more})


def _told(asked: Frame, server: str, why: Exception) -> str:
    what = f"{asked.method} of {server}" if asked.method != "tools/call" else f"{asked.params.get('name')} of {server}"
    return told(what, "was not passed on", "this gateway", why)


def _data(why: Exception) -> dict[str, Any] | None:
    if isinstance(why, Refused):
        return _decided(why.decision)
    return {"cause": why.cause} if isinstance(why, NoDecision) else None


def _decided(decision: Decision) -> dict[str, Any]:
    return {
        "decision_id": decision.decision_id,
        "effect": decision.effect.value,
        "reasons": [{"code": r.code, "message": r.message} for r in decision.reasons],
        "policy": {"revision": decision.policy.revision, "bundle_digest": decision.policy.bundle_digest},
    }
