"""The documents of a bundle: what is made of it once its verdict is known (proto/EVIDENCE.md, "Files").

To add one, write a function that yields names below `data/` and contents, and put it on :data:`DOCUMENTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from typing import Final

from sidecar.evidence.how_to_verify import how_to_verify
from sidecar.evidence.made import Content, Made
from sidecar.evidence.telling import tell

Document = Callable[[Made], Iterator[tuple[str, Content]]]


def _how_to_verify(made: Made) -> Iterator[tuple[str, bytes]]:
    yield "HOW-TO-VERIFY.txt", how_to_verify(made.case).encode()


def _verifiers(_: Made) -> Iterator[tuple[str, bytes]]:
    """Both verifiers, as the package has them."""
    for name in ("verify.py", "verify.html"):
        file = resources.files("sidecar.evidence") / name
        if file.is_file():
            yield name, file.read_bytes()


DOCUMENTS: Final[Sequence[Document]] = (_how_to_verify, _verifiers, tell)
"""In the order in which they are written."""
