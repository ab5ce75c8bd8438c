"""Sockets, files and their modes: what the agent's process can reach that it must not; and the disk."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from sidecar.config import MIB
from sidecar.doctor.finding import Finding, careful, ok, skipped, wrong
from sidecar.doctor.patient import Agent, Patient
from sidecar.doors import listeners
from sidecar.ledger import Options
from sidecar.policy import room_in
from sidecar.probe import ask

_PROBE_SECONDS = 5.0
_LOW = 0.1  # of the ledger's greatest size


def check_running(patient: Patient) -> Iterator[Finding]:
    """Whether a sidecar answers, and is ready."""
    config = patient.config
    if config.tls and not config.metrics:
        yield skipped("running", "it listens with TLS; set metrics, to be asked there")
        return
    at = f"http://{config.metrics}" if config.tls else config.listen
    word = ask(at, live=False, timeout=_PROBE_SECONDS)
    if word.well:
        yield ok("running", f"ready, says {at}")
    elif word.cause.startswith("nobody answers"):
        yield skipped("running", word.cause)
    else:
        yield wrong("running", f"not ready: {word.cause}", "see what is wrong below, and the sidecar's log")


def check_sockets(patient: Patient) -> Iterator[Finding]:
    """Who can connect to the sidecar."""
    at, agent, mode = patient.socket, patient.agent, int(patient.config.socket_mode, 8)
    if at is None:
        yield skipped("socket", "agents ask over TCP; certificates say who they are")
        return
    if mode & 0o002:
        yield wrong("socket", f"socket_mode {mode:04o} lets every user of this host ask", "set it to 0660, and a group")
    if not at.parent.is_dir():
        yield wrong("socket", f"{at.parent} does not exist", "make it, and let the agent's group enter it")
        return
    if agent.can_replace(at.parent):
        yield wrong("socket", f"{_who(agent)} can put a socket of its own at {at}", f"chmod go-w {at.parent}")
    if at.is_socket() and stat.S_IMODE(at.stat().st_mode) != mode:
        found = stat.S_IMODE(at.stat().st_mode)
        yield wrong("socket", f"{at} has mode {found:04o}, and {mode:04o} is set", f"chmod {mode:04o} {at}")
    if agent.told and at.is_socket() and not agent.can(at, 2):
        mend = f"let its group own {at}, and enter the directories above it"
        yield wrong("socket", f"{_who(agent)} cannot reach {at}, so it gets no decision", mend)
    else:
        owner = at.stat() if at.exists() else at.parent.stat()
        yield ok("socket", f"{at}, mode {mode:04o}, owner {owner.st_uid}:{owner.st_gid}")


def check_separation(patient: Patient) -> Iterator[Finding]:
    """What the agent's process can read, replace or reach that is not for it."""
    agent = patient.agent
    owner = patient.directory.stat().st_uid if patient.directory.exists() else None
    if agent.told and agent.uid in (0, owner):
        yield wrong(
            "separation", f"the agent's user {agent.uid} is root, or the ledger's own", "run it as another user"
        )
        return
    found = [*_readable(patient), *_replaceable(patient), *_opa_in_reach(patient), *_doors_in_reach(patient)]
    yield from found or [ok("separation", f"{_who(agent)} reaches neither ledger, keys, policy, OPA nor doors")]


def _readable(patient: Patient) -> Iterator[Finding]:
    agent = patient.agent
    for what, path in _secret(patient):
        if agent.can(path, 4) or (path.is_dir() and agent.can(path, 1)):
            yield wrong("separation", f"{_who(agent)} can read {what}, {path}", f"chmod go-rwx {path}")


def _replaceable(patient: Patient) -> Iterator[Finding]:
    agent = patient.agent
    for what, path in _governing(patient):
        if path.exists() and agent.can_replace(path):
            yield wrong("separation", f"{_who(agent)} can change {what}, {path}", f"chmod go-w {path} {path.parent}")


def _opa_in_reach(patient: Patient) -> Iterator[Finding]:
    config, agent = patient.config, patient.agent
    if config.opa.startswith("unix:") and agent.can(Path(config.opa.removeprefix("unix:")), 2):
        mend = "move OPA's socket to a directory that only sidecar and OPA can enter"
        yield wrong("separation", f"{_who(agent)} can ask and change OPA at {config.opa}", mend)
    elif config.opa.startswith("http:"):
        mend = "let OPA listen on a unix socket that the agent cannot reach"
        yield careful("separation", f"whoever is on this host's network can ask and change OPA at {config.opa}", mend)
    if config.opa_room and agent.can(room_in(Path(config.opa_room)), 1):
        mend = "take the agent out of the group that sidecar and OPA share"
        yield wrong("separation", f"{_who(agent)} can enter OPA's room, {room_in(Path(config.opa_room))}", mend)


def _doors_in_reach(patient: Patient) -> Iterator[Finding]:
    agent = patient.agent
    for door in listeners(patient.config):
        if door.unix and agent.can(door.path, 2):
            mend = f"move it to a directory that only {door.who} enters, or chmod o-rw {door.path}"
            yield wrong("separation", f"{_who(agent)} can ask in the place of {door.who} at {door.path}", mend)
        if door.unix and agent.can_replace(door.path.parent):
            mend = f"chmod go-w {door.path.parent}"
            yield wrong(
                "separation", f"{_who(agent)} can answer {door.who} in the sidecar's place, at {door.path}", mend
            )


def _secret(patient: Patient) -> Iterator[tuple[str, Path]]:
    config = patient.config
    yield "the ledger's directory", patient.directory
    named = [
        ("the data subjects' keys", config.personal_keys_dir), ("their copy", config.personal_copy_file),
        ("the TLS key", config.tls_key_file),
        ("the key for the collector", config.collector_tls_key_file), ("the token", config.collector_token_file),
        ("the token for git", config.policy_source_git_token_file),
        ("the password for git", config.policy_source_git_password_file),
        ("the key for git", config.policy_source_git_ssh_key_file),
        *((f"the TLS key of doors.{door.name}", door.files[1]) for door in listeners(config)),
    ]  # fmt: skip
    yield from ((what, Path(path)) for what, path in named if path)


def _governing(patient: Patient) -> Iterator[tuple[str, Path]]:
    config = patient.config
    named = [
        ("the configuration", str(patient.file or "")), ("the registry", config.registry),
        ("the policy", config.policy_source_path), ("who may sign policies", config.policy_trust_allowed_signers),
        ("the policy's key", config.policy_trust_bundle_key_file), ("the ledger's directory", config.data_dir),
        ("which git server is believed", config.policy_source_git_known_hosts_file),
        ("which git server is believed", config.policy_source_git_tls_ca_file),
        ("whose certificates are taken", config.tls_client_ca_file),
        ("which collector is believed", config.collector_tls_ca_file),
        *((f"whose certificates doors.{door.name} takes", door.files[2]) for door in listeners(config)),
    ]  # fmt: skip
    yield from ((what, Path(path)) for what, path in named if path)


def check_disk(patient: Patient) -> Iterator[Finding]:
    """Room for entries, by the ledger's greatest size and its disk."""
    if not patient.directory.is_dir():
        yield skipped("disk", "there is no directory yet")
        return
    disk = os.statvfs(patient.directory)
    free, limit = disk.f_bavail * disk.f_frsize, patient.config.ledger_max_mib * MIB
    used = patient.ledger.used if patient.founded else 0
    left = min(limit - used, free) - Options().reserve_bytes
    said = f"{free // MIB:,} MiB free, the ledger takes {used // MIB:,} of {limit // MIB:,} MiB"
    if disk.f_flag & os.ST_RDONLY:
        yield wrong("disk", f"the disk of {patient.directory} is read-only", "mount it for writing")
    elif left <= 0:
        mend = "make room on the disk" if free < limit - used else "raise ledger_max_mib, or let receipted entries go"
        yield wrong("disk", f"no room for entries: {said}", mend)
    elif left < _LOW * limit:
        mend = "make room, or lower ledger_max_mib to what the disk has"
        yield careful("disk", f"room for {left // MIB:,} MiB of entries: {said}", mend)
    else:
        yield ok("disk", f"room for {left // MIB:,} MiB of entries: {said}")


def _who(agent: Agent) -> str:
    return f"the agent's user {agent.uid}" if agent.told else "another user of this host"
