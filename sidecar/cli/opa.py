"""`sidecar opa`: run OPA for a sidecar that is another user."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import click

from sidecar.cli.serve import start_log
from sidecar.errors import UsageError
from sidecar.policy import Keeper, find_opa


@click.command()
@click.option("--room", required=True, type=click.Path(path_type=Path), help="The directory shared with the sidecar.")
def opa(room: Path) -> None:
    """Run an OPA for each policy of a sidecar, until SIGTERM or SIGINT, for a sidecar with opa_room set.

    OPA then runs as another user, in a container of its own. The two users share a group, which no agent has.

    \b
    Example:
      sidecar opa --room /run/opa
    """
    if not room.is_dir():
        raise UsageError(f"--room {room} is not a directory; name the one that the sidecar has as opa_room")
    start_log("info")
    asyncio.run(_kept(Keeper(find_opa(), room.absolute())))


async def _kept(keeper: Keeper) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await keeper.keep(stop)
