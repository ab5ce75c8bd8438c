"""What the gate works on when it was read already: files in memory, or a bundle file. The rules are those of `tree`."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from .bundle import _parse_object, unpack
from .findings import Finding, Refused, refused
from .tree import REGISTRY, Sieve, TreeLimits, left_out, taken

SIGNATURES: Final = ".signatures.json"
COMPILED: Final = "policy.wasm"
_DELTA: Final = "patch.json"
_MANIFEST: Final = ".manifest"
_MANIFEST_PROTO: Final = ".manifest.pb"


@dataclass(frozen=True, slots=True)
class Input:
    """``files`` are the policy's own, by path; ``modules`` the paths of a bundle's Wasm modules; ``signed`` says that
    it carries a signature, good or not."""

    files: dict[str, bytes]
    modules: frozenset[str] = frozenset()
    signed: bool = False

    @property
    def compiled(self) -> bool:
        """Whether it is ready for the Wasm engine; its Rego is then what the compiler left over."""
        return COMPILED in self.modules

    @property
    def readable(self) -> dict[str, bytes]:
        """The files for `opa`: without the registry, which is no data of a policy, and with a manifest that names no
        module: it looks for those where a directory has none."""
        files = {path: content for path, content in self.files.items() if path != REGISTRY}
        if not self.modules or _MANIFEST not in files:
            return files
        manifest = _parse_object(self.files[_MANIFEST], _MANIFEST)
        manifest.pop("wasm", None)
        return {**files, _MANIFEST: json.dumps(manifest).encode()}

    @property
    def tested(self) -> bool:
        """Whether there is a file of tests."""
        return any(path.endswith("_test.rego") for path in self.files)

    @property
    def has_rego(self) -> bool:
        """Whether there is any Rego, tests included."""
        return any(path.endswith(".rego") for path in self.files)


def of_files(files: Mapping[str, bytes], limits: TreeLimits) -> Input:
    """Files by path, "/" between its parts; what does not belong to a policy is left, as in a directory.

    Raises `Refused` with everything that is wrong with names and sizes.
    """
    return Input(_admitted(files, limits, rego=True))


def of_bundle(packed: bytes, limits: TreeLimits) -> Input:
    """A bundle file of a whole policy. Raises `Refused`, and `PolicyLoadError` where it is not a bundle."""
    members = unpack(packed)
    names = {PurePosixPath(path).name: path for path in members}
    if _DELTA in names:
        raise refused("the bundle is a delta, which cannot be signed or judged; give a whole one", names[_DELTA])
    if any(path.endswith(_MANIFEST_PROTO) for path in members):
        raise refused("the bundle's manifest is not JSON; build it with: opa build", _MANIFEST_PROTO)
    modules = frozenset(path for path in members if path.endswith(".wasm"))
    if not modules and not any(path.endswith(".rego") for path in members):
        raise refused("there is no .rego file and no policy.wasm in the bundle; build it with: opa build")
    return Input(_admitted(members, limits, rego=not modules), modules, any(is_signature(path) for path in members))


def is_signature(path: str) -> bool:
    """Whether some OPA takes this file of a bundle for its signature: 1.22 by its name, releases before by its end."""
    return path.endswith("signatures.json")


def check_fits(files: Mapping[str, bytes]) -> None:
    """Raises `Refused` for paths that `bundle.pack` cannot write (POSIX ustar: 100 bytes after 155 of directories)."""
    found = [Finding(path, 0, "is a path too long for a bundle; shorten it") for path in files if not _fits(path)]
    if found:
        raise Refused(*found)


def _fits(path: str) -> bool:
    try:
        tarfile.TarInfo(path).tobuf(tarfile.USTAR_FORMAT)
    except ValueError:
        return False
    return True


def _admitted(files: Mapping[str, bytes], limits: TreeLimits, *, rego: bool) -> dict[str, bytes]:
    """What of ``files`` is the policy's, judged as a directory with the same files would be."""
    if len(files) > limits.entries:
        raise refused(f"there are more than {limits.entries} files; give the policy a directory of its own")
    sieve = Sieve(limits)
    looked: set[str] = set()
    for path in sorted(files):
        parts = path.split("/")
        if not taken(path) or any(left_out(part) and part != ".." for part in parts):
            continue
        if any(part in ("", ".", "..") for part in parts):
            sieve.fault(path, "is not a path within the policy")
            continue
        admitted = sieve.admits(path)  # before its directories, as it bounds how many there are
        for above in _directories(parts):
            if above in files:
                sieve.fault(path, f"lies in {above[:300]}, which is a file")
            elif above not in looked:
                admitted = sieve.admits(above) and admitted
            looked.add(above)
        if admitted:
            sieve.add(path, files[path])
    return sieve.files(rego=rego)


def _directories(parts: list[str]) -> list[str]:
    return ["/".join(parts[:end]) for end in range(1, len(parts))]
