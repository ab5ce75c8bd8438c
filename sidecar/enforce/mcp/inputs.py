"""What a server wants of the client before it answers: in a result, since 2026-07-28 (`input_required`); in an error,
since 2025-11-25 (a URL to be opened first)."""

from __future__ import annotations

from typing import Any, Final

from sidecar.client import Decision, Status
from sidecar.enforce.mcp.deciding import Asking, Deciding
from sidecar.enforce.mcp.frame import BadFrame, Frame, check_case, elements, members, respelt
from sidecar.enforce.mcp.methods import SERVER_REQUESTS
from sidecar.errors import SidecarError

_MOST: Final = 16  # in one answer
_URL_FIRST: Final = -32042  # URLElicitationRequiredError


class Inputs:
    """Decides each of them as the request that it would have been before."""

    def __init__(self, name: str, deciding: Deciding) -> None:
        self._name, self._deciding = name, deciding

    def asks(self, frame: Frame) -> bool:
        """Whether a response is such a one. Whatever is not plainly a complete result is looked at."""
        value = _value(frame)
        if value.get("resultType", "complete") != "complete" or "inputRequests" in value or _respelt(frame):
            return True
        error, data = _error(frame), _error(frame).get("data")
        return error.get("code") == _URL_FIRST or (isinstance(data, dict) and "elicitations" in data)

    async def decide(self, frame: Frame) -> SidecarError | None:
        """None where all of it may be asked of the client, else why not."""
        allowed: list[Decision] = []
        try:
            for asking in self._askings(frame):
                allowed.append(await self._deciding.permit(asking))
        except (SidecarError, BadFrame) as refused:
            self._deciding.report_all(allowed, Status.BLOCKED, {"end": "refused with another"})
            return refused if isinstance(refused, SidecarError) else SidecarError(str(refused))
        self._deciding.report_all(allowed, Status.EXECUTED, {"end": "asked of the client"})
        return None

    def _askings(self, frame: Frame) -> list[Asking]:
        if _respelt(frame):
            raise BadFrame("the server answers with a member of this gateway's concern in another case of letters")
        return self._urls(frame.members["error"].text) if "error" in frame.members else self._inputs(frame)

    def _urls(self, error: str) -> list[Asking]:
        """What an error wants to be opened; each as if it was asked by itself."""
        data = members(error).get("data")
        wanted = members(data.text).get("elicitations") if data is not None and isinstance(data.value, dict) else None
        if wanted is None or not isinstance(wanted.value, list) or not 0 < len(wanted.value) <= _MOST:
            raise BadFrame(f"what the server asks for is no list of at most {_MOST}")
        if not all(isinstance(each, dict) for each in wanted.value):
            raise BadFrame("what the server asks for is no request")
        return [self._asking(f'{{"method":"elicitation/create","params":{text}}}') for text in elements(wanted.text)]

    def _inputs(self, frame: Frame) -> list[Asking]:
        if _value(frame).get("resultType") != "input_required":
            raise BadFrame("the server answers with a kind of result that is not passed on")
        wanted = members(frame.members["result"].text).get("inputRequests")
        if wanted is None:
            return []
        if not isinstance(wanted.value, dict) or len(wanted.value) > _MOST:
            raise BadFrame(f"what the server asks for is no object of at most {_MOST}")
        return [self._asking(each.text) for each in members(wanted.text).values()]

    def _asking(self, text: str) -> Asking:
        try:
            parts = members(text)
        except ValueError:
            raise BadFrame("what the server asks for is no request") from None
        method = parts["method"].value if "method" in parts else None
        rule = SERVER_REQUESTS.get(method) if isinstance(method, str) else None
        params: Any = parts["params"].value if "params" in parts else {}
        if (
            rule is None
            or rule.action is None
            or not parts.keys() <= {"method", "params"}
            or not isinstance(params, dict)
        ):
            raise BadFrame("the server asks for what is not passed on")
        rule.check(params)
        check_case(params)
        arguments = parts["params"].text.encode() if "params" in parts else b"{}"
        return Asking(rule.action, rule.resource(self._name, params), arguments, str(method), params, {})


def _value(frame: Frame) -> dict[str, Any]:
    value = frame.members["result"].value if "result" in frame.members else {}
    return value if isinstance(value, dict) else {}


def _error(frame: Frame) -> dict[str, Any]:
    value = frame.members["error"].value if "error" in frame.members else {}
    return value if isinstance(value, dict) else {}


def _respelt(frame: Frame) -> bool:
    """Whether a client that finds members in any case of letters could read another answer than is looked at here."""
    error = _error(frame)
    return bool(
        respelt(_value(frame), "resultType", "inputRequests")
        or respelt(error, "code", "data")
        or respelt(error.get("data"), "elicitations")
    )
