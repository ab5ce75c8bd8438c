"""OPA for the tests of the policy room: found, started on a socket of its own, ended by its own process id."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.policy import OpaProgram, find_opa
from tests.needs import needs_program

from .git_servers import Authority, Front, Repository, https_server
from .supervision import POLICY

Build = Callable[..., bytes]
Serve = Callable[..., contextlib.AbstractContextManager[str]]

REQUEST: dict[str, Any] = {
    "agent": {"id": "billing-agent", "proof": "asserted", "roles": [], "attributes": {}},
    "action": "payments.transfer",
    "resource": {"type": "account", "id": "acct-17"},
    "arguments": {"amount": 120, "currency": "EUR"},
    "context": {},
    "purpose": "invoice 4711",
    "time": "2026-11-23T12:00:00.123456789Z",
    "executor": None,
    "delegation": [],
    "approvals": [],
}


@pytest.fixture(scope="session")
def opa() -> str:
    """The OPA program, or the test is skipped."""
    return needs_program("opa")


@pytest.fixture
def request_document() -> dict[str, Any]:
    """A payment the starter policy allows."""
    return {**REQUEST}


@pytest.fixture(scope="session")
def build(opa: str, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Compile Rego source to a bundle: ``build(source, entrypoint, target="wasm", revision="", data=None)``."""

    def compile_(
        source: str, entrypoint: str, *, target: str = "wasm", revision: str = "", data: str | None = None
    ) -> bytes:
        place = tmp_path_factory.mktemp("bundle")
        (place / "policy.rego").write_text(source)
        if data is not None:
            (place / "data.json").write_text(data)
        out = place / "out.tar.gz"
        command = [opa, "build", "-t", target, "-e", entrypoint, "--revision", revision, "-o", str(out), "."]
        subprocess.run(command, cwd=place, check=True, timeout=120)
        return out.read_bytes()

    return compile_


@pytest.fixture(scope="session")
def serve(opa: str) -> Serve:
    """Run OPA: ``with serve("--bundle", path) as address:`` gives ``unix:/…``; ``tcp=True`` gives ``http://…``."""

    @contextlib.contextmanager
    def run(*arguments: str, tcp: bool = False) -> Iterator[str]:
        with tempfile.TemporaryDirectory(prefix="opa") as place:
            listen, address, target = _tcp() if tcp else _unix(place)
            command = [opa, "run", "--server", "--disable-telemetry", "--log-level", "error", "--addr", listen]
            process = subprocess.Popen([*command, *arguments], stderr=subprocess.PIPE)
            try:
                _await_listening(process, target)
                yield address
            finally:
                process.terminate()
                process.communicate(timeout=30)

    return run


def _unix(place: str) -> tuple[str, str, str | tuple[str, int]]:
    path = str(Path(place) / "opa.sock")
    return f"unix://{path}", f"unix:{path}", path


def _tcp() -> tuple[str, str, str | tuple[str, int]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return f"127.0.0.1:{port}", f"http://127.0.0.1:{port}", ("127.0.0.1", port)


def _await_listening(process: subprocess.Popen[bytes], target: str | tuple[str, int]) -> None:
    family = socket.AF_UNIX if isinstance(target, str) else socket.AF_INET
    for _ in range(1200):
        with socket.socket(family) as probe, contextlib.suppress(OSError):
            probe.connect(target)
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
            raise AssertionError(f"OPA ended: {process.communicate()[1].decode()}")
    raise AssertionError("OPA does not listen after a minute")


@pytest.fixture(scope="session")
def program(opa: str) -> OpaProgram:
    return find_opa(opa)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    place = tmp_path / "policy"
    place.mkdir()
    (place / "policy.rego").write_text(POLICY)
    (place / "policy_test.rego").write_text("package p_test\n\ntest_nothing if data.p.nothing_there\n")
    (place / ".manifest").write_text('{"revision": "r42", "roots": ["p"]}')
    return place


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Whose certificate the git server over https has."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def front(repository: Repository, authority: Authority) -> Iterator[Front]:
    """The test module's own ``repository`` over https."""
    with https_server(repository.path.parent, authority) as front:
        yield front
