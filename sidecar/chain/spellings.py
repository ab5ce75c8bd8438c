"""How members of payloads are spelled (proto/LEDGER.md, "Payload"): times, base64, bounded texts.

The verifier runs these for each such member of each entry. On what is no text they may raise TypeError, which stands
for a no.
"""

from __future__ import annotations

import binascii
import re
from calendar import monthrange
from collections.abc import Callable
from typing import Any

_TIME = re.compile(
    r"\A(?!0000)[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
    r"T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\.[0-9]{9}Z\Z"
)


def is_moment(value: str) -> bool:
    """Whether it is a `time`: of a day and second that there is, to the nanosecond."""
    if not _TIME.match(value):
        return False
    return value[8:10] < "29" or int(value[8:10]) <= monthrange(int(value[:4]), int(value[5:7]))[1]


def is_base64(value: str) -> bool:
    """Whether it is base64, padded and canonical."""
    if value == "":
        return True
    try:
        return binascii.b2a_base64(binascii.a2b_base64(value), newline=False) == value.encode()
    except ValueError:
        return False


def up_to(limit: int) -> Callable[[Any], bool]:
    """A check that a value is a text of at most ``limit`` characters."""
    return lambda value: isinstance(value, str) and len(value) <= limit
