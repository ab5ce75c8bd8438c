"""Being watched: what the decision path and its door tell whoever counts and logs.

Nothing told here can change an answer. An observer gets ids, fixed words and durations to tell of; that it also sees
the whole answer does not allow it to pass on what the caller or the policy wrote.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sidecar.decide.entries import Answer


@dataclass(frozen=True, slots=True)
class Stages:
    """How long a decision took, in seconds.

    ``evaluate``: all of its options by the engine; ``record``: until its entry was durable; ``total``: from the call
    of the path to then.
    """

    evaluate: float
    record: float
    total: float


class Observer(Protocol):
    """Told on the event loop's thread; must neither block nor raise."""

    def decided(self, answer: Answer, took: Stages) -> None:
        """A decision was made and is on disk."""
        ...

    def repeated(self, answer: Answer) -> None:
        """The decision made before was given again, for the same idempotency key."""
        ...

    def refused(self, code: str, field: str, why: str = "") -> None:
        """A request was refused, by its caller's fault; whether with an entry of its own or only counted in one.

        ``code`` is a gRPC status name, ``field`` a path in the `.proto` or "", ``why`` one of
        `identity.WHYS` where it was for who asked.
        """
        ...

    def outcome_refused(self, why: str) -> None:
        """An outcome was not taken; ``why`` is one of `OUTCOME_WHYS`. As a request it is refused besides."""
        ...

    def approval(self, what: str) -> None:
        """An approval was taken (approve, reject), used for an ALLOW (allowed), or refused (one of `CAUSES`)."""
        ...

    def unanswered(self, method: str, code: str, fault: str = "") -> None:
        """A call, or one question of a batch or stream, ended in an error: no permission was given.

        ``method`` is the RPC's name, ``code`` a gRPC status name, ``fault`` the class of an unforeseen exception.
        """
        ...


class Unobserved:
    """Nobody watches."""

    def decided(self, answer: Answer, took: Stages) -> None:
        """Nothing."""

    def repeated(self, answer: Answer) -> None:
        """Nothing."""

    def refused(self, code: str, field: str, why: str = "") -> None:
        """Nothing."""

    def outcome_refused(self, why: str) -> None:
        """Nothing."""

    def approval(self, what: str) -> None:
        """Nothing."""

    def unanswered(self, method: str, code: str, fault: str = "") -> None:
        """Nothing."""
