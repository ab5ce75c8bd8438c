"""Asking the same again: one idempotency key of one agent is decided once, also across restarts.

What was decided is looked up through an index that the chain does not cover; the ledger holds what it points to against
its receipt, and here it is held against the request, before it is given out. An index that lost a key makes us decide
again, one that lies makes us refuse. A decision with an outcome is over: what it allowed is not allowed once more.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine
from typing import Any

from sidecar.chain.entry import EntryType
from sidecar.chain.request import Request
from sidecar.decide.entries import Answer, Caller, answer_again
from sidecar.errors import LedgerDamaged, RequestError, WrongState
from sidecar.ledger import Ledger, Recorded, unopened

Fresh = Callable[[], Coroutine[Any, Any, Answer]]

_OVER = "idempotency_key: stands for a decision whose outcome is recorded: that is done, or will not be; use another"
_OTHER = "was used for another request; a key stands for one request, byte for byte"


def repeat_key(request: Request) -> bytes:
    """16 bytes that stand for this agent and its key."""
    agent, key = request.agent.encode(), request.idempotency_key.encode()
    return hashlib.sha256(b"sidecar/v1/repeat\0" + len(agent).to_bytes(4, "big") + agent + key).digest()[:16]


def recorded_at(ledger: Ledger, place: int, key: bytes) -> Recorded:
    """What was recorded at ``place`` under a repeat key; without its receipt once that is forgotten."""
    recalled = ledger.recall(key)
    if recalled is not None and recalled.seq == place:
        return recalled
    return Recorded(place, ledger.entry(place).segment, b"", b"")


class Repeats:
    """Requests with a key: under way, or in the ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._under_way: dict[bytes, tuple[bytes, asyncio.Task[Answer]]] = {}

    async def once(self, request: Request, key: bytes, digest: bytes, caller: Caller, fresh: Fresh) -> Answer:
        """The answer to a request with a key: the one made before, or ``fresh()``, at most once at a time.

        ``key`` is the request's :func:`repeat_key`, ``digest`` its digest.

        Cancelling the caller does not cancel a decision that others may wait for: it ends, and is recorded whole.

        Raises:
            RequestError: the key was used for another request. WrongState: the decision has its outcome.
            LedgerDamaged: the index points elsewhere.
        """
        before = self._under_way.get(key)
        if before is None:
            made = self._made_before(key, digest, request, caller)
            if made is not None:
                return made
            task = asyncio.create_task(fresh())
            before = self._under_way[key] = digest, task
            task.add_done_callback(lambda done: self._ended(key, done))
        if before[0] != digest:
            raise RequestError("idempotency_key", _OTHER)
        return await asyncio.shield(before[1])

    def _ended(self, key: bytes, done: asyncio.Task[Answer]) -> None:
        del self._under_way[key]
        if not done.cancelled():
            done.exception()  # looked at, should nobody be waiting any more

    def _made_before(self, key: bytes, digest: bytes, request: Request, caller: Caller) -> Answer | None:
        recalled = self._ledger.recall(key)
        if recalled is None:
            return None
        payload = self._ledger.payload(recalled.seq)
        decision = payload.get("type") == "DECISION" and payload["agent"]["id"] == caller.agent
        if decision and unopened(payload):
            raise RequestError(
                "idempotency_key", "stands for a decision whose personal fields were erased; use another"
            )
        if not decision or payload["request"]["idempotency_key"] != request.idempotency_key:
            raise LedgerDamaged("the index of idempotency keys points to another entry; run `sidecar verify`")
        if payload["request_digest"] != digest.hex():
            raise RequestError("idempotency_key", _OTHER)
        if any(kind is EntryType.OUTCOME for _, kind in self._ledger.about(recalled.seq)):
            raise WrongState(_OVER)
        return answer_again(payload, caller, recalled, self._ledger.permit(recalled.seq, payload))
