"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Command = Callable[..., None]


def together(*options: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """One decorator of many; the help shows them in this order."""

    def stacked(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return stacked
