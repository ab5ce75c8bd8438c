"""Going after an outside party until it vouched for the newest checkpoint; the log never waits for it."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from sidecar.errors import AnchorRefused, SidecarError

log = logging.getLogger("sidecar.anchor")

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Anchor(Protocol[T_co]):
    """An outside party: a witness or a timestamp authority."""

    @property
    def name(self) -> str:
        """What logs and metrics call it."""

    def vouch(self, signed: bytes) -> T_co:
        """What it says for a signed checkpoint, checked. Raises AnchorUnavailable, AnchorRefused, StorageError."""


@dataclass(frozen=True, slots=True)
class Pauses:
    """Seconds between two attempts: doubled from ``first`` to ``longest`` while they fail, each shortened at random by
    up to a half; ``between`` after one that did not."""

    first: float = 1.0
    longest: float = 300.0
    between: float = 0.0

    def after(self, failures: int) -> float:
        """How long to wait after so many failures in a row; 0: after a success."""
        if not failures:
            return self.between
        whole = min(self.longest, self.first * 2.0 ** min(failures - 1, 60))
        return whole * (1 - random.random() / 2)  # noqa: S311  spreads load, guards nothing


class Chaser(Generic[T]):
    """One outside party and the thread that asks it. ``got(signed, said)`` is called in that thread; what it
    raises of `SidecarError` counts as a failure like any other, and the party is asked again. ``on_refused`` is told
    there of each answer that proved nothing, or proved us wrong.

    Of several checkpoints offered while it is busy only the newest is asked about: it vouches for those before.
    """

    def __init__(
        self,
        anchor: Anchor[T],
        got: Callable[[bytes, T], None],
        *,
        pauses: Pauses = Pauses(),
        on_refused: Callable[[AnchorRefused], None] = lambda _: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = anchor.name
        self.error: str | None = None
        """Why the last attempt failed; None: it did not."""
        self.refused = 0
        """Answers that proved nothing, or proved us wrong: each is worth a look."""
        self._anchor, self._got, self._pauses, self._now = anchor, got, pauses, now
        self._on_refused = on_refused
        self._wake = threading.Condition()
        self._wanted: bytes | None = None
        self._since: float | None = None
        self._failures = 0
        self._ended = False
        self._thread = threading.Thread(target=self._run, name=f"anchor {self.name}", daemon=True)
        self._thread.start()

    def offer(self, signed: bytes) -> None:
        """This is the newest checkpoint; returns at once."""
        with self._wake:
            if self._since is None:
                self._since = self._now()
            self._wanted = signed
            self._wake.notify_all()

    def age(self) -> float:
        """Seconds since the oldest checkpoint was offered that nothing yet vouches for; 0 where there is none."""
        with self._wake:
            return 0.0 if self._since is None else max(0.0, self._now() - self._since)

    def close(self) -> None:
        """Ask no more; returns when an exchange under way is over, which its own time limit bounds."""
        with self._wake:
            self._ended = True
            self._wake.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while (signed := self._next()) is not None:
            began = self._now()
            try:
                self._got(signed, self._anchor.vouch(signed))
            except SidecarError as error:
                self._failed(error)
            else:
                self._succeeded(signed, began)
            with self._wake:
                self._wake.wait_for(lambda: self._ended, self._pauses.after(self._failures))

    def _next(self) -> bytes | None:
        with self._wake:
            self._wake.wait_for(lambda: self._ended or self._wanted is not None)
            return None if self._ended else self._wanted

    def _failed(self, error: Exception) -> None:
        if isinstance(error, AnchorRefused):
            log.error("what an anchor answered is not used: %s", error)
            self._on_refused(error)
        elif self.error is None:
            log.warning("an anchor is asked again: %s", error)
        with self._wake:
            self.error, self._failures = str(error), self._failures + 1
            self.refused += isinstance(error, AnchorRefused)

    def _succeeded(self, signed: bytes, began: float) -> None:
        with self._wake:
            self.error, self._failures = None, 0
            if self._wanted == signed:
                self._wanted = self._since = None
            else:
                # What was offered meanwhile waits since about then.
                self._since = began
