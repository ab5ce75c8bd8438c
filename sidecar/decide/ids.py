"""Decision ids: UUIDv7 (RFC 9562 section 5.7), so that they sort by time."""

from __future__ import annotations

import os
import time
import uuid


def new_decision_id() -> str:
    """A fresh id: 48 bits of milliseconds, 74 random bits, lower case with hyphens."""
    milliseconds = time.time_ns() // 1_000_000
    bits = milliseconds << 80 | int.from_bytes(os.urandom(10), "big")
    bits = bits & ~(0xF << 76) | 0x7 << 76
    bits = bits & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=bits))
