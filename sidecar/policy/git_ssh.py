"""git over ssh with the OpenSSH client (ssh(1), ssh_config(5)), told everything and asking nobody.

No configuration of the user or the system is read, no agent asked, no password tried, and the server's key must be in
``known_hosts_file`` already.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from .git_errors import Unreachable, one_line
from .git_settings import GitSettings

_OPTIONS: Final = (
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    "GlobalKnownHostsFile=/dev/null",
    "UpdateHostKeys=no",
    "VerifyHostKeyDNS=no",
    "IdentitiesOnly=yes",
    "IdentityAgent=none",
    "PreferredAuthentications=publickey",
    "ClearAllForwardings=yes",
    "PermitLocalCommand=no",
    "ControlMaster=no",
    "ControlPath=none",
    "ServerAliveInterval=10",
    "ServerAliveCountMax=3",
    "LogLevel=ERROR",
    "SetEnv=GIT_PROTOCOL=version=2",
)
_CAUSES: Final = (
    ("REMOTE HOST IDENTIFICATION HAS CHANGED", "the server's host key is another than known_hosts_file says; do not go "
     "on before its owner explains why"),
    ("Host key verification failed", "the server's host key is not in known_hosts_file; add it after checking it"),
    ("No ED25519 host key is known", "the server's host key is not in known_hosts_file; add it after checking it"),
    ("bad permissions", "ssh refuses ssh_key_file because others may read it; chmod 600"),
    ("error in libcrypto", "ssh_key_file is not a private key, or has a passphrase; give one without"),
    ("incorrect passphrase", "ssh_key_file has a passphrase; give one without"),
    ("Permission denied", "the server refuses the key (permission denied); add ssh_key_file's public key there"),
    ("Could not resolve hostname", "the server's name cannot be resolved; check the url and DNS"),
    ("does not appear to be a git repository", "the server has no such repository; check the url"),
    ("Repository not found", "the server has no such repository, or does not show it to this key; check the url"),
)  # fmt: skip


def ssh_client(settings: GitSettings) -> tuple[Any, str, Callable[[Exception], Unreachable]]:
    """A client, the repository's path, and what explains its errors. Raises `Unreachable` for files it cannot read."""
    from dulwich.client import SSHGitClient

    for name, file in (("ssh_key_file", settings.ssh_key_file), ("known_hosts_file", settings.known_hosts_file)):
        try:
            Path(file).open("rb").close()
        except OSError as error:
            raise Unreachable(f"{name} {file} cannot be read: {error.strerror}") from None
    address = settings.address
    ssh = _Ssh(settings)
    vendor: Any = ssh
    client = SSHGitClient(
        address.host,
        port=address.port or None,
        username=address.user or None,
        vendor=vendor,
        thin_packs=False,
        quiet=True,
    )
    return client, address.path, ssh.explain


class _Ssh:
    """Starts ssh, one at a time, and keeps what it said last."""

    def __init__(self, settings: GitSettings) -> None:
        known, key = _quoted(settings.known_hosts_file), settings.ssh_key_file.replace("%", "%%")
        wait = f"ConnectTimeout={int(settings.timeout) + 1}"
        options = [word for option in (*_OPTIONS, wait, f"UserKnownHostsFile={known}") for word in ("-o", option)]
        self._command = ["ssh", "-F", "none", "-T", "-x", "-i", key, *options]
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as this process

    def run_command(
        self, host: str, command: bytes, username: str | None = None, port: int | None = None, **_: object
    ) -> _Running:
        self._said.seek(0)
        self._said.truncate()
        where = [*(["-p", str(port)] if port else []), *(["-l", username] if username else []), "--", host]
        try:
            process = subprocess.Popen(
                [*self._command, *where, command.decode()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
            )
        except FileNotFoundError:
            raise Unreachable("the program ssh is missing; install the OpenSSH client") from None
        return _Running(process)

    def explain(self, error: Exception) -> Unreachable:
        from .git_remote import protocol_trouble

        if isinstance(error, Unreachable):
            return error
        self._said.seek(0)
        said = self._said.read(1 << 16).decode(errors="replace")
        for words, cause in _CAUSES:
            if words in said:
                return Unreachable(cause)
        lines = [line for line in said.splitlines() if line.strip()]
        return Unreachable(f"ssh: {one_line(lines[-1])}") if lines else protocol_trouble(error)


class _Running:
    """An ssh as dulwich's protocol reads from it and writes to it."""

    stderr = None

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._process, self._in, self._out = process, process.stdin, process.stdout
        self.read = process.stdout.read

    def write(self, data: bytes) -> int:
        self._in.write(data)
        self._in.flush()
        return len(data)

    def can_read(self) -> bool:
        """Never before the request is sent whole: it is short."""
        return False

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._out.close()
        with contextlib.suppress(OSError):  # what was not sent is not missed
            self._in.close()


def _quoted(file: str) -> str:
    """A path as a value in ssh_config(5), which would split it at spaces and expand what follows a percent sign."""
    return '"' + file.replace("%", "%%") + '"'
