"""The evidence room: what is drawn from a ledger for somebody who was not there.

Owns the exact re-run of recorded decisions (`Replay`). Rules: it reads what it is handed and changes nothing; it never
judges whether a record is true, which is for `verify`, and says so; whatever could not be done is counted and named,
never left out.
"""

from .compare import Difference
from .replay import Found, Range, Replay, Tally

__all__ = ["Difference", "Found", "Range", "Replay", "Tally"]
