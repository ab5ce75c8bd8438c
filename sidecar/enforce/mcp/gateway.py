"""The gateway: every message of the two sides, and the one place that lets a message through.

    client ──► read ──► the table ──► decided, where it says so ──► the very bytes ──► server
    client ◄── the very bytes ◄── asked for? ◄── the table ◄── read ◄──────────────── server

A message that cannot be read, or that the table does not know, goes nowhere. Requests are decided beside each other;
what needs no decision keeps its order.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from sidecar.enforce.mcp import frame as frames
from sidecar.enforce.mcp import verdicts
from sidecar.enforce.mcp.asked import Limits, Requests, Under
from sidecar.enforce.mcp.catalog import OFFERED, Catalog, offering, without
from sidecar.enforce.mcp.deciding import Deciding
from sidecar.enforce.mcp.frame import METHOD_NOT_FOUND, BadFrame, Frame, id_key, read
from sidecar.enforce.mcp.kinds import Kind
from sidecar.enforce.mcp.lines import Overlong, answers
from sidecar.enforce.mcp.methods import (
    CLIENT_NOTIFICATIONS,
    CLIENT_REQUESTS,
    SERVER_NOTIFICATIONS,
    SERVER_REQUESTS,
    Rule,
)
from sidecar.enforce.mcp.pages import ListingFailed, Listings
from sidecar.enforce.mcp.ports import Between, Client, Failed, Server
from sidecar.enforce.mcp.wanted import Wants
from sidecar.errors import SidecarError

_LISTING_SECONDS: Final = 30.0
_ENVELOPE: Final = "io.modelcontextprotocol/"  # what each request says of itself in `_meta`, since 2026-07-28
_REPORT_SECONDS: Final = 5.0


class Gateway:
    """Between one client and one server. ``say``: for the operator, one line at a time."""

    def __init__(
        self,
        name: str,
        client: Client,
        server: Server,
        deciding: Deciding,
        catalog: Catalog,
        limits: Limits,
        say: Callable[[str], object],
    ) -> None:
        self._name, self._client, self._server = name, client, server
        self._catalog, self._say = catalog, say
        self._work: set[asyncio.Task[None]] = set()
        between = Between(name, client, server, deciding, say, self._start)
        self._listings = Listings(self._ask, _LISTING_SECONDS)
        self._requests = Requests(between, catalog, self._listings, limits)
        self._wants = Wants(between)
        self._own: dict[str, asyncio.Future[Frame]] = {}
        self._prefix = f"sidecar-{os.urandom(16).hex()}-"
        self._envelope: dict[str, Any] = {}
        self.ending = False
        """Whether no more requests are taken."""

    async def run(self, stop: asyncio.Event) -> bool:
        """Until the client is gone or ``stop`` is set; False: until the server was."""
        client = asyncio.create_task(self._from_client())
        server = asyncio.create_task(self._from_server())
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({client, server, stopped}, return_when=asyncio.FIRST_COMPLETED)
            self.ending = True
            lost = server.done()
            if not lost:
                self._requests.settle()
            for reading in (client, stopped):
                reading.cancel()
            how = await self._server.end()
            await asyncio.wait({server}, timeout=_REPORT_SECONDS)
            what = f"the server {self._name} is gone: {how}" if lost else "the client is gone"
            await self._requests.fail_all(what, how if lost else "the client is gone")
            if lost:
                self._say(what)
            for future in self._own.values():
                if not future.done():
                    future.set_exception(BrokenPipeError())
            self._wants.end()
            await self._rest()
            for task in (client, server):
                if task.done() and not task.cancelled() and task.exception() is not None:
                    raise SidecarError(
                        f"a defect of this gateway: {type(task.exception()).__name__}"
                    ) from task.exception()
            return not lost
        finally:
            server.cancel()
            await asyncio.gather(client, server, stopped, return_exceptions=True)

    async def _rest(self) -> None:
        """Let what is being decided come to its end."""
        if self._work:
            await asyncio.wait(self._work, timeout=_REPORT_SECONDS)
        for task in self._work:
            task.cancel()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _from_client(self) -> None:
        async for message in self._client.messages():
            try:
                if isinstance(message, Overlong):
                    raise BadFrame(f"a message of {message.length} bytes is too long")
                await self._of_client(message if isinstance(message, Frame) else read(message, strict=True))
            except BadFrame as bad:
                said = frames.error(bad.id_text, bad.code, f"not passed on: {bad}")
                if isinstance(message, Frame) and message.id is not None:
                    await self._client.respond(message.id, said)
                else:
                    await self._client.send(said)

    async def _of_client(self, frame: Frame) -> None:
        if frame.kind == "request":
            rule = _rule(CLIENT_REQUESTS, frame)
            meta = frame.params.get("_meta", {})
            self._envelope = {name: value for name, value in meta.items() if name.startswith(_ENVELOPE)}
            await self._requests.take(frame, rule)
        elif frame.kind == "response":
            if not await self._wants.answer(frame):
                self._say("the client answers what nobody asked; dropped")
        else:
            _rule(CLIENT_NOTIFICATIONS, frame)
            key = id_key(frame.params.get("requestId"))
            if frame.method == "notifications/cancelled":
                await self._cancelled(frame, key)
            else:
                await self._onward(frame)

    async def _cancelled(self, frame: Frame, key: frames.Id | None) -> None:
        asked = self._requests.passed(key)
        if self._requests.cancel(key) and asked is not None:
            await self._onward(frame)
            await self._server.forget(asked)

    async def _onward(self, frame: Frame) -> None:
        with contextlib.suppress(OSError):  # the server is gone: its requests are told so
            await self._server.send(frame)

    async def _from_server(self) -> None:
        async for message in self._server.messages():
            if isinstance(message, Overlong):
                await self._too_long(message)
                continue
            if isinstance(message, Failed):
                await self._failed(message)
                continue
            try:
                frame = read(message, strict=False)
            except BadFrame as bad:
                await self._unreadable(message, bad)
                continue
            try:
                await self._of_server(frame)
            except BadFrame as bad:
                await self._refuse_server(frame, bad)

    async def _of_server(self, frame: Frame) -> None:
        if frame.kind == "request":
            await self._wants.take(frame, _rule(SERVER_REQUESTS, frame))
        elif frame.kind == "notification":
            _rule(SERVER_NOTIFICATIONS, frame)
            if frame.method.endswith("/list_changed"):
                self._catalog.stale(frame.method.split("/")[1])
            about = frame.params.get("progressToken") if frame.method == "notifications/progress" else None
            await self._client.send(frame.raw, None if about is None else self._requests.told_of(about))
        elif frame.id is not None and str(frame.id[1]).startswith(self._prefix):
            future = self._own.get(str(frame.id[1]))
            if future is not None and not future.done():
                future.set_result(frame)
        else:
            await self._answered(frame)

    async def _answered(self, frame: Frame) -> None:
        under = await self._requests.answer(frame)
        if under is None:
            return
        if under.rule.lists is not None and "result" in frame.members:
            self._start(self._listed(under, frame, under.rule.lists))
            return
        offers = under.frame.method in ("initialize", "server/discover")
        await self._requests.finish(under, frame, self._offered(frame) if offers else frame.raw)

    async def _listed(self, under: Under, frame: Frame, kind: Kind) -> None:
        """A page of a list, of which the agent is shown what it may see."""
        result = frame.members["result"]
        page = result.value.get(kind.listed) if isinstance(result.value, dict) else None
        try:
            if not isinstance(page, list) or frames.respelt(result.value, kind.listed, "cacheScope"):
                raise SidecarError(f"the server's answer is no list of {kind.word}s")
            keep = await self._catalog.page(kind, page, self._listings)
            message = frames.answered(frame.id_text, without(result.text, kind, keep))
        except (SidecarError, ListingFailed) as error:
            message = verdicts.refusal(under.frame, self._name, error)
        except Exception as error:  # whatever it is: nothing is shown that was not decided
            message = verdicts.refusal(under.frame, self._name, SidecarError(f"a defect ({type(error).__name__})"))
        await self._requests.finish(under, frame, message)

    def _offered(self, frame: Frame) -> bytes:
        """What the server says of itself, without what is refused anyway or not as it was pinned."""
        result = frame.members.get("result")
        if result is None or not isinstance(result.value, dict):
            return frame.raw
        self._listings.offered = result.value
        respelt = frames.respelt(result.value, *OFFERED)
        if respelt:
            self._say(f"{self._name} says of itself in another case of letters what is pinned; that is withheld")
        text = offering(result.text, self._name, [*self._catalog.withheld(result.value), *respelt])
        return frame.raw if text is None else frames.answered(frame.id_text, text)

    async def _ask(self, method: str, params: Mapping[str, Any]) -> Frame:
        own = f"{self._prefix}{len(self._own)}-{os.urandom(4).hex()}"
        envelope = {"_meta": self._envelope} if self._envelope else {}
        future: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._own[own] = future
        try:
            await self._server.send(read(frames.request(own, method, {**params, **envelope}), strict=False))
            return await future
        finally:
            del self._own[own]

    async def _failed(self, message: Failed) -> None:
        future = self._own.get(str(message.answers[1]))
        if future is not None and not future.done():
            future.set_exception(BrokenPipeError())
        elif not await self._requests.fail_id(message.answers, message.what, message.end):
            self._say(f"{self._name}: {message.what}")

    async def _too_long(self, message: Overlong) -> None:
        what = f"it has {message.length} bytes, more than this gateway hands on (--max-result)"
        told = message.answers is not None and await self._requests.fail_id(
            message.answers, what, "too large", bytes=message.length
        )
        if not told:
            self._say(f"{self._name} sent a message of {message.length} bytes that answers nothing; dropped")
            await self._requests.fail_all(
                "the server sent a message that is too large to tell what it answers", "too large"
            )

    async def _unreadable(self, message: bytes, bad: BadFrame) -> None:
        """What is no message goes nowhere; whoever waits for it is told, where it can be told who."""
        try:
            loose = json.loads(message)
            key = id_key(loose.get("id")) if isinstance(loose, dict) and "method" not in loose else None
        except (ValueError, RecursionError):
            key = answers(message)
        if key is None or not await self._requests.fail_id(
            key, f"the server's answer is malformed: {bad}", "malformed"
        ):
            self._say(f"{self._name} wrote {len(message)} bytes that are not passed on: {bad}")

    async def _refuse_server(self, frame: Frame, bad: BadFrame) -> None:
        self._say(f"{self._name}: {_plain(frame.method)} is not passed on: {bad}")
        if frame.kind == "request":
            with contextlib.suppress(OSError):
                said = frames.error(frame.id_text, bad.code, f"not passed on: {bad}")
                await self._server.send(read(said, strict=False))


def _rule(table: Any, frame: Frame) -> Rule:
    """BadFrame for a method that the table does not have, or parameters that the method does not."""
    rule = table.get(frame.method)
    if rule is None:
        raise BadFrame("the method is not one that this gateway knows", METHOD_NOT_FOUND, frame.id_text)
    assert isinstance(rule, Rule)
    try:
        rule.check(frame.params)
    except BadFrame as bad:
        raise BadFrame(str(bad), bad.code, frame.id_text) from None
    return rule


def _plain(text: str) -> str:
    return "".join(c for c in text if c.isprintable())[:64]
