"""Whose commits may become policy: SSH keys in OpenSSH's allowed signers format (ssh-keygen(1), ALLOWED SIGNERS).

The file is the one that git reads (`gpg.ssh.allowedSignersFile`). Supported are keys of the kinds ssh-ed25519,
sk-ssh-ed25519, ecdsa-sha2-nistp256 and -384, and RSA of 2048 bits or more that signs with SHA-2; no certificates. Times
need their Z: without it they would mean another moment on each machine.

What git accepts is not always accepted here. A key must be valid at the time that the commit gives itself, as for git,
and also now: whoever finds a key that has expired can date a commit back. A commit in force may outlive its key.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cryptography.exceptions import InvalidSignature

from sidecar.errors import UsageError

from .findings import Finding, Refused
from .signed_commit import SignedCommit, take_apart
from .signer_lines import NAMESPACE, AllowedSigner, OddLine, read_line
from .source import Commit
from .ssh_keys import Unreadable, fingerprint, kind_of
from .ssh_signature import SshSignature, read_signature

MAX_TEXT: Final = 1 << 20
_OTHERS: Final = {
    b"-----BEGIN PGP": "an OpenPGP key",
    b"-----BEGIN SIGNED MESSAGE": "an X.509 certificate",
}
_SIGN: Final = "sign it with an SSH key (git config gpg.format ssh; git commit -S)"


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signed a commit: the principals of the key's line, as they are there, and the key's fingerprint as
    ``ssh-keygen -l`` prints it, ``SHA256:…``."""

    principal: str
    key: str


@dataclass(frozen=True, slots=True)
class AllowedSigners:
    """Who may sign commits."""

    lines: tuple[AllowedSigner, ...]

    @classmethod
    def parse(cls, text: str) -> AllowedSigners:
        """Read an allowed signers file of at most 1 MiB.

        Raises `UsageError` with the number of a line that is not understood whole, and for a file that allows nobody.
        """
        if len(text) > MAX_TEXT:
            raise UsageError(f"the allowed signers are more than {MAX_TEXT} characters")
        lines = []
        for number, line in enumerate(text.split("\n"), 1):
            try:
                if found := read_line(line):
                    lines.append(found)
            except OddLine as error:
                raise UsageError(f"allowed signers, line {number} {error}") from None
        if not any(line.signs_commits() for line in lines):
            raise UsageError("the allowed signers hold no key for git: nobody could sign a policy; add a line")
        return cls(tuple(lines))

    def names(self, key: str) -> bool:
        """Whether the key with this fingerprint may sign commits, now or once: a commit may outlive its key."""
        return any(line.signs_commits() and line.key.fingerprint == key for line in self.lines)

    def signer_of(self, commit: Commit, now: datetime | None) -> Signer:
        """Who signed ``commit``.

        ``now``: the time (aware) at which the key must be valid, besides the commit's own; None for a commit that is in
        force already and is looked at again. Raises `Refused` with one finding.
        """
        try:
            return self._judge(take_apart(commit.id, commit.raw), now)
        except _Distrusted as error:
            raise Refused(Finding("", 0, f"the commit {commit.id[:12]} {error}"), revision=commit.id) from None
        except Refused as error:
            raise Refused(*error.findings, revision=commit.id) from None

    def _judge(self, commit: SignedCommit, now: datetime | None) -> Signer:
        signature = _signature(commit)
        lines = self._lines_of(signature)
        try:
            signature.verify(lines[0].key, commit.payload)
        except InvalidSignature:
            raise _Distrusted(f"is not what {lines[0].key.fingerprint} signed; sign it again") from None
        except Unreadable as error:
            raise _Distrusted(f"has a signature that {error}; {_SIGN}") from None
        valid = _valid(lines, _moment(commit.time), "at the commit's own time")
        if now is not None:
            valid = _valid(valid, now, "")
        return Signer(valid[0].principals, valid[0].key.fingerprint)

    def _lines_of(self, signature: SshSignature) -> list[AllowedSigner]:
        """The lines with the key that it says it is by; one at least."""
        lines = [line for line in self.lines if line.key.blob == signature.key]
        if not lines:
            raise _Distrusted(
                f"is signed by {_named(signature.key)}, which is not among the allowed signers; add its line"
            )
        if not (lines := [line for line in lines if line.signs_commits()]):
            shown = fingerprint(signature.key)
            raise _Distrusted(
                f'is signed by {shown}, which is not allowed for git; mend the namespaces="…" of its line'
            )
        return lines


class _Distrusted(Exception):
    """Why a commit is not trusted: what follows its name."""


def _signature(commit: SignedCommit) -> SshSignature:
    raw = commit.signature
    if raw is None:
        raise _Distrusted(f"is not signed; {_SIGN}")
    for begin, named in _OTHERS.items():
        if raw.startswith(begin):
            raise _Distrusted(f"is signed by {named}, which is not supported; {_SIGN}")
    try:
        signature = read_signature(raw)
    except Unreadable as error:
        raise _Distrusted(f"has a signature that {error}; {_SIGN}") from None
    if signature.namespace != NAMESPACE:
        raise _Distrusted(f"has a signature for {signature.namespace[:64]!r}, not for {NAMESPACE!r}; {_SIGN}")
    return signature


def _named(key: bytes) -> str:
    try:
        return f"{fingerprint(key)} ({kind_of(key)[:64]})"
    except Unreadable:
        return fingerprint(key)


def _moment(seconds: int) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError):
        raise _Distrusted("is from a time that no calendar has; make it anew") from None


def _valid(lines: list[AllowedSigner], moment: datetime, when: str) -> list[AllowedSigner]:
    """The lines valid at that moment; ``when``: what to call it, "" for now, which a cause that stays does not tell."""
    valid = [line for line in lines if line.valid(moment)]
    if not valid:
        line = lines[0]
        raise _Distrusted(
            f"is signed by {line.key.fingerprint} of {line.principals[:100]}, valid{line.validity} only, and so not "
            f"{f'{when} ({moment:%Y-%m-%dT%H:%M:%SZ})' if when else 'now'}; sign it with a key that is valid"
        )
    return valid
