"""The evidence room: what is drawn from a ledger for somebody who was not there.

Owns the exact re-run of recorded decisions (`Replay`) and the account of an agent's doings (`timeline`) with its forms.
Rules: it reads what it is handed and changes nothing; it never judges whether a record is true, which is for `verify`,
and says so; whatever could not be done or is not there is counted and named in its place, never left out.
"""

from .compare import Difference
from .page import page
from .replay import Found, Range, Replay, Tally
from .sheet import sheet
from .timeline import Row, Timeline, timeline
from .timeline_text import text

__all__ = ["Difference", "Found", "Range", "Replay", "Row", "Tally", "Timeline", "page", "sheet", "text", "timeline"]
