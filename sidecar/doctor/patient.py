"""What is examined: a configuration, the ledger it names, and whom the agent's process runs as."""

from __future__ import annotations

import functools
import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sidecar.config import Config
from sidecar.ledger import Glance, glance_at, has_ledger
from sidecar.ship import anchored_in

_NOBODY: Final = 65534


@dataclass(frozen=True, slots=True)
class Agent:
    """The agent's user and groups. ``told``: by the operator; else it is a stranger in the socket's group."""

    uid: int
    gids: frozenset[int]
    told: bool

    def bits(self, at: os.stat_result) -> int:
        """What the mode allows: 4 read, 2 write, 1 enter. Access control lists are not looked at."""
        if self.uid == 0:
            return 7
        shift = 6 if at.st_uid == self.uid else 3 if at.st_gid in self.gids else 0
        return at.st_mode >> shift & 7

    def can(self, path: Path, bits: int) -> bool:
        """Whether the agent gets to the file and may do that; no for what is not there."""
        real = path.resolve()
        try:
            return all(self.bits(each.stat()) & 1 for each in real.parents) and self.bits(real.stat()) & bits == bits
        except OSError:
            return False

    def can_replace(self, path: Path) -> bool:
        """Whether the agent may write it, or put another in its place, or in that of a directory above it."""
        if self.can(path, 2):
            return True
        below = path.resolve()
        for parent in below.parents:
            try:
                at = parent.stat()
            except OSError:
                return False
            kept = at.st_mode & stat.S_ISVTX and self.uid not in (at.st_uid, below.stat().st_uid)
            if self.can(parent, 3) and not kept:
                return True
            below = parent
        return False


class Patient:
    """``uid``, ``gids``: the agent's, where the operator tells them; ``file``: the configuration's."""

    def __init__(
        self, config: Config, file: Path | None = None, uid: int | None = None, gids: frozenset[int] = frozenset()
    ) -> None:
        self.config, self.file, self.now = config, file, time.time()
        self.directory = Path(config.data_dir)
        self.agent = self._stranger() if uid is None else Agent(uid, gids, told=True)

    @property
    def socket(self) -> Path | None:
        """Where agents ask, if that is a unix socket."""
        listen = self.config.listen
        return Path(listen.removeprefix("unix:")) if listen.startswith("unix:") else None

    @property
    def founded(self) -> bool:
        """Whether there is a ledger."""
        return has_ledger(self.directory)

    @functools.cached_property
    def ledger(self) -> Glance:
        """A glance at it. Raises LedgerUnknown, Malformed."""
        return glance_at(self.directory, anchored_in(self.directory))

    def _stranger(self) -> Agent:
        at = self.socket
        try:
            shared = frozenset() if at is None else frozenset({(at if at.exists() else at.parent).stat().st_gid})
        except OSError:
            shared = frozenset()
        return Agent(_NOBODY, shared - {0}, told=False)
