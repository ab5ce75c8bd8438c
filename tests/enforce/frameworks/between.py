"""A socket before the sidecar's, where answers can be held back, and lost."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path


class Between:
    """Passes on what comes either way. Its threads end with the connections."""

    def __init__(self, path: Path, target: Path) -> None:
        self.address = f"unix:{path}"
        self._target = target
        self._passing = threading.Event()
        self._passing.set()
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._start(self._accept)

    def __enter__(self) -> Between:
        return self

    def __exit__(self, *_: object) -> None:
        _end(self._listener)
        self.lose()
        for thread in self._threads:
            thread.join()
        for each in [self._listener, *self._open]:
            each.close()

    def hold(self) -> None:
        """From now on no answer passes."""
        self._passing.clear()

    def lose(self) -> None:
        """What was held back never arrives: connections are cut, and new ones pass again."""
        for each in list(self._open):
            _end(each)
        self._passing.set()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller = self._listener.accept()[0]
                called = socket.socket(socket.AF_UNIX)
                self._open += [caller, called]
                if called.connect_ex(str(self._target)):
                    _end(caller)
                    continue
                self._start(self._pass, caller, called, False)
                self._start(self._pass, called, caller, True)

    def _pass(self, source: socket.socket, to: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if answers:
                    self._passing.wait()
                to.sendall(data)
        _end(source)
        _end(to)

    def _start(self, run: object, *given: object) -> None:
        thread = threading.Thread(target=run, args=given)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()


def _end(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
