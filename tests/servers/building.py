"""Servers of others that tests start, built with Go from pinned modules and kept for the next run.

What is built lies beside the virtual environment's own packages, under a name that changes with its sources.
"""

from __future__ import annotations

import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

from tests.kept import kept
from tests.needs import cannot_run, needs_program

HERE = Path(__file__).resolve().parent
KEPT = Path(sys.prefix) / "outside"

_PATIENCE_SECONDS = 3_600  # a guard against a client that waits forever, not a measure of speed

VERSITYGW = ("s3", "github.com/versity/versitygw/cmd/versitygw")
LITEWITNESS = ("tlog", "filippo.io/torchwood/cmd/litewitness")
CLIENT = ("tlog", "./client")
ETCD = ("kubernetes", "go.etcd.io/etcd/server/v3")
APISERVER = ("kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver")
# Built without them, it says that it is of version 0.0.0.
_VERSION = {"gitVersion": "v1.37.2", "gitMajor": "1", "gitMinor": "37"}
_LINKED = {
    APISERVER: " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in _VERSION.items()),
}


def built(which: tuple[str, str]) -> Path:
    """The program, built if it is not there yet."""
    module, package = which
    source = HERE / module
    stamp = sha256(b"".join(p.read_bytes() for p in sorted(source.rglob("*")) if p.is_file())).hexdigest()[:16]

    def build(made: Path) -> None:
        go, environment = needs_program("go"), {**os.environ, "GOWORK": "off"}
        command = [go, "build", "-buildvcs=false", "-trimpath", "-mod=readonly", f"-ldflags={_LINKED.get(which, '')}"]
        command += ["-o", str(made), package]
        run = subprocess.run(
            command, cwd=source, env=environment, capture_output=True, text=True, timeout=_PATIENCE_SECONDS, check=False
        )
        if run.returncode:
            cannot_run(f"go could not build {package}: {(run.stderr.strip().splitlines() or ['no reason given'])[-1]}")

    return kept(KEPT / f"{Path(package).name}-{stamp}", build)
