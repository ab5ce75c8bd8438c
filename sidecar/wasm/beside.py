"""Evaluation for many questions at once, in a process of its own.

Python lets one thread of a process run at a time, so a busy event loop and the policy are in each other's way; beside
it the policy has a processor to itself. Two changes of processes cost more than a quick evaluation: who asks alone does
better without.

Nothing depends on the process. It is started when it is first wanted. A question it has no answer for, since it is not
there yet, broke, hangs or could not evaluate it in 10 ms, is given back unanswered, and the caller evaluates it itself.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Final, cast

from . import frames, process
from .instance import Program

log = logging.getLogger("sidecar.policy")

LONGEST: Final = 64 << 10  # bytes of an input that is taken
_TOGETHER: Final = 64  # inputs in a question
_PATIENCE: Final = 0.5  # seconds for an answer: many times what so many quick evaluations take
_START_PATIENCE: Final = 30.0
_AGAIN: Final = 5.0  # seconds from one start to the next
_KEPT_ENVIRONMENT: Final = ("PYTHONPATH",)

OnTime = Callable[[float], None]
"""Told of the processor time that an evaluation took in the mean of some, seconds."""


class Beside:
    """A policy's process. Used on one event loop at a time, and closed on the last one."""

    def __init__(self, program: Program, entrypoint: int, on_time: OnTime, *, again: float = _AGAIN) -> None:
        """``entrypoint``: its number in the module. ``again``: seconds from one start to the next. None is made yet."""
        self._again = again
        self._program, self._entrypoint, self._on_time = program, entrypoint, on_time
        self._link: _Link | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._not_before = 0.0
        self._closed = False

    def ready(self) -> bool:
        """Whether it can be asked. If it cannot, one is started, for later; not too often."""
        if self._link is None or self._link.ended:
            self._start()
        return self._link is not None and self._link.ready

    async def ask(self, document: bytes) -> bytes | None:
        """The result set for an input, which is at most `LONGEST`; None: there is no answer to be had from here."""
        return await self._link.ask(document) if self.ready() and self._link is not None else None

    async def close(self) -> None:
        """End the process; who waits has no answer."""
        self._closed = True
        if self._link is not None:
            self._link.end()
            await asyncio.to_thread(self._link.process.wait)
        if self._connecting is not None:
            await self._connecting

    def _start(self) -> None:
        now = time.monotonic()
        if self._closed or now < self._not_before:
            return
        self._not_before = now + self._again
        try:
            started, ours = _spawn()
        except OSError as error:
            log.warning("there is no process to evaluate the policy in for many (%s): it is done here", error.strerror)
            return
        first = process.policy(self._program, self._entrypoint)
        self._link = _Link(started, first, self._program.answer_limit, self._on_time)
        self._connecting = asyncio.create_task(self._link.connect(ours))


def _spawn() -> tuple[subprocess.Popen[bytes], socket.socket]:
    """The process, and our end of what it listens to. Raises OSError.

    It gets nothing of our environment but what Python finds the program by, and a session of its own: a Ctrl-C at the
    sidecar's terminal is not for it.
    """
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            started = subprocess.Popen(
                [sys.executable, "-P", "-m", "sidecar.wasm.process", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ},
                start_new_session=True,
            )
    except BaseException:
        ours.close()
        raise
    return started, ours


_Asked = list[tuple[bytes, "asyncio.Future[bytes | None]"]]


class _Link(asyncio.Protocol):
    """One such process, and who waits for it. While it is at work what comes is kept, and goes to it all at once."""

    def __init__(self, started: subprocess.Popen[bytes], first: bytes, answer_limit: int, on_time: OnTime) -> None:
        self.process = started
        self.ready = self.ended = False
        self._on_time = on_time
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.WriteTransport | None = None
        self._out, self._in = first, bytearray()
        self._limit = 64 + _TOGETHER * (4 + answer_limit)
        self._kept: _Asked = []
        self._asked: _Asked = []
        self._due = False  # what is kept is to be handed over in this turn of the loop
        self._patience = self._loop.call_later(_START_PATIENCE, self._hangs)

    async def connect(self, ours: socket.socket) -> None:
        """Begin to talk with it."""
        try:
            await self._loop.create_unix_connection(lambda: self, sock=ours)
        except OSError:
            ours.close()
            self._lost("cannot be talked to")

    def ask(self, document: bytes) -> asyncio.Future[bytes | None]:
        waiter: asyncio.Future[bytes | None] = self._loop.create_future()
        self._kept.append((document, waiter))
        if not self._asked and not self._due:
            self._due = True
            self._loop.call_soon(self._hand_over)  # with what else this turn of the loop brings
        return waiter

    def end(self) -> None:
        """Kill it; who waits has no answer."""
        if not self.ended:
            self.ready, self.ended = False, True
            self._patience.cancel()
            self.process.kill()
            if self._transport is not None:
                self._transport.abort()
            waiting, self._kept, self._asked = [*self._asked, *self._kept], [], []
            _answer(waiting, [None] * len(waiting))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        if self.ended:
            self._transport.abort()
        else:
            self._transport.write(self._out)
        self._out = b""

    def data_received(self, data: bytes) -> None:
        self._in += data
        try:
            while (frame := frames.take(self._in, self._limit)) is not None:
                self._answered(*frame)
        except frames.NoFrame:
            self._lost("answered something else")

    def connection_lost(self, _: Exception | None) -> None:
        self._lost("ended")

    def _answered(self, seconds: float, answers: list[bytes | None]) -> None:
        if self.ended:
            return
        if len(answers) != len(self._asked):
            raise frames.NoFrame("not as many answers as questions")
        asked, self._asked = self._asked, []
        self._patience.cancel()
        self.ready = True
        self._hand_over()
        _answer(asked, answers)
        done = len(answers) - answers.count(None)
        if done:
            self._on_time(seconds / done)

    def _hand_over(self) -> None:
        self._due = False
        if self._asked:
            return
        wanted = [one for one in self._kept if not one[1].done()]
        self._asked, self._kept = wanted[:_TOGETHER], wanted[_TOGETHER:]
        if self._asked and self._transport is not None:
            self._transport.write(frames.pack([document for document, _ in self._asked]))
            self._patience = self._loop.call_later(_PATIENCE, self._hangs)

    def _hangs(self) -> None:
        self._lost("does not answer")

    def _lost(self, how: str) -> None:
        if not self.ended:
            log.warning(
                "the process that evaluates the policy for many %s: until there is another, it is done here", how
            )
            self.end()
            self._loop.run_in_executor(None, self.process.wait)


def _answer(asked: _Asked, answers: list[bytes | None]) -> None:
    for (_, waiter), answer in zip(asked, answers, strict=True):
        if not waiter.done():  # its task may have been cancelled meanwhile
            waiter.set_result(answer)
