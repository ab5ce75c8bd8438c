"""The judgement: a stream of records and what the verifier holds besides, in; a report, out.

Rules: pure. No I/O but the ``read`` it is given, no clock, no import of the ledger. Memory is flat at any size. What a
ledger contains is never an exception, it is a finding at its place; what could not be checked is said.
"""

from sidecar.verify.ahead import Piped, Worker
from sidecar.verify.bundle import verify_bundle
from sidecar.verify.bundle_report import BundleReport
from sidecar.verify.container import Source
from sidecar.verify.disclosure import Disclosure, parse_disclosure
from sidecar.verify.evidence import Evidence, SeedOpener
from sidecar.verify.judge import PROGRESS_EVERY, verify_stream
from sidecar.verify.openings import MAX_OPENINGS, ChainOpenings, Openings, parse_openings
from sidecar.verify.report import MAX_FINDINGS, Finding, Report, Verdict
from sidecar.verify.trust import Trust, parse_trust

__all__ = [
    "MAX_FINDINGS",
    "MAX_OPENINGS",
    "PROGRESS_EVERY",
    "BundleReport",
    "ChainOpenings",
    "Disclosure",
    "Evidence",
    "Finding",
    "Openings",
    "Piped",
    "Report",
    "SeedOpener",
    "Source",
    "Trust",
    "Verdict",
    "Worker",
    "parse_disclosure",
    "parse_openings",
    "parse_trust",
    "verify_bundle",
    "verify_stream",
]
