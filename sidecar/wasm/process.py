"""The process beside the sidecar that evaluates a policy for many questions at once (`beside`).

    python -P -m sidecar.wasm.process DESCRIPTOR

DESCRIPTOR: a connected socket. The first frame that comes has the policy: its numbers as JSON, its machine code, its
data. An empty one says that it is loaded. Then each frame has inputs, and the answer to it as many result sets: None
for one that was not evaluated within 10 ms, whatever the cause, and for all after it. The process ends when the socket
does, however the sidecar ended; one that is stopped then is killed. It keeps nothing, opens nothing and says nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import resource
import signal
import socket
import sys
import time
from collections.abc import Sequence
from io import BufferedRWPair
from pathlib import Path
from typing import Any, Final

import wasmtime

from sidecar.wasm import frames
from sidecar.wasm.instance import Instance, Program
from sidecar.wasm.machine_code import new_engine
from sidecar.wasm.ticker import AT_ONCE_TICKS, LOAD_TICKS, Ticker

_PR_SET_PDEATHSIG: Final = 1  # prctl(2)


def policy(program: Program, entrypoint: int) -> bytes:
    """The first frame. ``entrypoint``: its number in the module."""
    numbers = {
        "entrypoint": entrypoint,
        "static_bytes": program.static_bytes,
        "memory_limit": program.memory_limit,
        "answer_limit": program.answer_limit,
    }
    return frames.pack([json.dumps(numbers).encode(), bytes(program.module.serialize()), program.data])


class _Guest:
    """An instance of the policy, and another one where it broke."""

    def __init__(self, program: Program, entrypoint: int) -> None:
        self._program, self._entrypoint = program, entrypoint
        self._ticker = Ticker(program.engine)
        self._instance: Instance | None = None

    def load(self) -> Instance:
        """Raises what an instance raises that cannot be made."""
        if self._instance is None:
            with self._ticker:
                self._instance = Instance(self._program, LOAD_TICKS)
        return self._instance

    def answer(self, inputs: Sequence[bytes | None]) -> list[bytes | None]:
        answers: list[bytes | None] = []
        for document in inputs:
            answered = None if document is None else self._one(document)
            if answered is None:
                break
            answers.append(answered)
        return answers + [None] * (len(inputs) - len(answers))

    def _one(self, document: bytes) -> bytes | None:
        try:
            instance = self.load()
            instance.deadline(AT_ONCE_TICKS)
            with self._ticker:
                return instance.evaluate(self._entrypoint, document)
        except Exception:  # whatever it is, the sidecar finds it again and says what
            if self._instance is not None:
                self._instance.close()
                self._instance = None
            return None


def serve(stream: BufferedRWPair) -> None:
    """Answer until the stream ends. Raises what `Instance` raises, NoFrame and OSError."""
    first = frames.read(stream)
    if first is None:
        return
    guest = _loaded(first)
    guest.load()
    _say(stream, frames.pack([]))
    while (inputs := frames.read(stream)) is not None:
        began = time.thread_time()
        answers = guest.answer(inputs)
        _say(stream, frames.pack(answers, time.thread_time() - began))


def _loaded(pieces: Sequence[bytes | None]) -> _Guest:
    numbers, code, data = (piece or b"" for piece in pieces)
    told: dict[str, Any] = json.loads(numbers)
    engine, entrypoint = new_engine(), told.pop("entrypoint")
    module = wasmtime.Module.deserialize(engine, code)
    return _Guest(Program(engine=engine, module=module, data=data, **told), entrypoint)


def _say(stream: BufferedRWPair, frame: bytes) -> None:
    stream.write(frame)
    stream.flush()


def main(arguments: list[str]) -> int:
    """Gives the exit code."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # it would hold inputs
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with contextlib.suppress(OSError):  # where memory runs out, it goes before the sidecar, which has a ledger to close
        Path("/proc/self/oom_score_adj").write_text("500")
    with contextlib.suppress(ConnectionError), socket.socket(fileno=int(arguments[0])) as peer:
        serve(peer.makefile("rwb"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
