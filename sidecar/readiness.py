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
    each door that shows one.
    """

    config: Config
    switch: Switch
    in_force: InForce
    ledger: Ledger
    not_after: Callable[[], float] | None
    wall: Callable[[], float] = time.time
    within: float = LOOK_WITHIN
    doors: Mapping[str, Callable[[], float]] = field(default_factory=dict)

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

    def shut(self) -> str:
        """Which doors answer nobody, though decisions can be made, and why; "" where all do."""
        ended = [f"doors.{name}" for name, ends in self.doors.items() if ends() <= self.wall()]
        if not ended:
            return ""
        return (
            f"the certificate of {' and '.join(ended)} has ended, and nobody is answered there; renew tls_cert_file, "
            "or see to the SPIFFE agent"
        )

    def _no_identity(self) -> str:
        """Why nobody can prove who it is: to us, or we to them."""
        proved = not self.config.dev or self.config.registry
        if proved and self.in_force.registry is None:
            return "no registry is in force, so no caller can be proved; see the sidecar's log"
        if self.not_after is not None and self.not_after() <= self.wall():
            return "the sidecar's certificate has ended; renew tls.cert_file, or see to the SPIFFE agent"
        return ""
