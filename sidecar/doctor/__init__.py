"""What is wrong with a sidecar's place, which one would have to find out bit by bit. Belongs to `main.py`: see there.

Rules: nothing is written, no lock of the writer's is taken, nothing is changed at a collector; it works beside a
running sidecar and before its first start. Each check is a function of a `Patient` that yields findings; what it cannot
look at is a finding too. A check to come (which no-bypass pattern holds) is one more line of `examination.CHECKS`.
"""

from sidecar.doctor.examination import examine
from sidecar.doctor.finding import Finding
from sidecar.doctor.patient import Agent, Patient

__all__ = ["Agent", "Finding", "Patient", "examine"]
