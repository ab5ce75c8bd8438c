"""Conditions of an ALLOW.

Every kind must be known before the first is met, and one that is not met stops the action. An ALLOW is acted on once.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import contextmanager

from sidecar.client.decision import Decision, Obligation
from sidecar.client.refusals import UnmetObligation, one_line
from sidecar.errors import UsageError


def check_known(decision: Decision, kinds: Container[str]) -> None:
    """UnmetObligation when the decision carries an obligation whose kind is not in ``kinds``."""
    for obligation in decision.obligations:
        if obligation.kind not in kinds:
            raise UnmetObligation(decision, obligation, "is not known to this guard; give it a handler for that kind")


def take(decision: Decision) -> None:
    """UsageError when the decision was acted on before, or its obligations were not met then."""
    if not decision.leave.take():
        raise UsageError(f"decision {one_line(decision.decision_id)}: was acted on, or blocked; ask anew")


@contextmanager
def unmet(decision: Decision, obligation: Obligation) -> Iterator[None]:
    """Turns a handler's failure into UnmetObligation."""
    try:
        yield
    except Exception as error:
        raise UnmetObligation(
            decision, obligation, f"was not met: its handler raised {type(error).__name__}"
        ) from error
