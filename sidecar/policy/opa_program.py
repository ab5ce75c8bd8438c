"""The `opa` program on this machine: found on PATH, and new enough.

Releases before 1.21.3 are never run: the signature of a bundle could be bypassed (GHSA-g2pf-6v5v-qcc8).
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sidecar.errors import UsageError

OLDEST: Final = (1, 21, 3)
# The rule that was the entry point is then in the module only.
_COMPILED: Final = "is compiled to Wasm, which opa does not serve; give the Rego it was built from, or use engine wasm"
_VERSION_SECONDS: Final = 30


@dataclass(frozen=True, slots=True)
class OpaProgram:
    """An `opa` that may be run: its absolute ``path`` and its ``version``, as "1.22.2"."""

    path: str
    version: str


@dataclass(frozen=True, slots=True)
class BuiltPolicy:
    """A policy as `opa build` packed it (.tar.gz), and the SHA-256 in hex by which entries name it.

    A directory gives the same bytes whenever the same files are built by the same OPA.
    """

    packed: bytes
    digest: str

    @classmethod
    def of(cls, packed: bytes) -> BuiltPolicy:
        """A bundle as it is."""
        return cls(packed, hashlib.sha256(packed).hexdigest())


def find_opa(name: str = "opa") -> OpaProgram:
    """The program ``name`` from PATH, or at that path.

    Raises `UsageError` when there is none, it does not say its version, or it is older than 1.21.3.
    """
    found = shutil.which(name)
    if found is None:
        raise UsageError(
            f"policies are checked, built and compared with the program {name}, which is not on PATH: "
            f"install OPA {_said(OLDEST)} or later"
        )
    path = str(Path(found).absolute())
    version = _version(path)
    if tuple(map(int, version.split("."))) < OLDEST:
        raise UsageError(f"{path} is OPA {version}; install {_said(OLDEST)} or later")
    return OpaProgram(path, version)


def _said(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _version(path: str) -> str:
    try:
        said = subprocess.run([path, "version"], capture_output=True, text=True, timeout=_VERSION_SECONDS).stdout
    except (OSError, ValueError, subprocess.TimeoutExpired):
        said = ""
    match = re.search(r"^Version: (\d+\.\d+\.\d+)$", said, re.MULTILINE)
    if match is None:
        raise UsageError(f"{path} does not say its version as opa does (a released one); install OPA 1.21.3 or later")
    return match[1]
