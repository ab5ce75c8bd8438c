"""Where a policy's git repository is, how to prove who asks, and how much of it to take.

Addresses are those of git(1), "GIT URLS", without plain http and git://: neither tells who answers.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal
from urllib.parse import unquote, urlsplit

from sidecar.errors import UsageError

from .tree import TreeLimits

_HOST: Final = r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\]"
_SCP: Final = re.compile(rf"(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9._-]{{0,63}})@)?(?P<host>{_HOST}):(?P<path>[^:].*)")
_USER: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_BAD_IN_REF: Final = re.compile(
    r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|\.lock(/|$)|/\.|^[./-]|[./]$"
)  # git-check-ref-format(1)
_BAD_IN_FILE: Final = re.compile(r"[\x00-\x1f\x7f\"\\$]")  # ssh_config(5) would read them as something else


@dataclass(frozen=True, slots=True)
class Address:
    """A URL taken apart. ``host`` and ``user`` are "" where the scheme has none, ``port`` is 0 for the usual one.

    ``path`` is what the transport asks for: for file a directory, for ssh what the server's shell is given.
    """

    scheme: Literal["https", "ssh", "file"]
    host: str
    port: int
    user: str
    path: str


@dataclass(frozen=True, slots=True)
class GitSettings:
    """A repository, and what in it is the policy.

    ``url``: ``https://``, ``ssh://``, ``user@host:path``, ``file://`` or an absolute path, without credentials.
    ``ref``: a branch or tag (a full name, ``refs/...``, where both exist), or a commit's 40 digits; "" is the remote's
    HEAD. ``subdirectory``: the policy's directory in the repository, "" for all of it. Paths of files, "" for none,
    read anew at each look: ``token_file`` (sent as a password), or ``username`` with ``password_file``, for https;
    ``ssh_key_file`` and ``known_hosts_file``, both needed for ssh; ``tls_ca_file`` instead of the system's authorities.
    ``timeout``: seconds of one whole look, above 0. ``depth``: commits fetched at first, 0 for all; where ancestry
    cannot be told from them the whole history is fetched, and kept from then on. ``max_bytes``: of one fetch, as sent.
    Submodules are never read: what they hold is not part of the policy. No proxy is used, no redirection followed.

    Raises `UsageError` when built from what cannot be.
    """

    url: str
    ref: str = ""
    subdirectory: str = ""
    token_file: str = ""
    username: str = ""
    password_file: str = ""
    ssh_key_file: str = ""
    known_hosts_file: str = ""
    tls_ca_file: str = ""
    timeout: float = 60.0
    depth: int = 0
    max_bytes: int = 256 << 20
    limits: TreeLimits = field(default_factory=TreeLimits)

    def __post_init__(self) -> None:
        if self.ref and (len(self.ref) > 250 or _BAD_IN_REF.search(self.ref) or not self.ref.isprintable()):
            raise UsageError("the git ref is not the name of a branch or tag, nor a commit's id")
        parts = self.subdirectory.split("/")
        if self.subdirectory and ({"", ".", "..", ".git"} & set(parts) or not self.subdirectory.isprintable()):
            raise UsageError("the git subdirectory is not a plain relative path, as in policies/agents")
        if not self.timeout > 0 or self.depth < 0 or self.max_bytes < 1 << 16:
            raise UsageError("git: the timeout is above 0 s, the depth 0 or more, max_bytes at least 65536")
        _check_credentials(self, self.address.scheme)

    @property
    def address(self) -> Address:
        """The url taken apart."""
        return parse_url(self.url)

    @property
    def is_commit(self) -> bool:
        """Whether ``ref`` is a commit's id."""
        return _COMMIT.fullmatch(self.ref) is not None

    @property
    def place(self) -> str:
        """The url, ref and subdirectory as people read them; there is no secret in any of them."""
        below = f", {self.subdirectory}/" if self.subdirectory else ""
        return f"{self.url} ({self.ref or 'HEAD'}{below})"

    def to_json(self) -> dict[str, Any]:
        """For the process that fetches."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> GitSettings:
        """What :meth:`to_json` gave."""
        return cls(**{**value, "limits": TreeLimits(**value["limits"])})


def parse_url(url: str) -> Address:
    """Take a repository's URL apart. Raises `UsageError`, which does not repeat the URL: it may hold a secret."""
    if not url or len(url) > 2000 or not url.isprintable() or " " in url:
        raise UsageError("the git url is empty, too long, or has spaces or control characters; encode them as %20")
    if url.startswith("/"):
        return Address("file", "", 0, "", url)
    if "://" not in url:
        if (match := _SCP.fullmatch(url)) is None:
            raise UsageError(
                "the git url is none; write https://…, ssh://…, user@host:path, file:///… or /an/absolute/path"
            )
        return Address("ssh", match["host"].strip("[]"), 0, match["user"] or "", match["path"])
    return _parse_schemed(url)


def _parse_schemed(url: str) -> Address:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 0
    except ValueError:
        raise UsageError("the git url has a host or port that is none") from None
    if parts.query or parts.fragment or "?" in url or "#" in url:
        raise UsageError("the git url has a query or fragment; write the repository's address alone")
    if parts.password is not None or (parts.scheme != "ssh" and parts.username is not None):
        raise UsageError(
            "the git url holds credentials; put them in a file and name it with token_file or password_file"
        )
    if parts.scheme == "file":
        if host not in ("", "localhost") or not parts.path.startswith("/"):
            raise UsageError("the git url names no local path; write file:///the/path")
        return Address("file", "", 0, "", unquote(parts.path))
    if parts.scheme not in ("https", "ssh"):
        why = "plain http lets anybody on the way answer; " if parts.scheme == "http" else ""
        raise UsageError(f"the git url has a scheme that is not taken: {why}use https://, ssh:// or file://")
    bracketed = f"[{host}]" if ":" in host else host
    if not re.fullmatch(_HOST, bracketed) or len(parts.path) < 2:
        raise UsageError("the git url lacks a host or a path")
    if parts.scheme == "https":
        return Address("https", host, port, "", parts.path)
    user = parts.username or ""
    if user and not _USER.fullmatch(user):
        raise UsageError("the git url has a user name with characters that are not taken")
    return Address("ssh", host, port, user, unquote(parts.path))


def _check_credentials(settings: GitSettings, scheme: str) -> None:
    of_https = settings.token_file, settings.username, settings.password_file, settings.tls_ca_file
    of_ssh = settings.ssh_key_file, settings.known_hosts_file
    if scheme != "https" and any(of_https):
        raise UsageError("git: token_file, username, password_file and tls_ca_file are for https only; leave them out")
    if scheme != "ssh" and any(of_ssh):
        raise UsageError("git: ssh_key_file and known_hosts_file are for ssh only; leave them out")
    if scheme == "ssh" and not all(of_ssh):
        raise UsageError(
            "git over ssh needs ssh_key_file and known_hosts_file (make it with ssh-keyscan, and check it)"
        )
    if settings.token_file and settings.password_file:
        raise UsageError("git: token_file and password_file are both set; leave one out")
    if settings.password_file and not settings.username:
        raise UsageError("git: password_file needs username")
    if settings.username and not (settings.password_file or settings.token_file):
        raise UsageError("git: username needs password_file or token_file")
    if ":" in settings.username or not settings.username.isprintable():
        raise UsageError("git: username has a colon or a control character, which basic authentication cannot carry")
    if any(_BAD_IN_FILE.search(name) for name in of_ssh):
        raise UsageError("git: ssh_key_file and known_hosts_file are paths without quotes, backslashes, $ or controls")
