"""A registry in a local file: read when it changed, strictly, whole."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from sidecar.chain.registry import MAX_SIZE, Registry, parse
from sidecar.errors import Malformed, UsageError
from sidecar.files import Signature

_READING: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


class RegistryFile:
    """The file at ``path``, which may be replaced at any time: put a new one in its place with one rename."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._seen: Signature | None = None

    def look(self) -> Registry | None:
        """What is there now, or None where it is as it was at the last look. Blocks.

        Raises:
            UsageError: it cannot be read. Malformed: it is no registry.
        """
        try:
            with os.fdopen(os.open(self.path, _READING), "rb") as file:
                found = os.fstat(file.fileno())
                signature = Signature.of(found)
                if signature == self._seen:
                    return None
                if not stat.S_ISREG(signature.mode):
                    raise Malformed("registry: not a plain file")
                text = file.read(MAX_SIZE + 1)
        except OSError as error:
            self._seen = None
            raise UsageError(f"cannot read registry {self.path}: {error.strerror}") from None
        self._seen = signature
        return parse(text)
