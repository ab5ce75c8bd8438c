"""The evidence room: what is drawn from ledgers for somebody who was not there.

Owns the bundle that anybody checks alone (`export`, proto/EVIDENCE.md) with its documents (proto/CERTIFICATE.md), the
exact re-run of recorded decisions (`Replay`) and the account of an agent's doings (`timeline`) with its forms. Rules:
it reads what it is handed and changes nothing; what is written is verified before documents speak of it; whatever could
not be done, is not proved or is not there is counted and named in its place, never smoothed over. Memory is flat at any
size. No import of the collector: who calls hands in streams and receipts.
"""

from typing import TYPE_CHECKING

from .account import Account, Accountant, Ask
from .aside import answered, asked, found, grown, work
from .bundle_file import FileSource, Told
from .certificate import ExporterKey
from .documents import DOCUMENTS, Document
from .export import Order, export
from .growing import Grown
from .made import Made
from .page import page
from .range import Range
from .sheet import sheet
from .source import Receipt, Records, Source
from .timeline import Row, Timeline, timeline, timelines
from .timeline_text import text

if TYPE_CHECKING:
    from .compare import Difference
    from .replay import Found, Replay, Tally

__all__ = [
    "DOCUMENTS",
    "Account",
    "Accountant",
    "Ask",
    "Difference",
    "Document",
    "ExporterKey",
    "FileSource",
    "Found",
    "Grown",
    "Made",
    "Order",
    "Range",
    "Receipt",
    "Records",
    "Replay",
    "Row",
    "Source",
    "Tally",
    "Timeline",
    "Told",
    "answered",
    "asked",
    "export",
    "found",
    "grown",
    "page",
    "sheet",
    "text",
    "timeline",
    "timelines",
    "work",
]


def __getattr__(name: str) -> object:
    """What re-runs decisions is imported when used: it brings the policy engines, and most commands need none."""
    if name in ("Difference", "Found", "Replay", "Tally"):
        from . import replay

        return getattr(replay, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
