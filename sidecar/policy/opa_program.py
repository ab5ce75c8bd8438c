"""The `opa` program on this machine: found on PATH, new enough, and building what it is to serve.

Releases before 1.21.3 are never run: the signature of a bundle could be bypassed (GHSA-g2pf-6v5v-qcc8).
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sidecar.errors import PolicyLoadError, UsageError

OLDEST: Final = (1, 21, 3)
# The rule that was the entry point is then in the module only.
_COMPILED: Final = "is compiled to Wasm, which opa does not serve; give the Rego it was built from, or use engine wasm"
_BUILD_SECONDS: Final = 120
_VERSION_SECONDS: Final = 30
# `..*` is how Kubernetes keeps the versions of a mounted ConfigMap, whose files are links into them.
_BUILD: Final = ("build", "--bundle", "--follow-symlinks", "--ignore", "..*", "--ignore", "*_test.rego")


@dataclass(frozen=True, slots=True)
class OpaProgram:
    """An `opa` that may be run: its absolute ``path`` and its ``version``, as "1.22.2"."""

    path: str
    version: str


@dataclass(frozen=True, slots=True)
class BuiltPolicy:
    """A policy as `opa build` packed it (.tar.gz), and the SHA-256 in hex by which entries name it.

    ``digest`` is that of the bundle file the operator gave; of a directory, that of ``packed``, which is the same
    bytes whenever the same files are built by the same OPA.
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
            f"engine opa starts the program {name}, which is not on PATH: install it, or name a running OPA with --opa"
        )
    path = str(Path(found).absolute())
    version = _version(path)
    if tuple(map(int, version.split("."))) < OLDEST:
        raise UsageError(f"{path} is OPA {version}; install {'.'.join(map(str, OLDEST))} or later")
    return OpaProgram(path, version)


def build_policy(program: OpaProgram, policy: Path) -> BuiltPolicy:
    """Build a directory of Rego or a bundle file. Tests (`*_test.rego`) are left out.

    Raises `UsageError` when it cannot be read, `PolicyLoadError` when OPA does not build it.
    """
    with tempfile.TemporaryDirectory(prefix="sidecar-") as scratch:
        if policy.is_dir():
            packed = _build(program, policy, policy, ".", Path(scratch))
            return BuiltPolicy(packed, hashlib.sha256(packed).hexdigest())
        given = _read(policy)
        Path(scratch, "policy.tar.gz").write_bytes(given)
        packed = _build(program, policy, Path(scratch), "policy.tar.gz", Path(scratch))
        return BuiltPolicy(packed, hashlib.sha256(given).hexdigest())


def _version(path: str) -> str:
    try:
        said = subprocess.run([path, "version"], capture_output=True, text=True, timeout=_VERSION_SECONDS).stdout
    except (OSError, ValueError, subprocess.TimeoutExpired):
        said = ""
    match = re.search(r"^Version: (\d+\.\d+\.\d+)$", said, re.MULTILINE)
    if match is None:
        raise UsageError(f"{path} does not say its version as opa does (a released one); install OPA 1.21.3 or later")
    return match[1]


def _read(policy: Path) -> bytes:
    try:
        return policy.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read policy bundle {policy}: {error.strerror}") from None


def _build(program: OpaProgram, policy: Path, where: Path, what: str, scratch: Path) -> bytes:
    out = scratch / "built.tar.gz"
    command = [program.path, *_BUILD, "--output", str(out), what]
    try:
        done = subprocess.run(command, cwd=where, capture_output=True, text=True, timeout=_BUILD_SECONDS)
    except subprocess.TimeoutExpired:
        raise PolicyLoadError(f"policy {policy}: opa build did not finish in {_BUILD_SECONDS} s") from None
    if done.returncode != 0:
        said = done.stderr + done.stdout  # load errors are on stdout
        cause = _COMPILED if "wasm module" in said else f"does not build: {_first_line(said)}"
        raise PolicyLoadError(f"policy {policy} {cause}")
    with tarfile.open(out) as built:
        if any(name.endswith(".wasm") for name in built.getnames()):
            raise PolicyLoadError(f"policy {policy} {_COMPILED}")
    return out.read_bytes()


def _first_line(said: str) -> str:
    """OPA's reason in one line, with the mend where the reason alone would puzzle."""
    lines = [line.strip() for line in said.splitlines() if line.strip()] or ["opa build failed"]
    # "error: load error: 2 errors occurred during loading:" is followed by the errors themselves
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
