"""What `verify` is given besides the ledger: receipts and what belongs to them, found beside it or named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sidecar.chain import note, tlog_proof
from sidecar.chain.consistency import Consistency
from sidecar.chain.head import Head
from sidecar.chain.timestamp import Timestamp
from sidecar.chain.tlog_proof import TlogProof
from sidecar.config import read_file
from sidecar.errors import Malformed, UsageError
from sidecar.verify import Trust

SUFFIXES = (".tlog-proof", ".tlog-consistency", ".timestamp")


@dataclass(slots=True)
class Held:
    """Files by what they are, as bytes."""

    heads: list[bytes] = field(default_factory=list)
    logged: list[bytes] = field(default_factory=list)
    consistency: list[bytes] = field(default_factory=list)
    timestamps: list[bytes] = field(default_factory=list)

    def take(self, data: bytes) -> None:
        """A file, as what it is. Raises Malformed where it is none of them: that says nothing against the ledger."""
        if data.startswith(tlog_proof.KIND.encode()):
            TlogProof.parse(data)
            self.logged.append(data)
        elif data.startswith(b"old "):
            Consistency.parse(data)
            self.consistency.append(data)
        elif data.startswith(b"{"):
            Timestamp.parse(data)
            self.timestamps.append(data)
        else:
            Head.parse(note.parse(data).text)
            self.heads.append(data)


def held(ledger: Path, named: Sequence[Path]) -> Held:
    """What lies beside a ledger directory (in ``receipts/``) or a segment file (its name and a dot), and what is named.

    Raises:
        UsageError: a file that cannot be read, or is none of these.
    """
    found = Held()
    for path in [*beside(ledger), *named]:
        try:
            found.take(read_file(path, "receipt"))
        except Malformed as error:
            raise UsageError(f"{path}: {error}") from None
    return found


def beside(ledger: Path) -> list[Path]:
    """The files of the log's that lie beside a ledger directory or a segment file, by name."""
    folder, start = (ledger / "receipts", "") if ledger.is_dir() else (ledger.parent, f"{ledger.name}.")
    try:
        return sorted(p for p in folder.iterdir() if p.name.startswith(start) and p.suffix in SUFFIXES)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UsageError(f"cannot read {folder}: {error.strerror}") from None


def timestamp_check(trust: Trust | None) -> Callable[[Timestamp], int] | None:
    """How timestamps are checked; None without roots, or where the extra ``anchor`` is not installed."""
    if trust is None or not trust.tsa_roots:
        return None
    try:
        from sidecar.anchor.authority import check, roots_of
    except ImportError:
        return None
    try:
        roots = roots_of(trust.tsa_roots)
    except Malformed as error:
        raise UsageError(f"trust file: {error}") from None
    return lambda stamp: check(stamp, roots)
