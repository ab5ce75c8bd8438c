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
    def opened(_: int = 0) -> Iterator[Records]:
        yield records(io.BytesIO(data).read)

    return Source(opened, opened)


def exported(*scribes: Scribe, **changed: Any) -> dict[str, bytes]:
    """The files of a bundle, those below `data/` without that."""
    with zipfile.ZipFile(io.BytesIO(bundle(*scribes, **changed))) as read:
        return {name.removeprefix("data/"): read.read(name) for name in read.namelist()}


def bundle(*scribes: Scribe, **changed: Any) -> bytes:
    """A bundle of all that these chains recorded; ``changed``: members of the order."""
    known = {"start": START - DAY, "end": START + DAY, "exported": START + 2 * DAY, "exporter": "sidecar 0.1.0"}
    order = Order(**{**known, "source": ("ledger", "/ledger"), "name": "case 7", "key": ExporterKey(KEY), **changed})
    with tempfile.TemporaryFile("w+b") as out:
        export(order, [source(s) for s in scribes], out)  # type: ignore[arg-type]
        out.seek(0)
        return out.read()
