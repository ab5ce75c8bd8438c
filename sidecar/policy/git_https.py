"""git over https (gitprotocol-http(5)): one server, two addresses at it, and credentials for nobody else.

The server's certificate must lead to one of the system's authorities, or to those of ``tls_ca_file``.
"""

from __future__ import annotations

import base64
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import urllib3
from urllib3.exceptions import HTTPError, NameResolutionError, NewConnectionError, SSLError

from .git_errors import Unreachable, one_line
from .git_settings import GitSettings

# Servers that take a token as a password do not look at the name with it.
_NAME_WITH_TOKEN: Final = "x-access-token"  # noqa: S105 - no password
_BEFORE_CAUSE: Final = re.compile(r"^.*: (\[Errno -?\d+\] )?")
_MOST_SECRET: Final = 8192
_STATUS: Final = {
    403: "the server forbids this repository (403) to {who}; check the credentials",
    404: "the server has no such repository (404), or does not show it to {who}; check the url and the credentials",
    407: "a proxy asks for credentials; reach the server without one",
    429: "the server turns requests away (429); look less often",
}


def https_client(settings: GitSettings) -> tuple[Any, str, Callable[[Exception], Unreachable]]:
    """A client, the repository's path, and what explains its errors. Raises `Unreachable` for files it cannot read."""
    from dulwich.client import Urllib3HttpGitClient

    proof = authorization(settings)
    url = settings.url.rstrip("/")
    client = Urllib3HttpGitClient(url, pool_manager=_Door(url, proof, context_of(settings)), thin_packs=False)
    hidden = [proof, proof.removeprefix("Basic "), _secret_of(settings)] if proof else []
    return client, "", lambda error: _without(_explain(error), hidden)


def _without(error: Unreachable, hidden: list[str]) -> Unreachable:
    """The error without what a server may have said back to us."""
    said = str(error)
    for secret in hidden:
        said = said.replace(secret, "***")
    return Unreachable(said)


def authorization(settings: GitSettings) -> str:
    """The header's value as the files are now (RFC 7617, UTF-8); "" for no credentials."""
    secret = _secret_of(settings)
    user = settings.username or _NAME_WITH_TOKEN
    return "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode() if secret else ""


def _secret_of(settings: GitSettings) -> str:
    if settings.token_file:
        return _secret(settings.token_file, "token_file")
    return _secret(settings.password_file, "password_file") if settings.password_file else ""


def _secret(file: str, name: str) -> str:
    try:
        with Path(file).open("rb") as stream:
            raw = stream.read(_MOST_SECRET + 1)
        text = raw.decode().rstrip("\r\n")
    except OSError as error:
        raise Unreachable(f"{name} {file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Unreachable(f"{name} {file} is not text") from None
    if not text or len(raw) > _MOST_SECRET or not text.isprintable():
        raise Unreachable(f"{name} {file} is empty or holds more than one line; write the secret into it, alone")
    return text


def context_of(settings: GitSettings) -> ssl.SSLContext:
    """How servers are verified: by ``tls_ca_file``, else by what this machine knows. Raises `Unreachable`."""
    file = settings.tls_ca_file
    try:
        return ssl.create_default_context(cafile=file or None)
    except (OSError, ssl.SSLError) as error:
        why = "" if isinstance(error, ssl.SSLError) else f": {error.strerror}"
        raise Unreachable(f"tls_ca_file {file} cannot be read as PEM certificates{why}") from None


class _Door(urllib3.PoolManager):
    """Lets requests through to the two addresses of one repository, and explains what comes instead of an answer.

    Anything else, be it a redirection, a "dumb" server's files or a pack the server wants fetched elsewhere, would let
    the server choose who is asked.
    """

    def __init__(self, url: str, proof: str, context: ssl.SSLContext) -> None:
        headers = {"User-Agent": "git/decision-sidecar", **({"Authorization": proof} if proof else {})}
        super().__init__(headers=headers, ssl_context=context)
        self._named = bool(proof)
        self._open = {f"{url}/info/refs?service=git-upload-pack", f"{url}/git-upload-pack"}

    def request(self, method: str, url: str, *args: Any, **more: Any) -> Any:
        if url not in self._open:
            raise Unreachable(
                "the server does not speak git's smart protocol, or sends to another address; check the url"
            )
        try:
            response = super().request(method, url, *args, **{**more, "redirect": False, "retries": False})
        except HTTPError as error:
            raise _explain(error) from None
        if response.status != 200:
            response.close()
            raise self._turned_away(response.status)
        if not response.headers.get("Content-Type", "").startswith("application/x-git-upload-pack-"):
            response.close()
            raise Unreachable("what answers there is not a git server with the smart protocol; check the url")
        return response

    def _turned_away(self, status: int) -> Unreachable:
        if status == 401 and not self._named:
            return Unreachable("the server asks for credentials (401); name a token_file or password_file")
        if status == 401:
            return Unreachable("the server refuses the credentials (401); renew what is in token_file or password_file")
        if 300 <= status < 400:
            return Unreachable(
                f"the server sends to another address ({status}); write the address it sends to as the url"
            )
        said = _STATUS.get(status, "the server answers with HTTP status {status}; try again later")
        who = "whoever these credentials are for" if self._named else "callers without credentials"
        return Unreachable(said.format(who=who, status=status))


def _explain(error: Exception) -> Unreachable:
    from .git_remote import protocol_trouble

    if isinstance(error, Unreachable):
        return error
    chain = error.__cause__ if isinstance(error.__cause__, HTTPError) else error
    if isinstance(chain, SSLError):
        inner = chain.args[0] if chain.args else chain
        if isinstance(inner, ssl.SSLCertVerificationError):
            return Unreachable(
                f"the server's certificate is not trusted: {one_line(inner.verify_message)}; "
                "name its authority with tls_ca_file, or correct the url"
            )
        return Unreachable(f"no TLS connection came about: {one_line(str(inner))}")
    if isinstance(chain, NameResolutionError):
        return Unreachable("the server's name cannot be resolved; check the url and DNS")
    if isinstance(chain, NewConnectionError):
        return Unreachable(f"the server cannot be reached: {_BEFORE_CAUSE.sub('', one_line(str(chain)))}")
    if isinstance(chain, HTTPError):
        return Unreachable(f"the connection to the server broke: {one_line(str(chain))}")
    return protocol_trouble(error)
