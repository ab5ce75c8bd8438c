"""Whether the next question can be decided and recorded (proto/HEALTH.md). Belongs to `main.py`: see there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
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

    ``not_after``: when the certificate that is shown ends, seconds since 1970; None: none is.
    """

    config: Config
    switch: Switch
    in_force: InForce
    ledger: Ledger
    not_after: Callable[[], float] | None
    wall: Callable[[], float] = time.time
    within: float = LOOK_WITHIN

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

    def _no_identity(self) -> str:
        """Why nobody can prove who it is: to us, or we to them."""
        proved = not self.config.dev or self.config.registry
        if proved and self.in_force.registry is None:
            return "no registry is in force, so no caller can be proved; see the sidecar's log"
        if self.not_after is not None and self.not_after() <= self.wall():
            return "the sidecar's certificate has ended; renew tls.cert_file, or see to the SPIFFE agent"
        return ""
