"""The port to the index. All of it can be rebuilt from the objects, but for alarms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from sidecar.chain.rollcall import Standing


@dataclass(frozen=True, slots=True)
class Tip:
    """The newest checkpoint known to the index: its number, its tree's size, the signed note."""

    number: int
    size: int
    checkpoint: bytes


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something a person must look at. ``time`` in ns; ``evidence``: names of objects, parted by spaces."""

    time: int
    chain_id: bytes
    kind: str
    detail: str
    evidence: str


class Index(Protocol):
    """What an index promises. Each method is one transaction; methods may be called from any thread.

    All raise `StorageError`, after which the transaction may have happened or not.
    """

    def tip(self) -> Tip | None:
        """The newest checkpoint; None: none yet, or the index is new."""

    def advance(self, before: int | None, tip: Tip, leaves: Sequence[bytes], first: int) -> bool:
        """Go on from checkpoint number ``before`` to ``tip``, whose new leaf hashes stand at ``first`` and after.

        Nothing happens, and False, if the newest checkpoint is no longer ``before``.
        """

    def positions(self, leaves: Sequence[bytes]) -> dict[bytes, int]:
        """Where leaf hashes are in the log; those that are not in it are left out."""

    def standing(self, chain_id: bytes) -> tuple[Standing, int] | None:
        """Where a chain stands, and the version to name when that is changed."""

    def stand(self, standing: Standing, version: int) -> bool:
        """Replace a chain's standing if its version is still ``version`` (0: there is none yet); else False."""

    def standings(self) -> Iterator[Standing]:
        """All chains in rising order of id."""

    def raise_alarm(self, alarm: Alarm) -> None:
        """Keep an alarm."""

    def alarms(self) -> list[Alarm]:
        """All alarms, oldest first."""

    def clear(self) -> None:
        """Forget tip, positions and standings, to be filled anew; alarms stay."""
