"""Decision ids: UUIDv7 (RFC 9562 section 5.7), so that they sort by time."""

from __future__ import annotations

import os
import threading
import time
from collections import deque

_DRAWN_AT_ONCE = 256  # each draw from the system gives up the interpreter lock: on a busy loop that costs a switch

_drawn: deque[bytes] = deque()
_drawing = threading.Lock()


def new_decision_id() -> str:
    """A fresh id: 48 bits of milliseconds, 74 random bits, lower case with hyphens."""
    milliseconds = time.time_ns() // 1_000_000
    bits = milliseconds << 80 | int.from_bytes(_random(), "big")
    bits = bits & ~(0xF << 76) | 0x7 << 76
    bits = bits & ~(0x3 << 62) | 0x2 << 62
    text = f"{bits:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _random() -> bytes:
    """10 random bytes, each used once."""
    with _drawing:
        if not _drawn:
            data = os.urandom(10 * _DRAWN_AT_ONCE)
            _drawn.extend(data[at : at + 10] for at in range(0, len(data), 10))
        return _drawn.popleft()
