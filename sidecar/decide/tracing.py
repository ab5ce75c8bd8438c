"""Being traced: where time went, from the agent's span on, without anything a caller or a policy wrote.

Whoever traces can neither delay nor fail a decision, and nothing here raises.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Final, Protocol

from sidecar.decide.entries import Answer


class Span(Protocol):
    """A question under way."""

    def decided(self, answer: Answer, chain: str) -> None:
        """It was answered; ``chain``: the chain's id in hex."""
        ...

    def failed(self, code: str) -> None:
        """There was no answer; ``code`` is a gRPC status name."""
        ...


class Tracing(Protocol):
    """Spans follow the flow of control: a step belongs to the question that is under way in the same task."""

    def question(self, method: str, parents: Iterable[str]) -> AbstractContextManager[Span]:
        """A question by this RPC, under the first of the W3C `traceparent`s that is one; looked at where one traces."""
        ...

    def step(self, name: str) -> AbstractContextManager[object]:
        """A part of answering it: `authenticate`, `evaluate`, `commit`."""
        ...


class _Nothing:
    def decided(self, answer: Answer, chain: str) -> None:
        """Nothing."""

    def failed(self, code: str) -> None:
        """Nothing."""


class Untraced:
    """Nobody traces."""

    def __init__(self) -> None:
        self._same: Final = contextlib.nullcontext(_Nothing())

    def question(self, method: str, parents: Iterable[str]) -> AbstractContextManager[Span]:
        """Nothing."""
        return self._same

    def step(self, name: str) -> AbstractContextManager[object]:
        """Nothing."""
        return self._same
