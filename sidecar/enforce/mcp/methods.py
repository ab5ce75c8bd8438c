"""Which methods pass, which are decided, and of what: the table of `proto/DOORS.md`. What is not in it is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sidecar.enforce.mcp import kinds
from sidecar.enforce.mcp.frame import INVALID_PARAMS, BadFrame
from sidecar.enforce.mcp.kinds import PROMPT, RESOURCE, TEMPLATE, Kind

TOOL_CALL: Final = "mcp.tool.call"
TOOL_LIST: Final = "mcp.tool.list"
TOOL: Final = "mcp.tool"
SERVER: Final = "mcp.server"

Resource = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Rule:
    """A method that may be passed on. ``params``: the members its parameters may have besides `_meta`.

    ``action``: what is decided first; None: nothing. ``kind`` and ``name``: the resource's type, and what of the
    parameters names it after the server's name; none: the server itself. ``pins``: what it must be pinned as;
    ``lists``: what its answer lists.
    """

    params: frozenset[str]
    action: str | None = None
    kind: str = SERVER
    name: Callable[[Mapping[str, Any]], Any] | None = None
    endless: bool = False  # answered when the server ends it, with no limit
    pins: Kind | None = None
    lists: Kind | None = None

    def check(self, params: Mapping[str, Any]) -> None:
        """BadFrame for members that this method does not have, in any case of their letters."""
        if params.keys() - self.params - {"_meta"}:
            raise BadFrame("params: members that this method does not have are not passed on", INVALID_PARAMS)
        if not isinstance(params.get("_meta", {}), dict):
            raise BadFrame("params: _meta must be an object", INVALID_PARAMS)

    def resource(self, server: str, params: Mapping[str, Any]) -> Resource:
        """What it is about. BadFrame where the parameters do not name it."""
        if self.name is None:
            return self.kind, server
        named = self.name(params)
        if not isinstance(named, str) or not named:
            raise BadFrame("params: they do not name what this is about", INVALID_PARAMS)
        return self.kind, f"{server}/{named}"


def _pass(*params: str, lists: Kind | None = None) -> Rule:
    return Rule(frozenset(params), lists=lists)


def _decide(action: str, *params: str, kind: str = SERVER, name: str = "", **more: Any) -> Rule:
    return Rule(frozenset(params), action, kind, (lambda given: given.get(name)) if name else None, **more)


def _reference(params: Mapping[str, Any]) -> Any:
    """Of a prompt the name, of a resource the URI; None where it could be taken for another as well."""
    given = params.get("ref")
    if not isinstance(given, dict):
        return None
    if given.get("type") == "ref/prompt" and given.keys() <= {"type", "name", "title"}:
        return given.get("name")
    return given.get("uri") if given.get("type") == "ref/resource" and given.keys() <= {"type", "uri"} else None


_AGAIN: Final = ("inputResponses", "requestState")  # of a request that is made again with what the server asked for

CALL: Final = _decide(TOOL_CALL, "name", "arguments", *_AGAIN, kind=TOOL, name="name", pins=kinds.TOOL)

CLIENT_REQUESTS: Final[Mapping[str, Rule]] = {
    "initialize": _pass("protocolVersion", "capabilities", "clientInfo"),
    "server/discover": _pass(),
    "ping": _pass(),
    "tools/list": _pass("cursor", lists=kinds.TOOL),  # each tool in the answer is decided
    "tools/call": CALL,
    "resources/list": _decide("mcp.resource.list", "cursor", lists=RESOURCE),
    "resources/templates/list": _decide("mcp.resource.list", "cursor", lists=TEMPLATE),
    "resources/read": _decide("mcp.resource.read", "uri", *_AGAIN, kind="mcp.resource", name="uri", pins=RESOURCE),
    "resources/subscribe": _decide("mcp.resource.subscribe", "uri", kind="mcp.resource", name="uri", pins=RESOURCE),
    "resources/unsubscribe": _decide("mcp.resource.unsubscribe", "uri", kind="mcp.resource", name="uri"),
    "prompts/list": _decide("mcp.prompt.list", "cursor", lists=PROMPT),
    "prompts/get": _decide("mcp.prompt.get", "name", "arguments", *_AGAIN, kind="mcp.prompt", name="name", pins=PROMPT),
    "completion/complete": Rule(
        frozenset({"ref", "argument", "context"}), "mcp.completion", "mcp.completion", _reference
    ),
    "logging/setLevel": _decide("mcp.logging", "level"),
    "subscriptions/listen": _decide("mcp.subscribe", "notifications", endless=True),
}

SERVER_REQUESTS: Final[Mapping[str, Rule]] = {
    "ping": _pass(),
    "sampling/createMessage": _decide(
        "mcp.sampling",
        *("messages", "modelPreferences", "systemPrompt", "includeContext", "temperature", "maxTokens"),
        *("stopSequences", "metadata", "tools", "toolChoice"),
    ),
    "elicitation/create": _decide("mcp.elicitation", "mode", "message", "requestedSchema", "url", "elicitationId"),
    "roots/list": _decide("mcp.roots"),
}

CLIENT_NOTIFICATIONS: Final[Mapping[str, Rule]] = {
    "notifications/initialized": _pass(),
    "notifications/cancelled": _pass("requestId", "reason"),
    "notifications/progress": _pass("progressToken", "progress", "total", "message"),
    "notifications/roots/list_changed": _pass(),
}

SERVER_NOTIFICATIONS: Final[Mapping[str, Rule]] = {
    "notifications/cancelled": _pass("requestId", "reason"),
    "notifications/progress": _pass("progressToken", "progress", "total", "message"),
    "notifications/message": _pass("level", "logger", "data"),
    "notifications/tools/list_changed": _pass(),
    "notifications/resources/list_changed": _pass(),
    "notifications/resources/updated": _pass("uri"),
    "notifications/prompts/list_changed": _pass(),
    "notifications/subscriptions/acknowledged": _pass("notifications"),
    "notifications/elicitation/complete": _pass("elicitationId"),
}
