"""All checks, in the order in which one would look."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from sidecar.doctor.finding import Finding, unexamined
from sidecar.doctor.keys import check_certificates, check_custodians, check_identity
from sidecar.doctor.ledger import check_anchors, check_clock, check_collector, check_ledger
from sidecar.doctor.patient import Patient
from sidecar.doctor.places import check_disk, check_running, check_separation, check_sockets
from sidecar.doctor.policies import check_opa, check_policy, check_registry
from sidecar.doctor.settings import check_settings
from sidecar.errors import SidecarError

Check = Callable[[Patient], Iterator[Finding]]

# Which no-bypass pattern holds (credentials, egress, a pod of its own) is to be one more.
CHECKS: Final[tuple[tuple[str, Check], ...]] = (
    ("running", check_running),
    ("settings", check_settings),
    ("ledger", check_ledger),
    ("identity", check_identity),
    ("custodians", check_custodians),
    ("disk", check_disk),
    ("socket", check_sockets),
    ("separation", check_separation),
    ("registry", check_registry),
    ("opa", check_opa),
    ("policy", check_policy),
    ("clock", check_clock),
    ("collector", check_collector),
    ("anchors", check_anchors),
    ("certificates", check_certificates),
)


def examine(patient: Patient, checks: Sequence[tuple[str, Check]] = CHECKS) -> Iterator[Finding]:
    """Every finding; a check that fails to look is a finding, and the next goes on."""
    for name, check in checks:
        try:
            yield from check(patient)
        except (SidecarError, OSError) as error:
            yield unexamined(name, error)
