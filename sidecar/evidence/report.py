"""The report: PDF/A-2a and PDF/UA-1, from the data that the certificate and the other documents come from.

Typst sets it; every value reaches it as JSON, so that nothing in it can be markup. Its fonts are embedded in the extra
`evidence`; what they do not have is written as its code point.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sidecar.chain.printable import plain
from sidecar.errors import UsageError

_TEMPLATE: Final = Path(__file__).with_name("report.typ")
_LONGEST: Final = 600  # characters of one value
_LINE: Final = 40  # characters without a place to break
_BREAK: Final = "\u200b"
_STANDARDS: Final = ("a-2a", "ua-1")  # for archives, and for readers who do not see

# What both fonts have: Latin, Greek and Cyrillic letters, and the punctuation that our own words use.
_SHOWN: Final = frozenset(
    chr(c)
    for low, high in ((0x20, 0x7E), (0xA1, 0xAC), (0xAE, 0x17F), (0x391, 0x3A1), (0x3A3, 0x3C9), (0x400, 0x45F))
    for c in range(low, high + 1)
) | frozenset("–—‘’“”•…→€≤≥−×✓\u200b")


def shown(value: object, *, longest: int = _LONGEST) -> str:
    """Text that the report's fonts have, of bounded length, with places to break long words."""
    text = plain(value)
    text = text if len(text) <= longest else f"{text[:longest]}… ({len(text):,} characters)"
    text = "".join(c if c in _SHOWN else f"<U+{ord(c):04X}>" for c in text)
    return " ".join(_breakable(word) for word in text.split(" "))


def _breakable(word: str) -> str:
    if len(word) <= _LINE:
        return word
    parts = re.findall(rf"[^/]{{1,{_LINE}}}/?|/", word)  # a path breaks after its slashes
    return _BREAK.join(parts)


def mono(value: str) -> dict[str, str]:
    """A digest or key: in one piece, in small fixed letters."""
    return {"mono": "".join(c if c in _SHOWN else "?" for c in plain(value))[:200]}


def report(told: Mapping[str, Any], exported: int) -> bytes:
    """The PDF. ``told``: what the template shows (`report_data.told`); ``exported``: ns since 1970.

    Raises:
        UsageError: the extra `evidence` is not installed.
    """
    try:
        import typst
    except ImportError:
        raise UsageError("the report needs Typst; install decision-sidecar[evidence]") from None
    at = datetime.fromtimestamp(exported // 1_000_000_000, UTC)
    parts = [at.year, at.month, at.day, at.hour, at.minute, at.second]
    data = json.dumps({**_safe(told), "exported_parts": parts}, ensure_ascii=True)
    made: bytes = typst.compile(
        _TEMPLATE.read_bytes(), format="pdf", sys_inputs={"data": data}, pdf_standards=list(_STANDARDS),
        ignore_system_fonts=True, timestamp=at,
    )  # fmt: skip
    return made


def _safe(value: Any) -> Any:
    """Every string made fit to be shown; what `mono` made is already."""
    if isinstance(value, str):
        return shown(value, longest=4_000)
    if isinstance(value, Mapping):
        return value if value.keys() == {"mono"} else {name: _safe(inner) for name, inner in value.items()}
    return [_safe(inner) for inner in value] if isinstance(value, Sequence) else value
