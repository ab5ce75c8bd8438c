"""The executor's check of a permit: alone, offline, with the chain's id and identity key (proto/SIGNING.md, "Permit").

    permits = PermitCheck(chain="5d1c…", identity="8e02…", executor="payments-api")
    permit = permits.check(brought, "payments.transfer", ("account", to), arguments)   # raises, or: act, once

The chain's id and key are in the trust file; take them from there, never from whoever brings a permit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

from sidecar.chain.digests import arguments_digest, target_digest
from sidecar.chain.permit import Permit
from sidecar.chain.statement import is_principal
from sidecar.client.refusals import one_line
from sidecar.client.taken import Taken, TakenInFile, TakenInMemory
from sidecar.client.wire import encode_object
from sidecar.errors import Malformed, SidecarError, SignatureInvalid, UsageError

PermitCause = Literal["forged", "executor", "target", "arguments", "expired", "used", "full", "store"]
REMEMBERED: Final = 100_000


class PermitRefused(SidecarError):
    """What was brought is no leave to act. Do not act.

    ``cause`` is a stable word: "forged" (not a permit of this chain's identity key, or of another chain), "executor"
    (for another one), "target" (for another action or resource), "arguments" (for others), "expired", "used" (taken
    before), "full" (more permits are remembered than memory was given for), "store" (the file of what was taken
    cannot be read or written, so that nobody knows).
    """

    def __init__(self, cause: PermitCause, message: str) -> None:
        super().__init__(f"permit refused: {message}")
        self.cause = cause


class PermitCheck:
    """Checks permits for one executor, and takes each once.

    ``chain`` and ``identity``: hex, as in the trust file. ``remember``: the most permits that may be taken and not yet
    expired, from 1; beyond it every further one is refused. ``now``: the wall clock in ns. Serves many threads.

    What was taken is remembered in this object alone, unless ``store`` names a file: all processes of the executor on
    one host that name it take each permit once between them, also after a restart. Without it each could take a permit
    that has not expired; only one of their outcomes will be recorded.

    Raises:
        UsageError: a chain or key that is not 32 bytes in hex, an executor's id that none can have, a file that cannot
            be had.
    """

    def __init__(
        self, *, chain: str, identity: str, executor: str, remember: int = REMEMBERED,
        now: Callable[[], int] = time.time_ns, store: str | Path | None = None,
    ) -> None:  # fmt: skip
        self._chain, self._identity = _bytes32("chain", chain), _bytes32("identity", identity)
        if not is_principal(executor):
            raise UsageError("executor: is not the id of a principal")
        if remember < 1:
            raise UsageError("remember: must be at least 1")
        self._executor, self._remember, self._now = executor, remember, now
        self._taken: Taken = TakenInMemory(remember) if store is None else TakenInFile(Path(store), remember)

    def check(
        self, permit: bytes, action: str, resource: tuple[str, str], arguments: bytes | Mapping[str, Any]
    ) -> Permit:
        """Take a permit for this very action; whoever gets it back may begin now, once.

        ``arguments``: the JSON text as the agent sent it to the sidecar, byte for byte; a mapping is written as `Guard`
        writes it.

        Raises:
            PermitRefused: do not act. RequestError: the arguments are not JSON.
        """
        read = self._read(permit)
        text = arguments if isinstance(arguments, bytes) else encode_object("arguments", arguments)
        if read.executor != self._executor:
            raise PermitRefused("executor", f"it is for {one_line(read.executor)}, not for {self._executor}")
        if read.target != _target(action, resource):
            raise PermitRefused("target", f"it is for another action or resource than {one_line(action)}")
        if read.arguments != arguments_digest(text):
            raise PermitRefused("arguments", "it is for other arguments")
        self._take(read)
        return read

    def _read(self, permit: bytes) -> Permit:
        try:
            return Permit.open(permit, self._chain, self._identity)
        except (Malformed, SignatureInvalid) as error:
            raise PermitRefused("forged", f"not a permit of this chain: {one_line(str(error))}") from None

    def _take(self, permit: Permit) -> None:
        taking = self._taken.take(permit.decision_id, permit.not_after, self._now())
        if taking == "expired":
            raise PermitRefused("expired", "it has expired; the agent asks again")
        if taking == "used":
            raise PermitRefused("used", f"that of decision {one_line(permit.decision_id)} was taken before")
        if taking == "full":
            raise PermitRefused("full", f"{self._remember} permits are taken and not expired; give it more memory")
        if taking != "taken":
            raise PermitRefused("store", "the file of what was taken cannot be read or written; see to it")


def _target(action: str, resource: tuple[str, str]) -> bytes | None:
    try:
        return target_digest(action, *resource)
    except UnicodeEncodeError:  # a lone surrogate: no such thing was ever asked
        return None


def _bytes32(field: str, value: str) -> bytes:
    try:
        raw = bytes.fromhex(value)
    except ValueError:
        raw = b""
    if len(raw) != 32 or raw.hex() != value:
        raise UsageError(f"{field}: must be 32 bytes in lower-case hex, as in the trust file")
    return raw
