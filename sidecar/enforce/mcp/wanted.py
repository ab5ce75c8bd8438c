"""The server's requests of the client, up to 2025-11-25: decided before they are handed on, and their answers told."""

from __future__ import annotations

from typing import Final

from sidecar.client import Decision, Status
from sidecar.enforce.mcp import verdicts
from sidecar.enforce.mcp.deciding import Asking
from sidecar.enforce.mcp.frame import BadFrame, Frame, Id, check_case, read
from sidecar.enforce.mcp.methods import Rule
from sidecar.enforce.mcp.ports import Between
from sidecar.errors import SidecarError

_MOST: Final = 64  # under way


class Wants:
    """All of them, by id; their ids are the server's own, apart from the client's."""

    def __init__(self, between: Between) -> None:
        self._name, self._client, self._server = between.name, between.client, between.server
        self._deciding, self._start = between.deciding, between.start
        self._deciding_now: set[Id] = set()
        self._handed: dict[Id, Decision | None] = {}

    async def take(self, frame: Frame, rule: Rule) -> None:
        """A request of the server's. Raises BadFrame."""
        assert frame.id is not None
        under = self._handed.keys() | self._deciding_now
        if frame.id in under or len(under) >= _MOST:
            raise BadFrame("too many requests, or one of its id, are under way", id_text=frame.id_text)
        if rule.action is None:
            self._handed[frame.id] = None
            await self._client.send(frame.raw)
            return
        check_case(frame.params)
        about = rule.resource(self._name, frame.params)
        asking = Asking(rule.action, about, frame.params_text.encode(), frame.method, frame.params, {})
        self._deciding_now.add(frame.id)
        self._start(self._decide(frame, asking))

    async def _decide(self, frame: Frame, asking: Asking) -> None:
        assert frame.id is not None
        try:
            decision = await self._deciding.permit(asking)
        except Exception as error:  # whatever it is: without an ALLOW nothing is handed on
            known = error if isinstance(error, SidecarError) else SidecarError("a defect of this gateway")
            await self._back(verdicts.refusal(frame, self._name, known))
            return
        finally:
            self._deciding_now.discard(frame.id)
        self._handed[frame.id] = decision
        await self._client.send(frame.raw)

    async def answer(self, frame: Frame) -> bool:
        """A response of the client's; whether it answers what was asked. It is passed on."""
        assert frame.id is not None
        if frame.id not in self._handed:
            return False
        decision = self._handed.pop(frame.id)
        failed = "error" in frame.members
        end, status = {"end": "answered", "is_error": failed}, Status.FAILED if failed else Status.EXECUTED
        try:
            await self._server.send(frame)
        except OSError:
            end, status = {"end": "not sent"}, Status.FAILED
        if decision is not None:
            self._deciding.report(decision.decision_id, status, end)
        return True

    def end(self) -> None:
        """Nobody will answer any more."""
        for decision in self._handed.values():
            if decision is not None:
                self._deciding.report(decision.decision_id, Status.FAILED, {"end": "no answer"})
        self._handed.clear()

    async def _back(self, message: bytes) -> None:
        try:
            await self._server.send(read(message, strict=False))
        except OSError:
            return  # it is gone, and waits for nothing
