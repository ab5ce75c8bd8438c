"""What the server lists now, whether each of it is as it was pinned, and which of it the agent may see."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sidecar.client import Decision, Effect, Status
from sidecar.enforce.mcp.deciding import Asking, Deciding, allows
from sidecar.enforce.mcp.frame import elements, members, replaced
from sidecar.enforce.mcp.kinds import KINDS, TOOL, Kind, digest_of, name_of, told
from sidecar.enforce.mcp.methods import TOOL as TOOL_TYPE
from sidecar.enforce.mcp.methods import TOOL_LIST
from sidecar.enforce.mcp.pages import ListingFailed, Listings
from sidecar.enforce.mcp.pinning import Pinning
from sidecar.errors import UsageError

OFFERED: Final = ("capabilities", "instructions", "serverInfo")
"""What is looked at of what a server says of itself when it is greeted."""

_MOST: Final = 10_000  # of a kind


@dataclass(frozen=True, slots=True)
class Listed:
    """A thing of the server's. ``pin``: "pinned", "changed", "new"; "gone": it is not listed; "unknown": whether it is
    cannot be told."""

    digest: str
    pin: str


Page = Sequence[tuple[str, Listed] | None]


class Catalog:
    """What one server lists. ``seconds``: for how long a decision to show a tool holds while the policy is the same."""

    def __init__(
        self,
        server: str,
        pinning: Pinning,
        deciding: Deciding,
        say: Callable[[str], object],
        *,
        seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._server, self._pinning, self._deciding, self._say = server, pinning, deciding, say
        self._seconds, self._clock = seconds, clock
        self._things: dict[Kind, dict[str, Listed]] = {kind: {} for kind in KINDS}
        self._complete: set[Kind] = set()
        self._generation = dict.fromkeys(KINDS, 0)
        self._one = asyncio.Lock()
        self._shown: dict[tuple[str, str], tuple[bool, float]] = {}
        self._policies = deciding.policies

    def stale(self, capability: str) -> None:
        """The server says that these changed: "tools", "prompts", "resources"."""
        for kind in KINDS:
            if kind.capability == capability:
                self._generation[kind] += 1
                self._complete.discard(kind)

    async def find(self, kind: Kind, name: str, listings: Listings) -> Listed:
        """How the server lists this one now."""
        try:
            await self.know(kind, listings)
        except (ListingFailed, UsageError) as error:
            self._say(f"the {kind.word}s of {self._server} are not known: {error}")
            return Listed("", "unknown")
        return self._things[kind].get(name, Listed("", "gone"))

    async def know(self, kind: Kind, listings: Listings) -> None:
        """Have them listed, unless they are known. Raises ListingFailed; UsageError: they cannot be pinned."""
        async with self._one:
            if kind in self._complete:
                return
            if self._pinning.unpinned:
                await self._pinning.begin(listings)
            generation = self._generation[kind]
            things = await listings.all(kind)
            self._things[kind] = {}
            self._take(kind, things)
            if generation == self._generation[kind]:
                self._complete.add(kind)

    async def page(self, kind: Kind, page: Sequence[Any], listings: Listings) -> list[bool]:
        """Which things of a page the agent sees: those that are pinned, and of tools those that may be shown.

        Raises ListingFailed, SidecarError.
        """
        if self._pinning.unpinned:
            await self.know(kind, listings)
        taken = self._take(kind, page)
        if kind is TOOL:
            return await self.shown(taken)
        return [each is not None and each[1].pin == "pinned" for each in taken]

    def withheld(self, offered: Mapping[str, Any]) -> list[str]:
        """Which members of what the server says of itself are not as they were pinned."""
        if self._pinning.unpinned:
            return []
        about = told(offered)
        members = self._pinning.pins.withheld(about)
        for member in members:
            self._pinning.tell_withheld(member, repr(about[member]))
        return members

    def _take(self, kind: Kind, things: Sequence[Any]) -> list[tuple[str, Listed] | None]:
        """Name and state of each, None for what is none."""
        return [self._taken(kind, thing) for thing in things[:_MOST]] + [None] * (len(things) - _MOST)

    def _taken(self, kind: Kind, thing: Any) -> tuple[str, Listed] | None:
        try:
            name = name_of(kind, thing)
            digest = digest_of(kind, thing)
        except ValueError as error:
            self._say(f"a {kind.word} of {self._server} is left out: {error}")
            return None
        listed = Listed(digest, self._pinning.pins.judge(kind, name, digest))
        if listed.pin != "pinned":
            self._pinning.tell(kind, name, digest, listed.pin)
        if name not in self._things[kind] and len(self._things[kind]) >= _MOST:
            return None
        self._things[kind][name] = listed
        return name, listed

    async def shown(self, page: Page) -> list[bool]:
        """Which tools of a page the agent sees: those that are pinned and may be shown. SidecarError: undecided."""
        if self._policies != self._deciding.policies:
            self._policies = self._deciding.policies
            self._shown.clear()
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
        return Asking(TOOL_LIST, (TOOL_TYPE, f"{self._server}/{name}"), b"{}", "tools/list", {}, door)


def without(result_text: str, kind: Kind, keep: Sequence[bool]) -> str:
    """The result of a list with what is kept of it, its text as it came; a cache may keep it for this agent."""
    whole = members(result_text)
    kept = [text for text, keeps in zip(elements(whole[kind.listed].text), keep, strict=True) if keeps]
    private = {"cacheScope": '"private"'} if "cacheScope" in whole else {}
    return replaced(whole, {kind.listed: f"[{','.join(kept)}]", **private})


def offering(result_text: str, server: str, withheld: Sequence[str]) -> str | None:
    """An `initialize` or `server/discover` result without tasks, and without what is withheld; None where it is so.

    A server's name is no text for a model: where what it says of itself is withheld, it is called as here.
    """
    whole = members(result_text)
    texts: dict[str, str] = {}
    offered = whole.get("capabilities")
    if offered is not None and isinstance(offered.value, Mapping):
        kept = {name: each for name, each in members(offered.text).items() if name.casefold() != "tasks"}
        if kept.keys() != offered.value.keys():
            texts["capabilities"] = replaced(kept, {})
    for name in withheld:
        if name != "serverInfo":
            del whole[name]
    if "serverInfo" in withheld:
        texts["serverInfo"] = f'{{"name":"{server}","version":"0"}}'
    return replaced(whole, texts) if texts or withheld else None
