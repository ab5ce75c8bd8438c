"""The pins in force before one server, for every gateway that stands there."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sidecar.enforce.mcp.kinds import KINDS, Kind
from sidecar.enforce.mcp.pages import Listings
from sidecar.enforce.mcp.pins import Pins, counted, pinned

_MOST_TOLD: Final = 10_000


class Pinning:
    """``pins``: None where there are none yet; then what the server tells first is pinned in the file ``first``."""

    def __init__(self, server: str, pins: Pins | None, first: Path | None, say: Callable[[str], object]) -> None:
        self._server, self._first, self._say = server, None if pins else first, say
        self.pins = pins or Pins(server, {}, {})
        self._one = asyncio.Lock()
        self._told: set[tuple[str, str, str]] = set()

    @property
    def unpinned(self) -> bool:
        """Whether what the server tells first is still to be pinned."""
        return self._first is not None

    async def begin(self, listings: Listings) -> None:
        """Pin what it tells now, if nothing was before. Raises ListingFailed; UsageError: it cannot be pinned."""
        async with self._one:
            if self._first is None:
                return
            listed = {kind: await listings.all(kind) for kind in KINDS}
            pins = pinned(self._server, await listings.about(), listed)
            pins.write(self._first)
            self._say(f"pinned {counted(listed)} of {self._server} in {self._first}, as they are now")
            self.pins, self._first = pins, None

    def tell(self, kind: Kind, name: str, digest: str, pin: str) -> None:
        """Say to the operator, once, that a listed thing is refused."""
        why = "nobody has pinned it" if pin == "new" else f"the {kind.word} changed since it was pinned"
        self._once((kind.word, name, digest), f"the {kind.word} {name} of {self._server} is refused: {why}")

    def tell_withheld(self, member: str, text: str) -> None:
        """The same of what the server says of itself."""
        why = "it is not as it was pinned"
        digest = hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()
        self._once(("", member, digest), f"the {member} of {self._server} is withheld from the client: {why}")

    def _once(self, key: tuple[str, str, str], words: str) -> None:
        if key not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add(key)
            self._say(f"{words}; look with --review-pins")
