"""Whether the next question can be decided and recorded (proto/HEALTH.md). Belongs to `main.py`: see there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from sidecar.config import Config
from sidecar.decide import InForce
from sidecar.errors import SidecarError
from sidecar.ledger import Ledger
from sidecar.policy import Switch

LOOK_WITHIN: Final = 10.0  # seconds


@dataclass(frozen=True, slots=True)
class Readiness:
    """What is looked at, in at most ``within`` seconds.

    ``not_after``: when the certificate that is shown ends, seconds since 1970; None: none is. ``doors``: the same of
    each door that shows one. ``registry_broken``: whether the registry's file is none, and the one before in force.
    """

    config: Config
    switch: Switch
    in_force: InForce
    ledger: Ledger
    not_after: Callable[[], float] | None
    wall: Callable[[], float] = time.time
    within: float = LOOK_WITHIN
    doors: Mapping[str, Callable[[], float]] = field(default_factory=dict)
    registry_broken: Callable[[], bool] = lambda: False

    async def look(self) -> str:
        """Why no decision can be made now, or "". What a running OPA reports is on record before it decides."""
        try:
            async with asyncio.timeout(self.within):
                await self.switch.ready()
                await self.in_force.observe(self.switch.version)
            self.in_force.check_fresh()
            self.ledger.check_writable()
        except SidecarError as error:
            return str(error)
        except TimeoutError:
            return f"policy engine and ledger took longer than {self.within:g} s; see to the disk"
        return self._no_identity()

    def besides(self) -> str:
        """What is wrong though decisions can be made: doors that answer nobody, a registry that is not the file's, a
        policy that may be an old one; "" where nothing is.
        """
        wrong = []
        ended = [f"doors.{name}" for name, ends in self.doors.items() if ends() <= self.wall()]
        if ended:
            wrong.append(
                f"the certificate of {' and '.join(ended)} has ended, and nobody is answered there; renew "
                "tls_cert_file, or see to the SPIFFE agent"
            )
        if self.registry_broken():
            wrong.append(
                "the registry's file cannot be used, and the one before stays; run `sidecar agents list` on it"
            )
        if self.in_force.stale:
            wrong.append("the policy is stale: its source has not been asked with success for policy.max_staleness")
        return "; ".join(wrong)

    def _no_identity(self) -> str:
        """Why nobody can prove who it is: to us, or we to them."""
        proved = not self.config.dev or self.config.registry
        if proved and self.in_force.registry is None:
            return "no registry is in force, so no caller can be proved; see the sidecar's log"
        if self.not_after is not None and self.not_after() <= self.wall():
            return "the sidecar's certificate has ended; renew tls.cert_file, or see to the SPIFFE agent"
        return ""
