"""The gateways that a listener has: one for each session, and a few without one, each with a server of its own."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from sidecar.enforce.mcp.asked import LATE
from sidecar.enforce.mcp.frame import read
from sidecar.enforce.mcp.gateway import Gateway
from sidecar.enforce.mcp.lanes import Lane
from sidecar.enforce.mcp.ports import Client
from sidecar.enforce.mcp.streams import SessionClient
from sidecar.errors import SidecarError

IDLE: Final = 1800.0  # seconds without a request, until a session ends
_LANE_WAIT: Final = 30.0  # seconds for a server to be free

Open = Callable[[Client], Awaitable[Gateway]]
"""A gateway between this client and a server of its own. Raises SidecarError where there can be none."""


class Full(SidecarError):
    """As many servers as may run do."""

    def __init__(self, most: int) -> None:
        super().__init__(f"{most} are under way already, as many as may be (--sessions)")


class Running:
    """A gateway at work for one client."""

    def __init__(self, client: SessionClient | Lane, gateway: Gateway) -> None:
        self.client = client
        self.used = asyncio.get_running_loop().time()
        self._gateway = gateway
        self._stop = asyncio.Event()
        self._task = asyncio.create_task(self._run())
        self._failed: SidecarError | None = None

    async def _run(self) -> None:
        try:
            await self._gateway.run(self._stop)
        except SidecarError as error:
            self._failed = error
        finally:
            await self.client.end()

    @property
    def over(self) -> bool:
        """Whether it takes no more requests."""
        return self._gateway.ending or self._stop.is_set() or self._task.done()

    @property
    def task(self) -> asyncio.Task[None]:
        """Done once it has ended, its server too."""
        return self._task

    def then(self, call: Callable[[], object]) -> None:
        """Call this once it has ended."""
        self._task.add_done_callback(lambda _: call())

    def leave(self) -> None:
        """Its client is gone: it ends by and by."""
        self._stop.set()

    async def end(self) -> None:
        """It has ended. Raises SidecarError: by a defect."""
        self.leave()
        await asyncio.wait({self._task})
        if self._failed is not None:
            raise self._failed


class Session(Running):
    """``id``: what its client names it by. ``version``: what was agreed on; "" until it was."""

    client: SessionClient

    def __init__(self, client: SessionClient, gateway: Gateway) -> None:
        super().__init__(client, gateway)
        self.id = secrets.token_urlsafe(24)
        self.version = ""

    def touch(self) -> None:
        """It was used just now."""
        self.used = asyncio.get_running_loop().time()

    def agreed(self, message: bytes) -> None:
        """The server's answer to `initialize`."""
        frame = read(message, strict=False)
        result = frame.members["result"].value if "result" in frame.members else None
        version = result.get("protocolVersion") if isinstance(result, dict) else None
        self.version = version if isinstance(version, str) else ""


class Sessions:
    """All of them. ``most``: sessions, and as many requests at once without one. ``idle``: seconds until what is not
    used ends. ``say``: for the operator."""

    def __init__(self, open_: Open, most: int, say: Callable[[str], object], idle: float = IDLE) -> None:
        self._open, self._most, self._say, self._idle = open_, most, say, idle
        self._sessions: dict[str, Session] = {}
        self._beginning = 0
        self._lanes: set[Running] = set()
        self._free: list[Running] = []
        self._room = asyncio.Semaphore(most)

    async def begin(self) -> Session:
        """A new session. Full; SidecarError: there is no server for it."""
        while len(self._sessions) + self._beginning >= self._most:
            ending = {each.task for each in self._sessions.values() if each.over}
            if not ending:
                raise Full(self._most)
            await asyncio.wait(ending, return_when=asyncio.FIRST_COMPLETED)
        client = SessionClient(self._say)
        self._beginning += 1
        try:
            session = Session(client, await self._open(client))
        finally:
            self._beginning -= 1
        self._sessions[session.id] = session
        session.then(lambda: self._sessions.pop(session.id))
        return session

    def find(self, id_: str) -> Session | None:
        """The session of this id."""
        session = self._sessions.get(id_)
        if session is not None:
            session.touch()
        return session

    @contextlib.asynccontextmanager
    async def lane(self) -> AsyncIterator[Lane]:
        """A gateway without a session, for one request; one whose request was not answered is not used again.

        Full; SidecarError: there is no server for it.
        """
        try:
            await asyncio.wait_for(self._room.acquire(), _LANE_WAIT)
        except TimeoutError:
            raise Full(self._most) from None
        try:
            running = await self._lane()
        except BaseException:
            self._room.release()
            raise
        assert isinstance(running.client, Lane)
        answered = False
        try:
            yield running.client
            answered = True
        finally:
            running.used = asyncio.get_running_loop().time()
            if answered and not running.over:
                self._free.append(running)
                self._room.release()
            else:
                running.then(self._room.release)
                asyncio.get_running_loop().call_later(LATE, running.leave)
                await running.client.cancel()

    async def _lane(self) -> Running:
        while self._free:
            if not (running := self._free.pop()).over:
                return running
        lane = Lane()
        running = Running(lane, await self._open(lane))
        self._lanes.add(running)
        running.then(lambda: self._lanes.discard(running))
        return running

    async def watch(self) -> None:
        """End what nobody has used for a while, for ever."""
        while True:
            await asyncio.sleep(min(self._idle / 4, 60.0))
            latest = asyncio.get_running_loop().time() - self._idle
            for session in [*self._sessions.values()]:
                if session.used < latest and not session.client.busy:
                    session.leave()
            for running in [each for each in self._free if each.used < latest]:
                self._free.remove(running)
                running.leave()

    async def end(self) -> None:
        """All of them end."""
        running = [*self._sessions.values(), *self._lanes]
        for failed in await asyncio.gather(*(each.end() for each in running), return_exceptions=True):
            if isinstance(failed, Exception):
                self._say(str(failed))
