"""The evidence room: what is drawn from ledgers for somebody who was not there.

Owns the bundle that anybody checks alone (`export`, proto/EVIDENCE.md) with its documents (proto/CERTIFICATE.md), the
exact re-run of recorded decisions (`Replay`) and the account of an agent's doings (`timeline`) with its forms. Rules:
it reads what it is handed and changes nothing; what is written is verified before documents speak of it; whatever could
not be done, is not proved or is not there is counted and named in its place, never smoothed over. Memory is flat at any
size. No import of the collector: who calls hands in streams and receipts.
"""

from .certificate import ExporterKey
from .compare import Difference
from .documents import DOCUMENTS, Document
from .export import FileSource, Order, export
from .made import Made
from .page import page
from .replay import Found, Range, Replay, Tally
from .sheet import sheet
from .source import Receipt, Records, Source
from .timeline import Row, Timeline, timeline, timelines
from .timeline_text import text

__all__ = [
    "DOCUMENTS",
    "Difference",
    "Document",
    "ExporterKey",
    "FileSource",
    "Found",
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
    "export",
    "page",
    "sheet",
    "text",
    "timeline",
    "timelines",
]
