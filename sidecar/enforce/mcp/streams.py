"""What goes back to a client over HTTP: each answer of HTTP is a stream of messages, with a bound on what it holds."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final

from sidecar.enforce.mcp.frame import BadFrame, Frame, Id

_ROOM: Final = 1 << 20  # bytes held for one client before who writes waits; one message always has room
_MOST_WAITING: Final = 64  # messages of the server's own that no stream takes yet
_MOST_COMING: Final = 4  # messages of the client's that the gateway has not looked at


class Room:
    """What the streams of one client hold together."""

    def __init__(self) -> None:
        self.size = 0
        self.news = asyncio.Condition()


class Stream:
    """The messages of one answer of HTTP, in order; a request's response is the last."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._held: deque[bytes] = deque()
        self._over = False

    async def put(self, message: bytes, *, last: bool = False, held: bool = False) -> bool:
        """Add one, once there is room; False where nobody takes it any more. ``held``: it is held already, and
        waits for no room."""
        room = self._room
        async with room.news:
            await room.news.wait_for(lambda: self._over or held or not room.size or room.size + len(message) <= _ROOM)
            if self._over:
                return False
            self._held.append(message)
            room.size += len(message)
            self._over = last
            room.news.notify_all()
            return True

    async def take(self) -> bytes | None:
        """The next; None where there is none any more."""
        room = self._room
        async with room.news:
            await room.news.wait_for(lambda: bool(self._held) or self._over)
            if not self._held:
                return None
            message = self._held.popleft()
            room.size -= len(message)
            room.news.notify_all()
            return message

    @property
    def over(self) -> bool:
        """Whether nothing comes after what was taken last."""
        return self._over and not self._held

    async def end(self) -> None:
        """Nothing more comes, and nobody waits for room."""
        async with self._room.news:
            self._over = True
            self._room.news.notify_all()

    async def drop(self) -> None:
        """Nobody takes from it any more."""
        async with self._room.news:
            self._over = True
            self._room.size -= sum(map(len, self._held))
            self._held.clear()
            self._room.news.notify_all()


class SessionClient:
    """The client of one session: it posts, and takes the answers from the streams of its posts and from one of its own.

    What the server sends of itself goes where the client listens; else to its latest post; else it waits for either.
    ``say``: for the operator.
    """

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say = say
        self._coming: asyncio.Queue[tuple[Frame, Stream | None]] = asyncio.Queue(_MOST_COMING)
        self._new: dict[Id, Stream] = {}  # of requests that the gateway has not taken yet
        self._posts: dict[Id, Stream] = {}
        self._own: Stream | None = None
        self._room = Room()
        self._ended = False
        self._waiting: deque[bytes] = deque()

    async def messages(self) -> AsyncIterator[Frame]:
        """As `Client.messages`. What was answered before a request was taken is no answer to it, whatever its id."""
        while True:
            frame, stream = await self._coming.get()
            if frame.id is not None and self._new.get(frame.id) is stream is not None:
                self._posts[frame.id] = self._new.pop(frame.id)
            yield frame

    async def posted(self, frame: Frame) -> None:
        """A notification or response."""
        await self._coming.put((frame, None))

    async def asked(self, frame: Frame) -> Stream:
        """A request; the stream has what is told of it, and its response last. BadFrame: its id is in use."""
        assert frame.id is not None
        if frame.id in self._posts or frame.id in self._new:
            raise BadFrame("its id is that of a request under way", id_text=frame.id_text)
        stream = self._new[frame.id] = Stream(self._room)
        if self._ended:
            await stream.end()
        await self._flush(stream)
        await self._coming.put((frame, stream))
        return stream

    async def listens(self) -> Stream:
        """What the server sends of itself from now on; a stream that was for this before ends."""
        before, self._own = self._own, Stream(self._room)
        if before is not None:
            await before.end()
        await self._flush(self._own)
        if self._ended:
            await self._own.end()
        return self._own

    async def left(self, stream: Stream) -> None:
        """Nobody takes from this stream any more. A request goes on: to cancel it is another message."""
        if self._own is stream:
            self._own = None
        for streams in (self._new, self._posts):
            for key in [key for key, each in streams.items() if each is stream]:
                del streams[key]
        await stream.drop()

    async def send(self, message: bytes, about: Id | None = None) -> None:
        """As `Client.send`."""
        if about is not None:
            stream = self._posts.get(about)
            if stream is not None:
                await stream.put(message)
            return
        for stream in ([self._own] if self._own else []) + [*self._posts.values(), *self._new.values()][-1:]:
            if await stream.put(message):
                return
        while self._waiting and (
            len(self._waiting) >= _MOST_WAITING or sum(map(len, self._waiting)) + len(message) > _ROOM
        ):
            self._waiting.popleft()
            self._say("the client takes nothing of what the server sends of itself; the oldest is dropped")
        self._waiting.append(message)

    async def respond(self, key: Id, message: bytes) -> None:
        """As `Client.respond`."""
        stream = self._posts.pop(key, None)
        if stream is None or not await stream.put(message, last=True):
            self._say("the connection that a request came on is gone, and its answer with it")

    async def end(self) -> None:
        """The gateway has ended: no stream goes on."""
        self._ended = True
        for stream in [*self._posts.values(), *self._new.values(), *([self._own] if self._own else [])]:
            await stream.end()

    @property
    def busy(self) -> bool:
        """Whether somebody waits for an answer, or listens."""
        return bool(self._posts or self._new) or self._own is not None

    async def _flush(self, stream: Stream) -> None:
        while self._waiting:
            await stream.put(self._waiting.popleft(), held=True)
