"""The format's constants (proto/LEDGER.md, "Conventions")."""

from __future__ import annotations

FORMAT = "sidecar/v1"
MAX_PAYLOAD = 8 * 1024 * 1024
MAX_ATTACHMENT = 8 * 1024 * 1024
MAX_RECORD = MAX_PAYLOAD + 64 * 1024 + 256
MAX_DEPTH = 64
MAX_CUSTODIANS = 16
MAX_FIELDS = 4_096
SEGMENT_ENTRIES = 10_000
SEGMENT_NS = 60 * 1_000_000_000
CLOCK_STEP_NS = 1_000_000_000

NO_SEQ = 2**64 - 1
UNKNOWN_CLOCK_ERROR = 2**32 - 1
ZERO16 = bytes(16)
ZERO32 = bytes(32)
