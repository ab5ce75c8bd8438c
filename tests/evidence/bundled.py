"""Bundles exported in this process, from ledgers that a Scribe wrote."""

from __future__ import annotations

import contextlib
import io
import tempfile
import zipfile
from collections.abc import Iterator
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.chain.stream import records
from sidecar.evidence import ExporterKey, Order, Records, Source, export
from tests.scribe import START, Scribe

DAY = 86_400 * 1_000_000_000
KEY = Ed25519PrivateKey.from_private_bytes(b"exporter".ljust(32, b"."))


def source(s: Scribe) -> Source:
    """The chain as it stands."""
    data = s.stream()

    @contextlib.contextmanager
    def opened() -> Iterator[Records]:
        yield records(io.BytesIO(data).read)

    return Source(opened)


def exported(*scribes: Scribe, notes: list[str] | None = None, **changed: Any) -> dict[str, bytes]:
    """The files of a bundle of all that these chains recorded, below `data/`; ``changed``: members of the order."""
    known = {"start": START - DAY, "end": START + DAY, "exported": START + 2 * DAY, "exporter": "sidecar 0.1.0"}
    order = Order(**{**known, "source": ("ledger", "/ledger"), "name": "case 7", "key": ExporterKey(KEY), **changed})
    with tempfile.TemporaryFile("w+b") as out:
        _, _, told = export(order, [source(s) for s in scribes], out)  # type: ignore[arg-type]
        if notes is not None:
            notes += told
        with zipfile.ZipFile(out) as read:
            return {name.removeprefix("data/"): read.read(name) for name in read.namelist()}
