"""Builds the examples with each language's own tools, from the sources here and `decision.proto`, outside of the tree.

Go's modules and generators are those of go.mod, checked by go.sum; npm's packages are the versions of package.json.
What npm brought is kept beside the virtual environment's own packages for the next run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

from tests.kept import kept
from tests.needs import cannot_run, needs_program

HERE = Path(__file__).resolve().parent
PROTO = HERE.parent.parent / "proto"
KEPT = Path(sys.prefix) / "outside"

_PATIENCE_SECONDS = 900  # a guard against a client that waits forever, not a measure of speed
_GENERATORS = ("google.golang.org/protobuf/cmd/protoc-gen-go", "google.golang.org/grpc/cmd/protoc-gen-go-grpc")
GO_STUBS = ("--go_out=.", "--go_opt=module=sidecar.example", "--go-grpc_out=.", "--go-grpc_opt=module=sidecar.example")


def go_example(into: Path) -> list[str]:
    """The command that runs the Go example, built in the directory ``into``; it takes an address."""
    go = needs_program("go")
    source = into / "go"
    shutil.copytree(HERE / "go", source)
    brought = _run([go, "mod", "download"], source)
    if brought.returncode:
        cannot_run(f"go could not bring the modules of tests/languages/go: {_last_line(brought)}")
    _do([go, "build", "-mod=readonly", "-o", f"{into / 'bin'}{os.sep}", *_GENERATORS], source)
    plugins = [f"--plugin={into / 'bin' / name}" for name in ("protoc-gen-go", "protoc-gen-go-grpc")]
    protoc = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(PROTO), *plugins, *GO_STUBS]
    _do([*protoc, "sidecar/v1/decision.proto"], source)
    _do([go, "vet", "-mod=readonly", "."], source)
    _do([go, "build", "-buildvcs=false", "-mod=readonly", "-o", str(into / "ask"), "."], source)
    return [str(into / "ask")]


def go_permit(into: Path) -> list[str]:
    """The command of the executor in Go; it needs the standard library alone."""
    program = into / "permit"
    _do([needs_program("go"), "build", "-buildvcs=false", "-o", str(program), "main.go"], HERE / "go" / "permit")
    return [str(program)]


def node_example(into: Path, script: str = "ask.js") -> list[str]:
    """The command that runs an example in Node; it takes an address."""
    node = needs_program("node")
    source = into / "node"
    shutil.copytree(HERE / "node", source)
    (source / "node_modules").symlink_to(node_modules(HERE / "node" / "package.json"), target_is_directory=True)
    # The program is told its proto between the address and what else it takes.
    told = f'at="$1"; shift; exec "{node}" {script} "$at" "{PROTO / "sidecar/v1/decision.proto"}" "$@"'
    return ["sh", "-c", f'cd "{source}" && {told}', "sh"]


def node_modules(manifest: Path) -> Path:
    """The packages that a `package.json` names, from npm, or as they were brought before."""

    def bring(made: Path) -> None:
        npm = needs_program("npm")
        made.mkdir()
        shutil.copy(manifest, made)
        flags = ["--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        brought = _run([npm, "install", *flags], made)
        if brought.returncode:
            cannot_run(f"npm could not bring the packages of {manifest.parent}: {_last_line(brought)}")

    return kept(KEPT / f"node-{sha256(manifest.read_bytes()).hexdigest()[:16]}", bring) / "node_modules"


def _do(command: list[str], directory: Path) -> None:
    done = _run(command, directory)
    assert done.returncode == 0, f"{command}: {done.stderr}"


def _run(command: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "GOWORK": "off"}  # a workspace file above this directory is none of ours
    return subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=_PATIENCE_SECONDS, check=False
    )


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    return (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
