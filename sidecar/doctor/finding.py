"""What a check found: well, wrong, or allowed and yet to be careful with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sidecar.errors import SidecarError

State = Literal["ok", "careful", "wrong", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line each: ``found``, and ``mend`` what to do about it ("" where there is nothing to do)."""

    check: str
    state: State
    found: str
    mend: str = ""


def ok(check: str, found: str) -> Finding:
    """All is well."""
    return Finding(check, "ok", found)


def careful(check: str, found: str, mend: str) -> Finding:
    """It is as it was set, and weakens what the sidecar promises."""
    return Finding(check, "careful", found, mend)


def wrong(check: str, found: str, mend: str) -> Finding:
    """It is not as it must be."""
    return Finding(check, "wrong", found, mend)


def skipped(check: str, why: str) -> Finding:
    """There is nothing to look at."""
    return Finding(check, "skipped", why)


def unexamined(check: str, error: SidecarError | OSError) -> Finding:
    """A check that could not be made is no good sign."""
    text = str(error) if isinstance(error, SidecarError) else f"{error.filename}: {error.strerror}"
    cause, _, mend = text.partition("; ")
    return wrong(check, cause, mend or "mend that, and ask again")
