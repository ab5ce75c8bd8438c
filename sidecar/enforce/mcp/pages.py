"""A listing of tools, which comes in pages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

_MOST: Final = 1_000


class ListingFailed(Exception):
    """The server does not list its tools."""


async def all_tools(ask: Callable[[dict[str, Any]], Awaitable[Mapping[str, Any]]], seconds: float) -> list[Any]:
    """The tools of all pages. ``ask``: the result of a `tools/list` with these parameters; OSError: the server is gone.

    Raises ListingFailed.
    """
    tools: list[Any] = []
    cursor: str | None = None
    try:
        async with asyncio.timeout(seconds):
            for _ in range(_MOST):
                page = await ask({} if cursor is None else {"cursor": cursor})
                listed, cursor = page.get("tools"), page.get("nextCursor")
                if not isinstance(listed, list) or not isinstance(cursor, str | None):
                    break
                tools += listed
                if cursor is None:
                    return tools
    except TimeoutError:
        raise ListingFailed(f"no answer within {seconds:g} s") from None
    except OSError:
        raise ListingFailed("it is gone") from None
    raise ListingFailed("its answer is no list of tools")
