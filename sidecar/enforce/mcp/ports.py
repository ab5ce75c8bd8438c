"""What a gateway stands between: a client that wrote to it and is written to, and a server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from sidecar.enforce.mcp.deciding import Deciding
from sidecar.enforce.mcp.frame import Frame, Id
from sidecar.enforce.mcp.lines import Overlong


@dataclass(frozen=True, slots=True)
class Failed:
    """A request that gets no answer. ``what`` for whoever waits, ``end`` for the record."""

    answers: Id
    what: str
    end: str


class Client(Protocol):
    """The MCP client."""

    def messages(self) -> AsyncIterator[bytes | Overlong | Frame]:
        """What it sends, until it is gone."""
        ...

    async def send(self, message: bytes, about: Id | None = None) -> None:
        """Hand it one message, ``about`` a request of its. What a client that is gone does not get is lost."""
        ...

    async def respond(self, key: Id, message: bytes) -> None:
        """Hand it the response to its request of this id, likewise."""
        ...


class Server(Protocol):
    """The MCP server."""

    def messages(self) -> AsyncIterator[bytes | Overlong | Failed]:
        """What it sends, until it is gone."""
        ...

    async def send(self, frame: Frame) -> None:
        """Pass one message on, its very bytes. OSError where it cannot be."""
        ...

    async def forget(self, frame: Frame) -> None:
        """Nobody waits for the answer to this request any more."""
        ...

    async def end(self) -> str:
        """Bid it end, make it if it does not; the end, in words."""
        ...


@dataclass(frozen=True, slots=True)
class Between:
    """What a gateway is between, and asks. ``name``: of the server. ``say``: for the operator, one line at a time.

    ``start`` runs work beside the reading of further messages.
    """

    name: str
    client: Client
    server: Server
    deciding: Deciding
    say: Callable[[str], object]
    start: Callable[[Coroutine[Any, Any, None]], object]
