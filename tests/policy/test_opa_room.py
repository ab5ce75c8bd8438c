"""`sidecar opa`: OPA as another user, in a directory that the two share and nobody else enters."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sidecar.client import Decision, Guard
from sidecar.config import Config
from sidecar.doctor import Finding, Patient
from sidecar.doctor.places import check_separation
from sidecar.doctor.policies import check_opa
from sidecar.errors import UsageError
from sidecar.policy import OpaRoom
from sidecar.policy.opa_room import _status
from tests.program import BIN, environment, made, serving, sidecar
from tests.users import as_user

from .processes import kill

REGO = Path(__file__).parents[2] / "rego"
SIDECAR, OPA, AGENT = 10010, 10011, 10001


def ask(guard: Guard, action: str = "crm.read") -> Decision:
    return guard.ask(action, ("customer", "acme-42"), {"fields": ["name"]})


def until(look: Callable[[], object], *, said: str) -> None:
    end = time.monotonic() + 60
    while not look():
        assert time.monotonic() < end, said
        time.sleep(0.02)


@pytest.fixture
def place(opa: str) -> Iterator[Path]:
    """A directory that all users may enter, with the volume that sidecar and OPA share, as Kubernetes lays it out."""
    with tempfile.TemporaryDirectory() as made_here:
        where = Path(made_here)
        where.chmod(0o755)
        shared, ledger = where / "shared", where / "volume"
        shared.mkdir()
        shared.chmod(0o2777)
        os.chown(shared, 0, 10020)
        ledger.mkdir()
        os.chown(ledger, SIDECAR, SIDECAR)
        policy = where / "policy"
        shutil.copytree(REGO, policy, ignore=shutil.ignore_patterns("__pycache__"))
        policy.chmod(0o755)
        (where / "sidecar.toml").write_text(
            f'engine = "opa"\nopa_room = "{shared}"\npolicy.source.period = 0.1\npolicy.source.path = "{policy}"\n'
        )
        yield where


@contextlib.contextmanager
def keeping(place: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [*as_user(OPA, SIDECAR, place), str(BIN / "sidecar"), "opa", "--room", str(place / "shared")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment()) as keeper:
        try:
            yield keeper
        finally:
            keeper.kill()


def children(process: subprocess.Popen[bytes]) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def owner(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


def refused(place: Path, user: int, group: int, code: str, *arguments: str) -> bool:
    """Whether Python, as that user, gets a PermissionError for it."""
    script = f"import os, socket, sys\ntry:\n    {code}\nexcept PermissionError:\n    sys.exit(77)"
    command = [*as_user(user, group, place), sys.executable, "-I", "-c", script, *arguments]
    return subprocess.run(command, check=False).returncode == 77


def served_by(place: Path) -> tuple[str, ...]:
    return ("--config", str(place / "sidecar.toml"), "--init")


def test_opa_is_another_user_whom_no_agent_reaches(place: Path) -> None:
    room = place / "shared" / "room"
    with (
        keeping(place) as keeper,
        serving(place / "volume" / "ledger", *served_by(place), within=as_user(SIDECAR, SIDECAR, place)) as server,
        server.guard() as guard,
    ):
        first = ask(guard)
        assert (first.effect, first.policy.engine, len(first.policy.bundle_digest)) == ("ALLOW", "opa", 64)
        (opa,) = children(keeper)
        assert owner(opa) == OPA
        (bundle,), (socket,) = room.glob("*.tar.gz"), room.glob("*.sock")
        assert [oct(path.stat().st_mode & 0o777) for path in (room, bundle, socket)] == ["0o770", "0o640", "0o660"]
        connect = "socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
        for user, group in ((AGENT, AGENT), (AGENT, 10020)):  # also with the group of the decision socket
            assert refused(place, user, group, "os.listdir(sys.argv[1])", str(room))
            assert refused(place, user, group, "open(sys.argv[1])", str(bundle))
            assert refused(place, user, group, connect, str(socket))
        assert not refused(place, OPA, SIDECAR, connect, str(socket))
        assert refused(place, OPA, SIDECAR, "os.listdir(sys.argv[1])", str(place / "volume" / "ledger"))
        assert server.stop() == 0
        until(lambda: not children(keeper) and not list(room.iterdir()), said="the sidecar's end left something")
        keeper.send_signal(signal.SIGTERM)
        assert keeper.wait(60) == 0


def test_an_opa_that_ends_is_followed_by_another_and_so_is_its_keeper(place: Path) -> None:
    with contextlib.ExitStack() as stack:
        keeper = stack.enter_context(keeping(place))
        ledger = place / "volume" / "ledger"
        server = stack.enter_context(serving(ledger, *served_by(place), within=as_user(SIDECAR, SIDECAR, place)))
        guard = stack.enter_context(server.guard())
        first = ask(guard)
        kill(children(keeper)[0])
        until(lambda: ask(guard).effect == "ALLOW", said="no decision after OPA was killed")
        keeper.send_signal(signal.SIGTERM)
        assert keeper.wait(60) == 0
        denied = ask(guard)
        assert (denied.effect, denied.reasons[0].code) == ("DENY", "engine_unavailable")
        stack.enter_context(keeping(place))
        until(lambda: ask(guard).effect == "ALLOW", said="no decision after the keeper was started again")
        assert ask(guard).policy == first.policy
        assert server.stop() == 0


def test_a_new_policy_comes_into_force_without_a_denial(place: Path) -> None:
    room, ledger = place / "shared" / "room", place / "volume" / "ledger"
    with (
        keeping(place) as keeper,
        serving(ledger, *served_by(place), within=as_user(SIDECAR, SIDECAR, place)) as server,
        server.guard() as guard,
    ):
        first = ask(guard)
        with (place / "policy" / "decision.rego").open("a") as rego:
            rego.write("\n# another revision\n")
        asked: list[Decision] = []

        def changed() -> bool:
            asked.append(ask(guard))
            return asked[-1].policy.revision != first.policy.revision

        until(changed, said="the new policy does not come into force")
        until(lambda: len(children(keeper)) == 1, said="the old OPA stays")
        assert len(list(room.glob("*.tar.gz"))) == 1
        assert {decision.effect for decision in asked} == {"ALLOW"}
        assert server.stop() == 0
    entries = [json.loads(line) for line in sidecar("show", ledger, "--json").stdout.splitlines()]
    activated = [e["payload"]["event"] for e in entries if e["payload"] and e["payload"].get("type") == "POLICY"]
    assert activated == ["activated", "activated"]


def test_what_is_no_room_is_told(opa: str, tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    shared = tmp_path / "shared"
    shared.mkdir()
    held = OpaRoom(shared)
    where = ("serve", "--data-dir", ledger, "--dev", "--engine", "opa", "--policy", REGO)
    second = sidecar(*where, SIDECAR_OPA_ROOM=str(shared))
    assert (second.returncode, second.stderr.count("\n")) == (2, 1)
    assert "another sidecar has it" in second.stderr
    held.close()
    with pytest.raises(UsageError, match="name a directory that this user may write in"):
        OpaRoom(tmp_path / "nowhere")
    (shared / "room").rmdir()
    (shared / "room").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="cannot be used"):
        OpaRoom(shared)
    for wrong in ({"SIDECAR_ENGINE": "wasm"}, {"SIDECAR_ENGINE": "opa", "SIDECAR_OPA": "unix:/run/opa.sock"}):
        told = sidecar("serve", "--data-dir", ledger, "--dev", SIDECAR_OPA_ROOM=str(shared), **wrong)
        assert (told.returncode, "opa_room is for an OPA that `sidecar opa` runs" in told.stderr) == (2, True)
    assert sidecar("opa", "--room", tmp_path / "nowhere").returncode == 2


def test_a_room_that_is_open_to_everybody_is_not_kept(opa: str, tmp_path: Path) -> None:
    (tmp_path / "room").mkdir()
    (tmp_path / "room").chmod(0o777)
    told = sidecar("opa", "--room", tmp_path)
    assert (told.returncode, "open to everybody" in told.stderr) == (2, True)


def test_a_mark_of_another_user_may_be_anything(opa: str, tmp_path: Path) -> None:
    """It ends the run, and nothing else."""
    room = OpaRoom(tmp_path)
    room.close()
    mark = tmp_path / "mark"
    assert _status(mark) is None
    mark.write_text("-9")
    assert _status(mark) == -9
    for content in (b"", b"\xff\xfe", b"99999", b"0x1"):
        mark.write_bytes(content)
        assert _status(mark) == 127
    mark.unlink()
    os.mkfifo(mark)  # would hold up whoever opens it to wait
    assert _status(mark) == 127


def test_the_doctor_looks_into_the_room(place: Path) -> None:
    """Whether what the sidecar asks for is run, and whether the agent gets in."""
    where, room = str(place / "shared"), place / "shared" / "room"
    known = Config(
        data_dir=str(place / "volume" / "ledger"), engine="opa", opa_room=where, policy_source_path=str(REGO)
    )

    def told(check: Callable[[Patient], Iterator[Finding]], uid: int | None = None) -> list[tuple[str, str]]:
        return [(each.state, each.found) for each in check(Patient(known, uid=uid))]

    assert told(check_opa)[-1] == ("careful", f"{room} is not there, or not for this user")
    with contextlib.ExitStack() as stack:
        keeper = stack.enter_context(keeping(place))
        ledger = place / "volume" / "ledger"
        server = stack.enter_context(serving(ledger, *served_by(place), within=as_user(SIDECAR, SIDECAR, place)))
        assert told(check_opa)[-1] == ("ok", f"1 OPA answers in {room}")
        assert "can enter OPA's room" not in str(told(check_separation, AGENT))
        room.chmod(0o771)
        (state,) = [state for state, found in told(check_separation, AGENT) if "can enter OPA's room" in found]
        assert state == "wrong"
        room.chmod(0o770)
        keeper.kill()
        keeper.wait(60)
        until(
            lambda: told(check_opa)[-1] == ("wrong", f"0 of 1 OPAs that the sidecar asks for in {room} answer"),
            said="?",
        )
        assert server.stop() == 0
    assert told(check_opa)[-1] == ("ok", f"no sidecar asks for an OPA in {room} now")
