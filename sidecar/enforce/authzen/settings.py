"""How the door is set up: who the PEP is, for which agent it asks, and under which URL it knows us."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from sidecar.errors import UsageError

_URL: Final = re.compile(r"\Ahttps://(?:\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::[0-9]{1,5})?\Z")


@dataclass(frozen=True, slots=True)
class AuthZenSettings:
    """``gateway``: the registered executor that the PEP is; ``proof``: ``socket`` or ``mtls``. ``agent``: the one agent
    on whose behalf it asks; empty: the subject is the agent. ``url``: this door's own, as PEPs write it; empty: none is
    told. ``max_bytes``: of a body, and of all evaluations of one together, defaults applied. ``context``: whether
    answers say more than the decision.

    Raises:
        UsageError: the URL is none that a PEP could compare.
    """

    gateway: str
    proof: str
    agent: str = ""
    url: str = ""
    max_bytes: int = 1 << 20
    context: bool = True

    def __post_init__(self) -> None:
        if self.url and not _URL.match(self.url):
            raise UsageError(
                "doors.authzen.url must be https://host or https://host:port, in lower case, as PEPs write it"
            )
