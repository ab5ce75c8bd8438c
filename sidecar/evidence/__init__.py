"""Evidence: a window of some chains in one file, that anybody checks alone (proto/EVIDENCE.md).

Rules: a bundle says what it does not prove; nothing in it is smoothed over. Memory is flat at any size. What is written
is verified before documents speak of it. No import of the collector: who calls hands in streams and receipts.
"""

from sidecar.evidence.documents import DOCUMENTS, Document, Made
from sidecar.evidence.export import FileSource, Order, export
from sidecar.evidence.source import Receipt, Records, Source

__all__ = ["DOCUMENTS", "Document", "FileSource", "Made", "Order", "Receipt", "Records", "Source", "export"]
