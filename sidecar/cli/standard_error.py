"""What libraries write to standard error past Python, read line by line: gRPC's log tells there what it tells nowhere
else, a TLS handshake that failed.

    I1125 22:40:34.176686    9896 ssl_transport_security.cc:2563] Handshake failed with error SSL_ERROR_SSL:
    error:1000007d:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: certificate has expired

(one line). That wording is nobody's promise: a line of another form that is about TLS counts too, and is handed on, so
that it is seen. gRPC reads how much it shall tell when it is imported, so this file must not import it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Final

Then = Callable[[bytes], object]

_VERBOSITY: Final = "GRPC_VERBOSITY"
_TELLING: Final = frozenset({"info", "debug"})
_FAILED: Final = re.compile(rb"ssl_transport_security\.cc:\d+\] Handshake failed with error (.*)")
_ABOUT_TLS: Final = re.compile(rb"\.(?:cc?|cpp|h):\d+\W.*(?:(?i:handshak)|SSL_ERROR|SSL routines)")
_MERELY_TOLD: Final = re.compile(rb"I\d{4} \d\d:\d\d:\d\d\.|W\d{4} .* log\.cc:\d+\] Log level INFO ")
_LONGEST: Final = 4096  # bytes of a line; what is longer is handed on in pieces


class Overheard:
    """What `overheard` gives: whoever is to be told of failed handshakes."""

    def __init__(self) -> None:
        self._then: Then = lambda _: None

    def tell(self, then: Then) -> None:
        """From now on ``then`` is called with what gRPC said of each, on a thread of its own; it must not block."""
        self._then = then

    def line(self, line: bytes) -> bool:
        """One line: whether it was for us, so that no one else need see it."""
        failed = _FAILED.search(line)
        if failed is not None:
            self._then(failed[1])
            return True
        if _ABOUT_TLS.search(line) is not None:
            self._then(line)
            return False
        return _MERELY_TOLD.match(line) is not None


@contextlib.contextmanager
def overheard() -> Iterator[Overheard]:
    """Read what libraries write to file descriptor 2, and hand it on, until the end; enter it before gRPC is used.

    Python's own `sys.stderr` goes where it went, past all this. Nobody who writes ever waits: what does not fit into
    the pipe is lost.
    """
    asked = os.environ.get(_VERBOSITY)
    if (asked or "").lower() not in _TELLING:
        os.environ[_VERBOSITY] = "info"
    heard, kept = Overheard(), os.dup(2)
    reading, writing = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(writing, False)
    with contextlib.suppress(OSError):  # more than this user may have: the pipe stays as it is
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 1 << 20)
    python, sys.stderr = sys.stderr, os.fdopen(os.dup(kept), "w", 1, errors="backslashreplace")
    reader = threading.Thread(target=_relay, args=(reading, kept, heard), name="standard error", daemon=True)
    os.dup2(writing, 2)
    os.close(writing)
    reader.start()
    try:
        yield heard
    finally:
        os.dup2(kept, 2)  # the pipe's last writing end: the reader sees its end
        reader.join(5.0)
        sys.stderr.close()
        sys.stderr = python
        os.close(kept)
        os.environ.pop(_VERBOSITY)
        if asked is not None:
            os.environ[_VERBOSITY] = asked


def _relay(reading: int, out: int, heard: Overheard) -> None:
    with os.fdopen(reading, "rb") as pipe:
        while line := pipe.readline(_LONGEST):
            if not heard.line(line):
                with contextlib.suppress(OSError):
                    os.write(out, line)
