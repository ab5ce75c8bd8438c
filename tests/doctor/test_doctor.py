"""Each check of `sidecar doctor` is made to fail by the fault itself, and is well without it."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from sidecar.chain.seeds import Custody
from sidecar.config import Config
from sidecar.custody import load_custodian
from sidecar.doctor import Finding, Patient, examine
from sidecar.doctor.keys import check_certificates, check_custodians, check_identity
from sidecar.doctor.ledger import check_anchors, check_clock, check_collector, check_ledger
from sidecar.doctor.places import check_disk, check_running, check_separation, check_sockets
from sidecar.doctor.policies import check_opa, check_policy, check_registry
from sidecar.doctor.settings import check_settings
from sidecar.ledger import Moment, Options, SystemClock, create
from tests.api.running import PRIVATE, PUBLIC, wrap
from tests.authorities import HOUR, NOW, Authority
from tests.cli.test_agents import agents, key_of
from tests.cli.test_policy_from_git import Team
from tests.cli.test_policy_in_force import write
from tests.collecting import Collecting, collecting
from tests.collector.test_shipping import decide, until
from tests.faults.clocks import off_by
from tests.faults.mounts import tmpfs
from tests.needs import needs_program
from tests.program import made, serving, serving_unready, sidecar

DAY = 24 * HOUR
AGENT = 4711
Check = Callable[[Patient], Iterator[Finding]]


class Shifted(SystemClock):
    """A clock that is wrong by so many seconds."""

    def __init__(self, seconds: int) -> None:
        super().__init__()
        self._ns = seconds * 1_000_000_000

    def now(self) -> Moment:
        moment = super().now()
        return Moment(moment.wall_ns + self._ns, moment.mono_ns, moment.error_ms)


def founded(place: Path, *, public: bytes = PUBLIC, authority: bytes | None = None, late: int = 0) -> Path:
    """A new ledger; ``late``: of so many seconds from now."""
    place.mkdir(exist_ok=True)
    directory = place / "ledger"
    create(
        directory, identity=Ed25519PrivateKey.generate(), custody=Custody("any", (load_custodian(public, "auditor"),)),
        authority=authority, log=None, retention="default", wrap=wrap, options=Options(), clock=Shifted(late),
    )  # fmt: skip
    return directory


def told(check: Check, patient: Patient) -> list[tuple[str, str]]:
    """States, and what was found with its mend."""
    return [(each.state, f"{each.found}; {each.mend}") for each in examine(patient, (("this", check),))]


def patient(directory: Path, uid: int | None = None, **settings: Any) -> Patient:
    return Patient(Config(data_dir=str(directory), **settings), uid=uid)


def only(check: Check, whose: Patient, state: str, *words: str) -> None:
    """There is just one finding that is not well, and it says so; a check that fails to look is one."""
    found = [each for each in told(check, whose) if each[0] not in ("ok", "skipped")]
    assert [each[0] for each in found] == [state], found
    assert all(word in found[0][1] for word in words), found


def well(check: Check, whose: Patient) -> None:
    assert {state for state, _ in told(check, whose)} == {"ok"}, told(check, whose)


# --- ledger, clock, anchors


def test_no_ledger_is_wrong_and_all_else_goes_on(tmp_path: Path) -> None:
    found = {each.check: each for each in examine(patient(tmp_path / "none", dev=True))}
    assert (found["ledger"].state, found["policy"].state) == ("wrong", "ok")
    assert "sidecar init" in found["ledger"].mend


def test_a_damaged_ledger_is_a_finding_of_each_check_that_needs_it(tmp_path: Path) -> None:
    directory = founded(tmp_path)
    well(check_ledger, patient(directory))
    file = directory / "ledger.mdb"
    file.write_bytes(file.read_bytes()[:4096] + bytes(60_000))
    found = {each.check: each.state for each in examine(patient(directory, dev=True))}
    assert all(found[name] == "wrong" for name in ("ledger", "identity", "custodians", "disk", "clock", "anchors"))


def test_a_clock_before_the_ledgers_last_entry_is_wrong(tmp_path: Path) -> None:
    only(check_clock, patient(founded(tmp_path, late=3600)), "wrong", "ahead of this clock")
    assert not [each for each in told(check_clock, patient(founded(tmp_path / "b"))) if each[0] == "wrong"]


def test_what_waits_long_for_a_receipt_is_wrong(tmp_path: Path) -> None:
    ships = {"collector_address": "127.0.0.1:1", "collector_log_key": "a+00000000+AA=="}
    well(check_anchors, patient(founded(tmp_path / "new"), **ships))
    old = founded(tmp_path / "old", late=-3600)
    only(check_anchors, patient(old, **ships), "wrong", "0 decisions are not anchored, of 3 entries, the oldest for 36")
    only(check_anchors, patient(old), "careful", "nothing is shipped")


def test_decisions_without_a_receipt_are_counted(tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    with serving(ledger) as server, server.guard() as guard:
        for number in range(3):
            guard.check("crm.read", ("customer", f"c-{number}"))
        only(check_anchors, patient(ledger), "careful", "3 decisions are not anchored")
        well(check_running, patient(ledger, listen=server.address, dev=True))
        assert told(check_policy, patient(ledger, dev=True))[0][1].startswith("in force last: revision ")
    assert told(check_running, patient(ledger, listen=server.address))[0][0] == "skipped"


def test_a_sidecar_that_is_not_ready_is_wrong(tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    with serving_unready(ledger, "--engine", "opa", "--opa", f"unix:{tmp_path}/none.sock") as server:
        whose = patient(ledger, listen=server.address, dev=True)
        until(lambda: "not ready: OPA at" in told(check_running, whose)[0][1])
        only(check_running, whose, "wrong", "not ready: OPA at")


# --- keys


def test_an_identity_key_that_others_read_or_is_another_is_wrong(tmp_path: Path) -> None:
    directory = founded(tmp_path)
    well(check_identity, patient(directory))
    key = directory / "identity.pem"
    key.chmod(0o640)
    only(check_identity, patient(directory), "wrong", "mode 0640", f"chmod 0600 {key}")
    key.chmod(0o600)
    directory.chmod(0o750)
    only(check_identity, patient(directory), "wrong", "mode 0750", "chmod 0700")
    directory.chmod(0o700)
    shutil.copy(founded(tmp_path / "b") / "identity.pem", key)
    only(check_identity, patient(directory), "wrong", "is not the identity key of this chain")


def test_custodians_private_keys_beside_the_ledger_are_wrong(tmp_path: Path) -> None:
    authority = Ed25519PrivateKey.generate()
    directory = founded(tmp_path, authority=authority.public_key().public_bytes_raw())
    well(check_custodians, patient(directory))
    pem = authority.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for path, private in ((directory / "a.pem", PRIVATE), (tmp_path / "b", PRIVATE), (tmp_path / "c.key", pem)):
        path.write_bytes(private)
        only(check_custodians, patient(directory), "wrong", f"lies at {path}", "move it off this host")
        path.unlink()
    (tmp_path / "another.pem").write_bytes(
        Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    well(check_custodians, patient(directory))


def test_a_custodian_that_is_not_the_ledgers_is_wrong(tmp_path: Path) -> None:
    directory, named = founded(tmp_path), tmp_path / "auditor.pub.pem"
    named.write_bytes(PUBLIC)
    well(check_custodians, patient(directory, custodians=(str(named),)))
    short = rsa.generate_private_key(65537, 2048).public_key()
    named.write_bytes(short.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    only(check_custodians, patient(directory, custodians=(str(named),)), "wrong", "none of the ledger's custodians")
    weak = founded(tmp_path / "b", public=named.read_bytes())
    only(check_custodians, patient(weak), "careful", "RSA of 2048 bits")


def test_certificates_that_ended_or_soon_end(tmp_path: Path) -> None:
    authority = Authority("ca")
    cert, key, ca = (tmp_path / name for name in ("tls.crt", "tls.key", "ca.crt"))
    ca.write_bytes(authority.pem)
    tls = {"tls_cert_file": str(cert), "tls_key_file": str(key), "tls_client_ca_file": str(ca)}
    whose = patient(tmp_path, listen="127.0.0.1:0", **tls)
    for end, state, word in (
        (-HOUR, "wrong", "ended on"),
        (3 * DAY, "careful", "in 2 days"),
        (30 * DAY, "ok", "to 20"),
    ):
        issued = authority.issue(dns=["sidecar.internal"], start=NOW - 2 * DAY, end=NOW + end)
        cert.write_bytes(issued.chain)
        key.write_bytes(issued.key_pem)
        found = told(check_certificates, whose)
        assert found[0][0] == state and word in found[0][1], found
        assert found[1][0] in ("ok", "careful")
    cert.write_text("none")
    assert "holds no certificate" in told(check_certificates, whose)[0][1]
    cert.unlink()
    assert "cannot read" in told(check_certificates, whose)[0][1]
    spiffe = patient(tmp_path, listen="127.0.0.1:0", spiffe_socket=f"{tmp_path}/none.sock", dev=True)
    only(check_certificates, spiffe, "wrong", "no SPIFFE Workload API")


# --- places


@pytest.fixture
def open_place(tmp_path: Path) -> Iterator[Path]:
    """A directory that another user can get to: pytest's own are closed."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="sidecar-doctor-test-", dir="/var/tmp") as name:
        place = Path(name)
        place.chmod(0o755)
        yield place


def test_what_the_agent_reads_or_changes_is_wrong(open_place: Path) -> None:
    directory, registry = founded(open_place), open_place / "registry.json"
    registry.write_text("{}")
    registry.chmod(0o644)
    token = open_place / "token"
    token.write_text("secret")
    token.chmod(0o600)
    settings = {"registry": str(registry), "collector_token_file": str(token)}
    well(check_separation, patient(directory, AGENT, **settings))
    faults: list[tuple[Path, int, str]] = [
        (directory, 0o711, "can read the ledger's directory"),
        (registry, 0o666, "can change the registry"),
        (token, 0o644, "can read the token"),
    ]
    for path, mode, word in faults:
        before = stat.S_IMODE(path.stat().st_mode)
        path.chmod(mode)
        only(check_separation, patient(directory, AGENT, **settings), "wrong", f"user {AGENT}", word)
        only(check_separation, patient(directory, **settings), "wrong", "another user of this host", word)
        path.chmod(before)
    only(check_separation, patient(directory, os.geteuid(), **settings), "wrong", "is root", "run it as another")
    open_place.chmod(0o777)
    words = {text for state, text in told(check_separation, patient(directory, AGENT, **settings)) if state == "wrong"}
    assert any("can change the registry" in each for each in words)
    assert any("can change the ledger's directory" in each for each in words)


def test_an_opa_that_the_agent_reaches_is_wrong(open_place: Path) -> None:
    import socket

    directory, at = founded(open_place), open_place / "opa.sock"
    with socket.socket(socket.AF_UNIX) as opa:
        opa.bind(str(at))
        for mode, state in ((0o600, "ok"), (0o666, "wrong")):
            at.chmod(mode)
            found = told(check_separation, patient(directory, AGENT, engine="opa", opa=f"unix:{at}"))
            assert [each[0] for each in found] == [state], found
    only(check_separation, patient(directory, AGENT, engine="opa", opa="http://127.0.0.1:8181"), "careful", "8181")


@pytest.mark.parametrize(("door", "who"), [("envoy", "Envoy"), ("authzen", "the PEP")])
def test_a_door_that_the_agent_opens_in_its_gateways_place_is_wrong(open_place: Path, door: str, who: str) -> None:
    import socket

    directory, inside = founded(open_place), open_place / "door"
    inside.mkdir()
    at = inside / "door.sock"
    settings = {f"doors_{door}_gateway": "edge", f"doors_{door}_listen": f"unix:{at}"}
    whose = patient(directory, AGENT, **settings)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(at))
        at.chmod(0o660)
        well(check_separation, whose)
        at.chmod(0o666)
        only(check_separation, whose, "wrong", f"ask in the place of {who}", str(at))
        at.chmod(0o660)
        inside.chmod(0o777)
        only(check_separation, whose, "wrong", f"answer {who} in the sidecar's place", str(at))


@pytest.mark.parametrize("door", ["envoy", "authzen"])
def test_a_doors_certificates_and_key_are_looked_at_as_our_own_are(open_place: Path, door: str) -> None:
    authority = Authority("ca")
    issued = authority.issue(dns=["sidecar.internal"], start=NOW - 2 * DAY, end=NOW - HOUR)
    cert, key, ca = (open_place / name for name in ("tls.crt", "tls.key", "ca.crt"))
    for path, data in ((cert, issued.chain), (key, issued.key_pem), (ca, authority.pem)):
        path.write_bytes(data)
        path.chmod(0o600)
    names = {"tls_cert_file": cert, "tls_key_file": key, "tls_client_ca_file": ca}
    settings = {f"doors_{door}_{name}": str(path) for name, path in names.items()}
    whose = patient(
        founded(open_place),
        AGENT,
        **{f"doors_{door}_gateway": "edge", f"doors_{door}_listen": "127.0.0.1:0"},
        **settings,
    )
    assert ("wrong", f"doors.{door}.tls_cert_file") in {
        (state, text.partition(":")[0]) for state, text in told(check_certificates, whose)
    }
    well(check_separation, whose)
    key.chmod(0o644)
    only(check_separation, whose, "wrong", f"can read the TLS key of doors.{door}")
    key.chmod(0o600)
    ca.chmod(0o666)
    only(check_separation, whose, "wrong", f"can change whose certificates doors.{door} takes")


def test_sockets_that_are_too_open_or_too_closed(open_place: Path) -> None:
    import socket

    directory, rendezvous = founded(open_place), open_place / "run"
    rendezvous.mkdir(0o755)
    at = rendezvous / "s.sock"
    listen = {"listen": f"unix:{at}"}
    well(check_sockets, patient(directory, **listen))
    only(check_sockets, patient(directory, socket_mode="0666", **listen), "wrong", "every user")
    only(check_sockets, patient(directory, listen=f"unix:{rendezvous}/none/s.sock"), "wrong", "does not exist")
    rendezvous.chmod(0o777)
    only(check_sockets, patient(directory, **listen), "wrong", "a socket of its own", f"chmod go-w {rendezvous}")
    rendezvous.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as own:
        own.bind(str(at))
        at.chmod(0o600)
        only(check_sockets, patient(directory, **listen), "wrong", "has mode 0600, and 0660 is set")
        at.chmod(0o660)
        only(check_sockets, patient(directory, AGENT, **listen), "wrong", "cannot reach", "let its group own")
        shared = Patient(Config(data_dir=str(directory), **listen), uid=AGENT, gids=frozenset({at.stat().st_gid}))
        well(check_sockets, shared)


def test_a_disk_without_room_is_wrong() -> None:
    with tmpfs(24) as place:
        directory = founded(place)
        well(check_disk, patient(directory, ledger_max_mib=16))
        hog = place / "hog"
        hog.write_bytes(bytes(18 << 20))
        only(check_disk, patient(directory, ledger_max_mib=64), "careful", "make room")
        hog.write_bytes(bytes(21 << 20))
        only(check_disk, patient(directory, ledger_max_mib=64), "wrong", "no room for entries", "make room on the disk")


# --- registry, OPA, policy


def test_registries_that_prove_nobody(tmp_path: Path) -> None:
    directory, registry = tmp_path / "ledger", tmp_path / "registry.json"
    key_of(tmp_path, "billing")
    agents(registry, "add", "--key", tmp_path / "billing.pub.pem", "billing-agent")
    well(check_registry, patient(directory, registry=str(registry)))
    agents(registry, "revoke", "billing-agent")
    only(check_registry, patient(directory, registry=str(registry)), "careful", "1 principals, 0 active", "agents add")
    registry.write_text("{}")
    for settings, word in (
        ({"registry": str(registry)}, "format"),
        ({"registry": "/none"}, "cannot read"),
        ({}, "not set"),
    ):
        only(check_registry, patient(directory, **settings), "wrong", word)


def test_an_opa_that_is_not_there(tmp_path: Path) -> None:
    directory = founded(tmp_path)
    address = f"unix:{tmp_path}/opa.sock"
    only(check_opa, patient(directory, engine="opa", opa=address), "wrong", "is not healthy", "start it")
    done = sidecar("doctor", "--data-dir", directory, "--json", SIDECAR_ENGINE="opa", PATH=str(tmp_path))
    found = {each["check"]: each for each in json.loads(done.stdout)["findings"]}
    assert done.returncode == 1 and "not on PATH" in found["opa"]["found"]


def test_policies_that_do_not_pass_or_are_out_of_reach(tmp_path: Path) -> None:
    needs_program("opa")
    directory, policy = tmp_path / "ledger", write(tmp_path / "policy")
    directory.mkdir()
    whose = patient(directory, dev=True, policy_source_path=str(policy))
    well(check_policy, whose)
    well(check_opa, whose)
    (policy / "p.rego").write_text("package agents\n\nno")
    only(check_policy, whose, "wrong", "does not pass: check: p.rego:3", "sidecar policy check")
    git = {"dev": True, "policy_source_git_url": f"file://{tmp_path}/none.git"}
    before = sorted(directory.iterdir())
    only(check_policy, patient(directory, **git), "wrong", "none.git", "reaches it")
    assert sorted(directory.iterdir()) == before
    team = Team(tmp_path)
    team.push("crm.read", "one", key="stranger")
    git |= {"policy_source_git_url": f"file://{team.repository.path}", "policy_source_git_ref": "main"}
    git |= {"policy_source_git_subdirectory": "policy", "policy_trust_allowed_signers": str(team.signers)}
    only(check_policy, patient(directory, **git), "wrong", "does not pass: trust")
    team.push("crm.read", "one")
    well(check_policy, patient(directory, **git))
    mark = directory / "policy.synced"
    mark.touch()
    os.utime(mark, (time.time() - 100, time.time() - 100))
    only(check_policy, patient(directory, policy_max_staleness=50.0, **git), "wrong", "stale", "50 s may be")


# --- settings


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"dev": True}, "any name"),
        ({"enforcement": "shadow"}, "shadow"),
        ({"metrics": "0.0.0.0:9464"}, "whoever reaches the port"),
        ({"policy_source_git_url": "https://git.example.org/p", "policy_max_staleness": 9.0}, "whoever can push"),
        ({"policy_source_path": "p", "policy_max_staleness": 9.0}, "stale policy goes on"),
        ({"policy_trust_allow_rollback": True}, "older policy"),
        ({"policy_gate_allow_builtins": ("time.now_ns",)}, "time.now_ns"),
        ({"policy_gate_expectations": False}, "no tests"),
        ({"collector_address": ""}, "nothing is shipped"),
        ({"collector_max_unshipped_seconds": 9.0}, "however much is not shipped"),
        ({"collector_unconfirmed_start": True}, "without the collector's word"),
    ],
)
def test_each_setting_that_weakens_is_told(settings: dict[str, Any], word: str) -> None:
    safe: dict[str, Any] = {
        "data_dir": "d", "collector_address": "127.0.0.1:1", "collector_log_key": "k",
        "collector_max_unshipped_seconds": 9.0, "collector_unshipped": "deny",
    }  # fmt: skip
    well(check_settings, Patient(Config(**safe)))
    weak = {**safe, **settings}
    if word == "however much is not shipped":
        weak["collector_unshipped"] = "warn"
    found = told(check_settings, Patient(Config(**weak)))
    assert any(state == "careful" and word in text for state, text in found), found


# --- a collector


def shipping(collector: Collecting, **settings: Any) -> dict[str, Any]:
    return {"collector_address": collector.address, "collector_log_key": collector.key, **settings}


def test_a_collector_and_what_it_holds(tmp_path: Path) -> None:
    ledger, _ = made(tmp_path)
    with collecting(tmp_path / "collector") as collector:
        config = tmp_path / "sidecar.toml"
        config.write_text("segment_entries = 2\n" + collector.settings())
        only(check_collector, patient(ledger, **shipping(collector)), "careful", "does not know this chain")
        with serving(ledger, "--config", config) as server:
            decide(server, 1)
            shutil.copytree(ledger, tmp_path / "old")
            decide(server, 2)
            whose = shipping(collector, listen=server.address)
            until(lambda: "0 decisions are not anchored" in told(check_anchors, patient(ledger, **whose))[0][1])
            writer = (ledger / "lock").stat().st_mtime_ns
            more = {"SIDECAR_LISTEN": server.address, "SIDECAR_DEV": "1"}
            done = sidecar("doctor", "--config", config, "--data-dir", ledger, "--json", **more)
            found = json.loads(done.stdout)
            wrong = {each["check"]: each["found"] for each in found["findings"] if each["state"] == "wrong"}
            assert set(wrong) == {"custodians"}, wrong  # the test's own key, beside the ledger
            assert (done.returncode, found["wrong"]) == (1, 1)
            held = next(each["found"] for each in found["findings"] if each["check"] == "collector")
            assert "acknowledged entry" in held
            assert (ledger / "lock").stat().st_mtime_ns == writer
            off = sidecar("doctor", "--config", config, "--data-dir", ledger, "--json", **more, **off_by(1, tmp_path))
            clock = [each["found"] for each in json.loads(off.stdout)["findings"] if each["check"] == "clock"]
            assert re.search(r"this clock and the collector's are 3[56]\d\d s apart", clock[-1]), clock
            assert server.stop() == 0
        well(check_collector, patient(ledger, **shipping(collector)))
        only(check_collector, patient(tmp_path / "old", **shipping(collector)), "wrong", "an old copy", "sidecar loss")
        other = {**shipping(collector), "collector_log_key": "another.example.org+" + collector.key.partition("+")[2]}
        assert told(check_collector, patient(ledger, **other))[0][0] == "wrong"
        (tmp_path / "auditor.pem").unlink()
        config.write_text(collector.settings('unshipped = "deny"', "max_unshipped_seconds = 60"))
        plain = sidecar("doctor", "--config", config, "--data-dir", ledger, "--agent-uid", str(AGENT), SIDECAR_DEV="1")
        assert plain.returncode == 0, plain.stdout
        assert plain.stdout.splitlines()[-1].startswith("0 wrong, ")
        assert collector.stop() == 0
    only(
        check_collector,
        patient(ledger, **shipping(collector)),
        "wrong",
        "does not answer (UNAVAILABLE)",
        "see that it runs",
    )


def test_wrong_use_is_2_and_one_line(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("engine = 'cedar'\n")
    for flags in ((), ("--config", tmp_path / "c.toml", "--data-dir", "d")):
        done = sidecar("doctor", *flags)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
