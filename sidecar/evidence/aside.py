"""The account made by another process, while this one verifies the bundle: what is asked of it and what it answers.

Both are lines of JSON on its two pipes. The question: what is wanted (`Ask`) and which open files it was given: the
bundle, and two new ones for the long documents. Answers, until the last: ``{"read": bytes}``; the last:
``{"account": …}``, or ``{"refused": why}``.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from typing import IO, Any, BinaryIO, Final

from sidecar.errors import SidecarError, UsageError

from .abstract import Abstract
from .account import Account, Ask, account
from .bundle_file import FileSource, Told
from .packed import Packed

_REPORTED: Final = 1 << 24  # bytes between two lines: of the longest bundle the lines fit a pipe that nobody reads yet
_OFTEN: Final = 50_000  # objects: entries come and go, and hold no cycles
ENDED: Final = "a process that helped to export has ended (killed? out of memory?): give it more, or use --lean"
"""What is said where it has."""


def asked(ask: Ask, files: Sequence[int]) -> bytes:
    """The question. ``files``: descriptors of bundle, events and entries, as the other process has them."""
    return json.dumps({"ask": asdict(ask), "files": files}).encode() + b"\n"


def work(question: bytes, answers: IO[bytes]) -> None:
    """What the other process does."""
    given = json.loads(question)
    ask = Ask(**{**given["ask"], "chains": tuple(given["ask"]["chains"])})
    of_bundle, of_events, of_entries = given["files"]
    try:
        with (
            os.fdopen(of_bundle, "rb") as bundle,
            os.fdopen(of_events, "wb") as events,
            os.fdopen(of_entries, "wb") as entries,
        ):
            made = account(ask, FileSource(bundle, _reporting(answers)), events, entries)
        last: dict[str, Any] = {"account": _told(made)}
    except SidecarError as error:
        last = {"refused": str(error)}
    except OSError as error:
        last = {"refused": f"cannot read or write a temporary file: {error.strerror}"}
    answers.write(json.dumps(last).encode() + b"\n")
    answers.flush()


def main() -> None:
    """The other process: it works once, and ends with the one that asks, however that ends."""
    questions, answers = sys.stdin.buffer, sys.stdout.buffer
    line = questions.readline()
    threading.Thread(target=_end_with, args=(questions,), daemon=True).start()
    gc.freeze()
    gc.set_threshold(_OFTEN)
    work(line, answers)


def _end_with(questions: IO[bytes]) -> None:
    questions.read()  # nobody writes any more: it returns when the writing end is closed
    os._exit(1)


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
