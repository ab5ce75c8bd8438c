"""Builds the starter policy's Wasm bundle, byte for byte the same from the same sources and the same OPA.

    python rego/build.py [--opa PATH] [OUT]        # OUT: sidecar/policy/starter.tar.gz

The revision is a digest of the sources, so a bundle tells which policy it is. The sources themselves, for whoever
builds another from them, are packed beside it: OUT with `_source` in its name.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from sidecar.policy import find_opa
from sidecar.policy.bundle import pack

SOURCE = Path(__file__).parent
SHIPPED = SOURCE.parent / "sidecar" / "policy" / "starter.tar.gz"
ENTRYPOINT = "agents/decision"


def sources() -> list[Path]:
    """The policy's files, without its tests."""
    rules = [path for path in SOURCE.glob("*.rego") if not path.name.endswith("_test.rego")]
    return sorted([*rules, SOURCE / "data.json"])


def revision() -> str:
    """`starter-` and 16 hex digits of a SHA-256 over names and contents."""
    digest = hashlib.sha256()
    for path in sources():
        content = path.read_bytes()
        digest.update(f"{path.name}\0{len(content)}\0".encode() + content)
    return f"starter-{digest.hexdigest()[:16]}"


def packed_sources() -> bytes:
    """The policy's files, its tests and expectations too, packed."""
    files = (*SOURCE.glob("*.rego"), SOURCE / "data.json", SOURCE / "expectations.yaml")
    return pack({path.name: path.read_bytes() for path in files})


def build(opa: str) -> bytes:
    """The bundle's bytes. The manifest's metadata names the OPA that compiled it."""
    with tempfile.TemporaryDirectory() as scratch:
        built = Path(scratch) / "bundle.tar.gz"
        command = [opa, "build", "--target", "wasm", "--entrypoint", ENTRYPOINT, "--revision", revision()]
        names = [path.name for path in sources()]  # relative: OPA compiles the paths in
        subprocess.run([*command, "--output", str(built), *names], cwd=SOURCE, check=True, timeout=300)
        with tarfile.open(built) as archive:
            members = {m.name.lstrip("/"): _content(archive, m) for m in archive if m.isfile()}
    manifest = json.loads(members[".manifest"])
    manifest["metadata"] = {"opa": find_opa(opa).version}
    members[".manifest"] = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
    return pack(members)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = archive.extractfile(member)
    return stream.read() if stream else b""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Builds the starter policy's Wasm bundle.")
    parser.add_argument("--opa", default="opa", help="the OPA program (default: from PATH)")
    parser.add_argument("out", type=Path, nargs="?", default=SHIPPED, help=f"default: {SHIPPED.name} of sidecar/policy")
    asked = parser.parse_args(arguments)
    asked.out.write_bytes(build(asked.opa))
    asked.out.with_name(asked.out.name.replace(".", "_source.", 1)).write_bytes(packed_sources())
    print(f"{asked.out}: {revision()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
