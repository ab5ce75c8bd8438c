"""The production engine: a running OPA, asked over its REST API (OPA's documentation, "REST API", Data API).

Reach it by a unix socket that the agent cannot open, or give OPA authentication: an agent that shares loopback with
an open OPA can change the policy. Every question asks for provenance, so that the revision is the one OPA answered
under, and for strict built-in errors, so that a failing built-in is an error and not an undefined rule.

`opa-python-client` 3.0 does the talking. What this file adds around it: one deadline over the whole call, a bound
on the answer's size, no retries (they cost more than a decision may take), unix sockets, and every exception
mapped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from opa_client.opa_async import AsyncOpaClient  # type: ignore[import-untyped]

from sidecar.errors import EngineError, EngineTimeout, EngineUnavailable, PolicyUndefined, UsageError

from .document import MAX_RESULT_BYTES, check_result, decode_answer, encode_input
from .engine import READY_PROBE, READY_TIMEOUT, Evaluation, PolicyVersion, check_entrypoint

_QUERY: Final = {"provenance": "true", "strict-builtin-errors": "true"}
_HEALTH: Final = {"bundles": "true"}
_MAX_ERROR_BYTES: Final = 64 << 10


class OpaEngine:
    """Asks a running OPA. Built anywhere; the first question binds it to the running event loop."""

    def __init__(self, address: str, entrypoint: str, *, token: str = "") -> None:
        """``address`` is ``http://host:port`` or ``unix:/path``; ``token`` is sent as a bearer token if not empty.

        Raises `UsageError` for an address or an entry point that is none.
        """
        check_entrypoint(entrypoint)
        self._client = _client(address, token)
        self._address = address
        self._entrypoint = entrypoint
        self._version = PolicyVersion("opa", "", entrypoint, "", "")
        self._learnt: object = None
        self._closed = False

    @property
    def version(self) -> PolicyVersion:
        """What OPA said with its last answer; engine version and revision are "" before the first."""
        return self._version

    async def evaluate(self, document: dict[str, Any], timeout: float) -> Evaluation:
        """See `Engine.evaluate`."""
        answer = await self._within(timeout, self._query(document))
        if not isinstance(answer, dict):
            raise EngineError("OPA's answer is not an object; is something else listening there?")
        self._learn(answer.get("provenance"))
        if "result" not in answer:
            raise PolicyUndefined(
                f"OPA has no value for {self._entrypoint}; load the policy and give the entry point a default rule"
            )
        return Evaluation(check_result(answer["result"]), self._version)

    async def ready(self) -> None:
        """See `Engine.ready`. Asks OPA's health, bundles included, then the entry point."""
        if not await self._within(READY_TIMEOUT, self._health()):
            raise EngineUnavailable(f"OPA at {self._address} is not healthy; start it or wait for its bundles")
        await self.evaluate(READY_PROBE, READY_TIMEOUT)

    async def close(self) -> None:
        """See `Engine.close`."""
        self._closed = True
        await self._client.close_connection()

    async def _query(self, document: dict[str, Any]) -> object:
        return await self._client.query_rule(document, self._entrypoint, query_params=_QUERY)

    async def _health(self) -> bool:
        return bool(await self._client.check_health(query=_HEALTH))

    async def _within(self, timeout: float, question: Any) -> Any:
        """Await ``question`` for at most ``timeout`` seconds, every exception mapped to an `EngineError`."""
        try:
            async with asyncio.timeout(timeout):
                if self._closed:
                    raise EngineUnavailable("the policy engine is closed")
                await self._client.open_connection()
                return await question
        except EngineError:
            raise
        except TimeoutError:
            raise EngineTimeout(f"OPA at {self._address} did not answer in time") from None
        except (aiohttp.ClientConnectionError, OSError) as error:
            raise EngineUnavailable(
                f"OPA at {self._address} cannot be reached ({type(error).__name__}); is it running?"
            ) from None
        except Exception as error:
            raise EngineError(f"OPA at {self._address} did not answer as OPA does ({type(error).__name__})") from None
        finally:
            question.close()

    def _learn(self, provenance: object) -> None:
        if provenance == self._learnt and provenance is not None:
            return
        self._learnt = provenance
        known = provenance if isinstance(provenance, dict) else {}
        self._version = PolicyVersion("opa", _line(known.get("version")), self._entrypoint, _revision(known), "")


class _Client(AsyncOpaClient):  # type: ignore[misc]  # the library is untyped
    """The library's client on a session of ours: its own knows only TCP, has no bound and drops errors' bodies."""

    def __init__(self, host: str, port: int, socket: str, token: str) -> None:
        super().__init__(host=host, port=port, token=token or None, retries=0)
        self._socket = socket

    async def open_connection(self) -> None:
        if self._session is None or self._session.closed:
            await self._init_session()

    def _request(self, method: str, url: str, **options: Any) -> Any:
        """A redirect would carry the question to somewhere nobody configured."""
        return super()._request(method, url, allow_redirects=False, **options)

    async def _init_session(self) -> None:
        connector = aiohttp.UnixConnector(self._socket) if self._socket else aiohttp.TCPConnector()
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers={**(self.headers or {}), "Accept-Encoding": "identity"},
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None),  # the deadline is over the whole call, in `_within`
            json_serialize_bytes=encode_input,
            response_class=_BoundedResponse,
            raise_for_status=_raise_for_status,
        )


class _BoundedResponse(aiohttp.ClientResponse):
    """A response whose JSON is read within a bound and parsed strictly."""

    async def json(self, **_: Any) -> Any:
        return decode_answer(await _read(self, MAX_RESULT_BYTES))


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > limit:
            raise EngineError(f"OPA answered more than {limit} bytes")
    return bytes(body)


async def _raise_for_status(response: aiohttp.ClientResponse) -> None:
    """Tell by OPA's own error codes what went wrong. Its messages are left out: they can quote the input."""
    if response.status == 200:
        return
    codes = _error_codes(await _read(response, _MAX_ERROR_BYTES))
    if response.status in (401, 403):
        raise EngineError(f"OPA refused the question with {response.status}; give the sidecar OPA's token")
    raise EngineError(f"OPA answered {response.status}{codes and ': ' + codes}; see OPA's log")


def _error_codes(body: bytes) -> str:
    try:
        answer = decode_answer(body)
    except EngineError:
        return ""
    if not isinstance(answer, dict):
        return ""
    errors = answer.get("errors")
    found = [answer, *(errors if isinstance(errors, list) else [])]
    return ", ".join(_place(error) for error in found[:4] if isinstance(error, dict))


def _place(error: Mapping[str, Any]) -> str:
    """An error's code and where in the policy it happened."""
    location = error.get("location")
    code = _line(error.get("code"))
    if not isinstance(location, dict):
        return code
    return f"{code} at {_line(location.get('file'))}:{_line(str(location.get('row', '')))}"


def _revision(provenance: Mapping[str, Any]) -> str:
    """The bundle's revision; of several bundles ``name=revision`` each, in the order of their names."""
    bundles = provenance.get("bundles")
    if not isinstance(bundles, dict):
        return _line(provenance.get("revision"))
    revisions = {
        str(name): _line(bundle.get("revision")) for name, bundle in sorted(bundles.items()) if isinstance(bundle, dict)
    }
    if len(revisions) == 1:
        return next(iter(revisions.values()))
    return _line(";".join(f"{name}={revision}" for name, revision in revisions.items()))


def _line(value: object) -> str:
    """A short printable text, or "" for anything else: these go into entries and messages."""
    return value[:256] if isinstance(value, str) and value.isprintable() else ""


def _client(address: str, token: str) -> _Client:
    if not token.isascii() or (token and not token.isprintable()):
        raise UsageError("OPA's token is not one line of ASCII")
    if address.startswith("unix:"):
        path = address.removeprefix("unix:")
        if not path.startswith("/") or len(path.encode()) > 107:
            raise UsageError(f"OPA's address {address!r}: a unix socket is unix:/absolute/path of at most 107 bytes")
        return _Client("localhost", 80, path, token)
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or parts.scheme != "http" or parts.path not in ("", "/") or parts.query or parts.username:
        raise UsageError(f"OPA's address {address!r} is neither http://host:port nor unix:/path")
    return _Client(f"[{host}]" if ":" in host else host, port, "", token)
