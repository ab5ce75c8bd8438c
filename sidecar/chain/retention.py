"""Retention profiles (proto/LEDGER.md, "Retention profiles"): how long what a segment recorded must stay whole."""

from __future__ import annotations

from typing import Final

_DAY: Final = 86_400 * 1_000_000_000
PROFILES: Final = {"default": 0, "eu-ai-act": 184, "hipaa": 2_192, "sec-17a-4": 2_192}
"""Days by name."""
NEVER_ERASED: Final = frozenset({"sec-17a-4"})
"""Profiles under which no personal field is erased, whatever the authority signs."""


def least_ns(profile: str) -> int | None:
    """For how many ns after its seal a segment's payloads must stay; None: nobody here knows this profile."""
    days = PROFILES.get(profile)
    return None if days is None else days * _DAY
