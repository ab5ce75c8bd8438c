"""An MCP server that this gateway starts: JSON-RPC on its standard streams, one message a line."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Sequence
from typing import Final

from sidecar.enforce.mcp.frame import Frame
from sidecar.enforce.mcp.lines import Overlong, lines
from sidecar.errors import UsageError

_GRACE: Final = 3.0  # seconds to end by itself once its input ends, and once more after SIGTERM
_LINGER: Final = 0.5  # seconds for what it left in its pipe


class ServerProcess:
    """It and its children are one process group, which ends with it. ``most``: bytes of one message."""

    def __init__(self, process: asyncio.subprocess.Process, most: int) -> None:
        self._process, self._most = process, most
        self._sending = asyncio.Lock()
        self._watch = asyncio.create_task(self._when_ended())

    @staticmethod
    async def start(command: Sequence[str], most: int) -> ServerProcess:
        """UsageError where it cannot be started."""
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=pipe, stdout=pipe, limit=1 << 20, start_new_session=True
            )
        except OSError as error:
            raise UsageError(f"cannot start the server {command[0]}: {error.strerror}; is it on PATH?") from None
        return ServerProcess(process, most)

    async def messages(self) -> AsyncIterator[bytes | Overlong]:
        """As `Server.messages`."""
        assert self._process.stdout is not None
        async for line in lines(self._process.stdout, self._most):
            yield line

    async def send(self, frame: Frame) -> None:
        """As `Server.send`."""
        assert self._process.stdin is not None
        if self._process.returncode is not None:
            raise BrokenPipeError
        async with self._sending:
            self._process.stdin.write(frame.raw + b"\n")
            await self._process.stdin.drain()

    async def forget(self, frame: Frame) -> None:
        """As `Server.forget`: it was told, by `notifications/cancelled`."""

    async def end(self) -> str:
        """As `Server.end`."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, RuntimeError):
            self._process.stdin.close()
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._process.wait()), _GRACE)
                break
            self._signal(number)
        status = await self._process.wait()
        self._watch.cancel()
        self._signal(signal.SIGKILL)  # its children
        return f"it was ended by signal {-status}" if status < 0 else f"it ended with status {status}"

    async def _when_ended(self) -> None:
        """A child that outlives it would hold its pipe open, for which `wait` of asyncio waits too."""
        await _exit(self._process.pid)
        await asyncio.sleep(_LINGER)
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


async def _exit(pid: int) -> None:
    """When the process has ended, whoever holds its pipes."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    try:
        number = os.pidfd_open(pid)
    except OSError:  # it has been waited for already
        return
    loop.add_reader(number, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(number)
        os.close(number)
