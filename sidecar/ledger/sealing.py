"""Personal fields on their way into the ledger and out of it: the port that whoever keeps subjects' keys implements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from sidecar.chain.entry import WITH_FIELDS, EntryType
from sidecar.chain.limits import NO_SEQ
from sidecar.chain.personal import Part
from sidecar.ledger.draft import DecisionAt, Draft


class Sealing(Protocol):
    """Takes personal values out of payloads and puts them back. May be called from any thread, and may block."""

    def seal(
        self, kind: EntryType, payload: Mapping[str, Any], about: Mapping[str, Any] | None
    ) -> tuple[dict[str, Any], tuple[Part, ...]] | None:
        """The payload with marks for its commitments, and what was taken out; None: it has nothing personal.

        ``about``: the payload, as it is stored, of the DECISION that it refers to. What it is sealed with is durable.
        Raises SidecarError where it must not be recorded.
        """
        ...

    def open(self, seq: int, payload: dict[str, Any]) -> None:
        """Put values back in place; `personal` then has its subject alone. What was erased stays as it is.

        Raises:
            Malformed, ProofRejected: what was sealed is not what the entry commits to.
        """
        ...


def unopened(payload: Mapping[str, Any]) -> bool:
    """Whether a payload that the ledger gave has fields that nobody could put back: they were erased."""
    return "fields" in payload.get("personal", ())


def sealed(draft: Draft, sealing: Sealing | None, decision_at: DecisionAt) -> Draft:
    """The draft without its personal values."""
    if sealing is None or draft.type not in WITH_FIELDS:
        return draft
    about = None if draft.ref_seq == NO_SEQ else draft.decision(decision_at)
    taken = sealing.seal(draft.type, draft.payload, about)
    return draft if taken is None else replace(draft, payload=taken[0], parts=taken[1])
