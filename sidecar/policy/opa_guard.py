"""Who may speak to the OPA that we start: the sidecar alone, and only to ask.

The rule goes into the bundle that OPA serves, as a package whose name nobody can guess, and OPA is told to authorize
every request by it (OPA's documentation, "Security", authentication and authorization). So the policy itself cannot
open OPA: a `system.authz` of its own has no effect. The rule holds the token's SHA-256, and the token is nowhere but in
this process's memory. It permits two requests: the question to the entry point, and the question for health. Nobody
may write or read policies, data or the configuration, not even with the token.
"""

from __future__ import annotations

import hashlib
import io
import json
import posixpath
import secrets
import tarfile
from dataclasses import dataclass, field
from typing import Any, Final

from .gate_input import is_signature
from .opa import _line

_RULE: Final = """package {package}

import rego.v1  # also for a bundle whose manifest says Rego v0

default allow := false

allow if {{
	crypto.sha256(input.identity) == "{digest}"
	permitted[input.method] == input.path
}}

permitted := {{"POST": {question}, "GET": ["health"]}}
"""


@dataclass(frozen=True, slots=True)
class Guarded:
    """A bundle with the rule in it and its revision, the rule's path (``/package/allow``), the token that opens it."""

    bundle: bytes
    revision: str
    rule: str
    token: str = field(repr=False)


def guard_bundle(packed: bytes, entrypoint: str) -> Guarded:
    """Put the rule into a bundle, with a token of 256 random bits.

    Its signature, which would not hold for what is added, is left out: it was judged before.
    """
    token, package = secrets.token_urlsafe(32), f"sidecar_{secrets.token_hex(16)}"
    rule = _RULE.format(
        package=package,
        question=json.dumps(["v1", "data", *entrypoint.split("/")]),
        digest=hashlib.sha256(token.encode()).hexdigest(),
    )
    files = {**_unpack(packed), f"{package}.rego": rule.encode()}
    manifest = json.loads(files.get(".manifest", b"{}"))
    files[".manifest"] = json.dumps(_with_root(manifest, package)).encode()
    return Guarded(_pack(files), _line(manifest.get("revision")), f"/{package}/allow", token)


def _with_root(manifest: dict[str, Any], package: str) -> dict[str, Any]:
    """The manifest, owning our package too; a root of "" already owns everything."""
    roots = manifest.get("roots", [""])
    return manifest if "" in roots else {**manifest, "roots": [*roots, package]}


def _unpack(packed: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as archive:
        found = {_plain(member.name): archive.extractfile(member) for member in archive if member.isfile()}
        return {
            name: content.read() for name, content in found.items() if content is not None and not is_signature(name)
        }


def _plain(name: str) -> str:
    """As OPA reads it: ``./.manifest``, which tar writes of a directory, is the manifest."""
    return posixpath.normpath("/" + name).lstrip("/")


def _pack(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()
