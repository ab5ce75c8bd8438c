"""What a server lists and says of itself, asked for by this side: lists come in pages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from sidecar.enforce.mcp.frame import METHOD_NOT_FOUND, Frame
from sidecar.enforce.mcp.kinds import TOOL, Kind, told

_MOST: Final = 1_000  # pages
_MOST_BYTES: Final = 64 << 20  # of all of them

Ask = Callable[[str, Mapping[str, Any]], Awaitable[Frame]]
"""The response to a request of this method with these parameters. Raises OSError where the server is gone."""


class ListingFailed(Exception):
    """The server does not list what it has."""


class Listings:
    """Of one server. ``seconds``: for all pages of one kind. ``offered``: what it answered to `initialize` or
    `server/discover`, once that is known."""

    def __init__(self, ask: Ask, seconds: float) -> None:
        self._ask, self._seconds = ask, seconds
        self.offered: Mapping[str, Any] | None = None

    async def all(self, kind: Kind) -> list[Any]:
        """All pages; nothing of a kind that the server does not have. Raises ListingFailed."""
        try:
            async with asyncio.timeout(self._seconds):
                if kind is not TOOL and kind.capability not in await self._capabilities():
                    return []
                return await self._pages(kind)
        except TimeoutError:
            raise ListingFailed(f"no answer within {self._seconds:g} s") from None
        except OSError:
            raise ListingFailed("it is gone") from None

    async def about(self) -> dict[str, Any]:
        """What it says of itself (`kinds.told`). Raises ListingFailed."""
        try:
            async with asyncio.timeout(self._seconds):
                await self._capabilities()
        except (TimeoutError, OSError):
            raise ListingFailed("it does not say what it is") from None
        return told(self.offered or {})

    async def _capabilities(self) -> Mapping[str, Any]:
        if self.offered is None:
            self.offered = _result(await self._ask("server/discover", {}))
        found = self.offered.get("capabilities")
        return found if isinstance(found, dict) else {}

    async def _pages(self, kind: Kind) -> list[Any]:
        things: list[Any] = []
        cursor: str | None = None
        size = 0
        for _ in range(_MOST):
            answer = await self._ask(kind.method, {} if cursor is None else {"cursor": cursor})
            if _unknown(answer):
                return []
            size += len(answer.raw)
            if size > _MOST_BYTES:
                raise ListingFailed(f"it lists more than {_MOST_BYTES >> 20} MiB of {kind.word}s")
            page = _result(answer)
            listed, cursor = page.get(kind.listed), page.get("nextCursor")
            if not isinstance(listed, list) or not isinstance(cursor, str | None):
                break
            things += listed
            if cursor is None:
                return things
        else:
            raise ListingFailed(f"it lists its {kind.word}s on more than {_MOST} pages")
        raise ListingFailed(f"its answer is no list of {kind.word}s")


def _result(answer: Frame) -> Mapping[str, Any]:
    value = answer.members["result"].value if "result" in answer.members else None
    return value if isinstance(value, dict) else {}


def _unknown(answer: Frame) -> bool:
    error = answer.members["error"].value if "error" in answer.members else None
    return isinstance(error, dict) and error.get("code") == METHOD_NOT_FOUND
