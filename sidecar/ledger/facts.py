"""The child process of `glance`: a few facts of a ledger, since the file may be hostile; nothing judged.

    python -m sidecar.ledger.facts DIRECTORY SEGMENT SEQ

SEGMENT: the last one with a receipt, or -1; SEQ: an entry whose leaf is wanted, or -1. One JSON object on standard
output; exit codes as `dump`'s. Nothing is written, nothing locked but a reader's place in LMDB's own lock file.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any, Final

from sidecar.chain import note, strictjson
from sidecar.chain.entry import EntryType, Header, StoredEntry, leaf, tagged
from sidecar.chain.seal import Seal
from sidecar.errors import LedgerDamaged, LedgerOtherVersion, LedgerUnknown, Malformed, SidecarError
from sidecar.ledger.batch import NoteKind, note_key, seq_key, seq_of
from sidecar.ledger.causes import DAMAGED, NOT_A_LEDGER, OTHER_VERSION, UNREADABLE
from sidecar.ledger.look import OWN_KEYS, check_format, counted, pages_of
from sidecar.ledger.store import open_for_reading

_MEMORY: Final = 512 << 20


def look(directory: Path, segment: int, seq: int) -> dict[str, Any]:
    """In the child. Raises LedgerUnknown, LedgerDamaged, LedgerError, Malformed."""
    environment, _ = open_for_reading(directory)
    check_format(environment)
    with environment.begin(buffers=True) as txn:
        names = (b"entries", b"notes", b"attached")
        entries, notes, attached = (environment.open_db(name, txn=txn, create=False) for name in names)
        with txn.cursor(entries) as cursor, txn.cursor(attached) as last_attached:
            if not cursor.last():
                raise Malformed("there is no entry in it")
            last = Header.decode(tagged(bytes(cursor.value()))[0])
            anchored = _after(txn.get(note_key(segment, NoteKind.SEAL), db=notes)) if segment >= 0 else 0
            first = bytes(cursor.value()) if cursor.set_range(seq_key(anchored)) else None
            wanted = txn.get(seq_key(seq), db=entries) if seq >= 0 else None
            with_policy = seq_of(bytes(last_attached.key())) if last_attached.last() else None
            decisions = counted(cursor, EntryType.DECISION, anchored, last.seq + 1)
        policy = None if with_policy is None else txn.get(seq_key(with_policy), db=entries)
        return {
            "chain": last.chain_id.hex(),
            "genesis": _payload(txn.get(seq_key(0), db=entries)),
            "policy": None if policy is None else _payload(policy),
            "next_seq": last.seq + 1,
            "last_wall": last.wall_ns,
            "used": _used(environment, txn),
            "anchored": anchored,
            "decisions": decisions,
            "waits_since": None if first is None else Header.decode(tagged(first)[0]).wall_ns,
            "leaf": "" if wanted is None else leaf(*tagged(bytes(wanted))).hex(),
        }


def _after(seal: Any) -> int:
    if seal is None:
        return 0
    read = Seal.parse(note.parse(bytes(seal)).text)
    return read.first + read.count


def _payload(stored: Any) -> dict[str, Any]:
    if stored is None:
        raise Malformed("an entry is not there")
    entry = StoredEntry.parse(bytes(stored))
    return strictjson.parse_object(entry.payload(Header.decode(entry.header).payload_len))


def _used(environment: Any, txn: Any) -> int:
    with txn.cursor() as names:
        stats = [txn.stat(environment.open_db(bytes(name), txn=txn, create=False)) for name in _databases(names)]
    return pages_of(stats) * int(environment.stat()["psize"])


def _databases(names: Any) -> list[bytes]:
    """Keys of the main database that name others: those that are not records of its own."""
    return [bytes(key) for key in names.iternext(values=False) if bytes(key) not in OWN_KEYS]


def main(arguments: list[str]) -> int:
    """Gives the exit code."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
    try:
        json.dump(look(Path(arguments[0]), int(arguments[1]), int(arguments[2])), sys.stdout)
        sys.stdout.flush()
    except LedgerOtherVersion:
        return OTHER_VERSION
    except LedgerUnknown:
        return NOT_A_LEDGER
    except (LedgerDamaged, Malformed):
        return DAMAGED
    except (SidecarError, BrokenPipeError):
        return UNREADABLE
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
