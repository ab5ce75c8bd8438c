"""The account made by another process, while this one writes and verifies the bundle: what it is told, what it answers.

Both are lines of JSON on its two pipes. The first that it is told: what is wanted (`Ask`) and which open files it was
given: the bundle, and two new ones for the long documents; then how far a stream is (`Grown`); at last
``{"sound": bool}``: if not, the account is made once more, and payloads are checked. Answers, until the last:
``{"read": bytes}``; the last:
``{"account": …}``, or ``{"refused": why}``.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from queue import SimpleQueue
from typing import IO, Any, BinaryIO, Final

from sidecar.errors import SidecarError, UsageError

from .abstract import Abstract
from .account import Account, Ask, account
from .bundle_file import FileSource, Told
from .growing import Grown, streams
from .packed import Packed

_REPORTED: Final = 1 << 24  # bytes between two lines: of the longest bundle the lines fit a pipe that nobody reads yet
_OFTEN: Final = 50_000  # objects: entries come and go, and hold no cycles
ENDED: Final = "a process that helped to export has ended (killed? out of memory?): give it more, or use --lean"
"""What is said where it has."""


def asked(ask: Ask, files: Sequence[int]) -> bytes:
    """The first line. ``files``: descriptors of bundle, events and entries, as the other process has them."""
    return json.dumps({"ask": asdict(ask), "files": files}).encode() + b"\n"


def grown(stream: Grown) -> bytes:
    """A line that follows."""
    return json.dumps(asdict(stream)).encode() + b"\n"


def found(*, sound: bool) -> bytes:
    """The last line."""
    return json.dumps({"sound": sound}).encode() + b"\n"


def work(lines: Iterator[bytes], answers: IO[bytes]) -> None:
    """What the other process does."""
    given = json.loads(next(lines))
    ask = Ask(**{**given["ask"], "chains": tuple(given["ask"]["chains"])})
    of_bundle, of_events, of_entries = given["files"]
    try:
        with (
            os.fdopen(of_bundle, "rb") as bundle,
            os.fdopen(of_events, "wb") as events,
            os.fdopen(of_entries, "wb") as entries,
        ):
            source, whole = FileSource(bundle, _reporting(answers)), list[Grown]()
            reads = streams(source, _grown(lines, whole), len(ask.chains))
            made = account(ask, reads, events, entries, known=True)
            if not json.loads(next(lines))["sound"]:
                for file in (events, entries):
                    file.seek(0)
                    file.truncate()
                reads = streams(source, iter(whole), len(ask.chains))
                made = account(ask, reads, events, entries, known=False)
        last: dict[str, Any] = {"account": _told(made)}
    except SidecarError as error:
        last = {"refused": str(error)}
    except OSError as error:
        last = {"refused": f"cannot read or write a temporary file: {error.strerror}"}
    answers.write(json.dumps(last).encode() + b"\n")
    answers.flush()


def _grown(lines: Iterator[bytes], whole: list[Grown]) -> Iterator[Grown]:
    """What the lines say; streams that are whole are added to the list."""
    for line in lines:
        stream = Grown(**json.loads(line))
        whole += [stream] if stream.whole else []
        yield stream


def main() -> None:
    """The other process: it works once, and ends with the one that asks, however that ends."""
    lines: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, lines), daemon=True).start()
    gc.freeze()
    gc.set_threshold(_OFTEN)
    work(iter(lines.get, None), sys.stdout.buffer)


def _listen(questions: IO[bytes], lines: SimpleQueue[bytes]) -> None:
    for line in questions:
        lines.put(line)
    os._exit(1)  # the writing end is closed


def _reporting(answers: IO[bytes]) -> Told:
    pending = 0

    def told(size: int) -> None:
        nonlocal pending
        pending += size
        if pending >= _REPORTED:
            answers.write(b'{"read": %d}\n' % pending)
            answers.flush()
            pending = 0

    return told


def answered(answers: IO[bytes], events: BinaryIO, entries: BinaryIO, told: Told) -> Account:
    """The account, once it is made. ``events``, ``entries``: this process' own openings of the two files.

    Raises:
        UsageError: the other process refused, or has ended.
    """
    while line := answers.readline():
        answer = json.loads(line)
        if "account" in answer:
            return _account(answer["account"], events, entries)
        if "refused" in answer:
            raise UsageError(answer["refused"])
        told(answer["read"])
    raise UsageError(ENDED)


def _told(made: Account) -> dict[str, Any]:
    return {
        "abstracts": [each.to_json() for each in made.abstracts],
        "events": _numbers(made.events),
        "entries": _numbers(made.entries),
    }


def _numbers(packed: Packed | None) -> list[Any] | None:
    return None if packed is None else [packed.crc, packed.packed, packed.size, packed.digest]


def _account(told: dict[str, Any], events: BinaryIO, entries: BinaryIO) -> Account:
    documents = (
        None if told[name] is None else Packed(file, *told[name])
        for name, file in (("events", events), ("entries", entries))
    )
    return Account(tuple(map(Abstract.from_json, told["abstracts"])), *documents)
