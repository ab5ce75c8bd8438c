"""Who vouches for the fleet log from outside: timestamp authorities (RFC 3161) and witnesses (C2SP tlog-witness).

Rules: nothing that an outside party answers is believed before it is checked against what was asked and against the
keys that were configured; nothing waits for one; how long a checkpoint has gone without is a number.
"""

from sidecar.anchor.chaser import Chaser, Pauses
from sidecar.anchor.door import Door
from sidecar.anchor.rounds import Rounds
from sidecar.anchor.witness import Ahead, Witness

__all__ = ["Ahead", "Chaser", "Door", "Pauses", "Rounds", "Witness"]
