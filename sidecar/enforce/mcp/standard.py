"""The MCP client that started this gateway: JSON-RPC on standard input and output, one message a line."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import sys
from collections.abc import AsyncIterator
from typing import IO

from sidecar.enforce.mcp.frame import Id
from sidecar.enforce.mcp.lines import Overlong, lines
from sidecar.errors import UsageError


class StandardClient:
    """Whoever holds the other ends of our standard streams. ``most``: bytes of one message."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most: int) -> None:
        self._reader, self._writer, self._most = reader, writer, most
        self._sending = asyncio.Lock()

    @staticmethod
    async def open(most: int) -> StandardClient:
        """UsageError where the streams are no pipes, sockets or terminal."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=1 << 20)
        if not all(_passes(stream) for stream in (sys.stdin, sys.stdout)):  # asyncio would find that out too late
            raise _nobody()
        try:
            await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
            transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, sys.stdout.buffer)
        except (ValueError, OSError):
            raise _nobody() from None
        return StandardClient(reader, asyncio.StreamWriter(transport, protocol, None, loop), most)

    async def messages(self) -> AsyncIterator[bytes | Overlong]:
        """As `Client.messages`."""
        async for line in lines(self._reader, self._most):
            yield line

    async def respond(self, key: Id, message: bytes) -> None:
        """As `Client.respond`."""
        await self.send(message)

    async def send(self, message: bytes, about: Id | None = None) -> None:
        """As `Client.send`."""
        async with self._sending:
            with contextlib.suppress(OSError):
                self._writer.write(message + b"\n")
                await self._writer.drain()


def _passes(stream: IO[str] | None) -> bool:
    """Whether it is a pipe, a socket or a terminal: closed ones, files and /dev/null are none."""
    if stream is None:
        return False
    mode = os.fstat(stream.fileno()).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stream.isatty()


def _nobody() -> UsageError:
    return UsageError("standard input and output are for an MCP client; let it start this command, or give --listen")
