"""Which tools the server lists now, whether each is as it was pinned, and which of them the agent may see."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sidecar.client import Decision, Effect, Status
from sidecar.enforce.mcp.deciding import Asking, Deciding, allows
from sidecar.enforce.mcp.frame import elements, members, replaced
from sidecar.enforce.mcp.methods import TOOL, TOOL_LIST
from sidecar.enforce.mcp.pages import ListingFailed
from sidecar.enforce.mcp.pins import Pins, pinned, tool_digest, tool_name
from sidecar.errors import UsageError

_MOST_TOOLS: Final = 10_000

Fetch = Callable[[], Awaitable[list[Any]]]
"""All tools that the server lists. Raises ListingFailed."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A tool of the server. ``pin``: "pinned", "changed", "new"; "gone": it is not listed."""

    digest: str
    pin: str


class Catalog:
    """The tools of one server. ``first``: where the first listing is pinned, as nothing was before; None: it is not.

    ``seconds``: for how long a decision to show a tool holds while the policy is the same.
    """

    def __init__(
        self,
        server: str,
        pins: Pins,
        first: Path | None,
        deciding: Deciding,
        say: Callable[[str], object],
        *,
        seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._server, self._pins, self._first, self._deciding, self._say = server, pins, first, deciding, say
        self._seconds, self._clock = seconds, clock
        self._tools: dict[str, Listed] = {}
        self._complete = False
        self._generation = 0
        self._one = asyncio.Lock()
        self._told: set[tuple[str, str]] = set()
        self._shown: dict[tuple[str, str], tuple[bool, float]] = {}
        deciding.changed = self._shown.clear

    @property
    def unpinned(self) -> bool:
        """Whether the first listing is still to be pinned."""
        return self._first is not None

    def schema(self, name: str) -> Any:
        """The input schema of a tool as it was pinned; None where there is none."""
        return self._pins.schema(name)

    def stale(self) -> None:
        """The server says that its tools changed."""
        self._generation += 1
        self._complete = False

    async def find(self, name: str, fetch: Fetch) -> Listed:
        """How the server lists this tool now."""
        try:
            await self.know(fetch)
        except (ListingFailed, UsageError) as error:
            self._say(f"the tools of {self._server} are not known: {error}")
            return Listed("", "gone")
        return self._tools.get(name, Listed("", "gone"))

    async def know(self, fetch: Fetch) -> None:
        """Have the server's tools listed, unless they are known. Raises ListingFailed; UsageError: cannot be pinned."""
        async with self._one:
            if self._complete:
                return
            generation = self._generation
            tools = await fetch()
            if self._first is not None:
                pins = pinned(self._server, tools)
                pins.write(self._first)
                self._say(f"pinned {len(tools)} tools of {self._server} in {self._first}, as they are now")
                self._pins, self._first = pins, None
            self._tools = {}
            self.take(tools)
            self._complete = generation == self._generation

    def take(self, tools: Sequence[Any]) -> list[tuple[str, Listed] | None]:
        """A page of the listing: name and state of each tool, None for what is none."""
        return [self._taken(tool) for tool in tools[:_MOST_TOOLS]] + [None] * (len(tools) - _MOST_TOOLS)

    def _taken(self, tool: Any) -> tuple[str, Listed] | None:
        try:
            name = tool_name(tool)
            digest = tool_digest(tool)
        except ValueError as error:
            self._say(f"a tool of {self._server} is left out: {error}")
            return None
        listed = Listed(digest, self._pins.judge(name, digest))
        if listed.pin != "pinned" and (name, digest) not in self._told and len(self._told) < _MOST_TOOLS:
            self._told.add((name, digest))
            why = "nobody has pinned it" if listed.pin == "new" else "its description changed since it was pinned"
            self._say(f"the tool {name} of {self._server} is refused: {why}; look with --review-pins")
        if name not in self._tools and len(self._tools) >= _MOST_TOOLS:
            return None
        self._tools[name] = listed
        return name, listed

    async def shown(self, page: Sequence[tuple[str, Listed] | None]) -> list[bool]:
        """Which tools of a page the agent sees: those that are pinned and may be shown. SidecarError: undecided."""
        pinned_ones = {each for each in page if each is not None and each[1].pin == "pinned"}
        shows = {each: known for each in pinned_ones if (known := self._known(*each)) is not None}
        ordered = sorted(pinned_ones - shows.keys(), key=lambda each: each[0])
        answers = await self._deciding.each([self._question(*each) for each in ordered])
        for answer in answers:
            if not isinstance(answer, Decision):
                raise answer
        decided = [answer for answer in answers if isinstance(answer, Decision)]
        shows |= dict(zip(ordered, map(allows, decided), strict=True))
        until = self._clock() + self._seconds
        self._shown |= {(name, listed.digest): (shows[name, listed], until) for name, listed in ordered}
        self._deciding.report_all([each for each in decided if allows(each)], Status.EXECUTED, {"end": "listed"})
        conditional = [each for each in decided if each.effect is Effect.ALLOW and not allows(each)]
        self._deciding.report_all(conditional, Status.BLOCKED, {"end": "conditions"})
        return [each is not None and shows.get(each, False) for each in page]

    def _known(self, name: str, listed: Listed) -> bool | None:
        shows, until = self._shown.get((name, listed.digest), (None, 0.0))
        return shows if until > self._clock() else None

    def _question(self, name: str, listed: Listed) -> Asking:
        door = {"tool": listed.digest, "pin": listed.pin}
        return Asking(TOOL_LIST, (TOOL, f"{self._server}/{name}"), b"{}", "tools/list", {}, door)


def without(result_text: str, keep: Sequence[bool]) -> str:
    """A `tools/list` result with the tools that are kept, their text as it came; a cache may keep it for this agent."""
    whole = members(result_text)
    kept = [text for text, keeps in zip(elements(whole["tools"].text), keep, strict=True) if keeps]
    private = {"cacheScope": '"private"'} if "cacheScope" in whole else {}
    return replaced(whole, {"tools": f"[{','.join(kept)}]", **private})


def without_tasks(result_text: str) -> str | None:
    """An `initialize` or `server/discover` result that does not offer tasks; None where it does not anyway."""
    whole = members(result_text)
    offered = whole.get("capabilities")
    if offered is None or not isinstance(offered.value, Mapping) or "tasks" not in offered.value:
        return None
    capabilities = members(offered.text)
    del capabilities["tasks"]
    return replaced(whole, {"capabilities": replaced(capabilities, {})})
