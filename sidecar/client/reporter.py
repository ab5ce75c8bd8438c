"""What an executor reports of the actions it carries out, signed with its own key.

    reporter = Reporter("unix:/run/sidecar.sock", executor="payments-api", key=key, chain="5d1c…")
    with reporter.acting(permits.check(brought, …)) as act:
        act.respond(bank.transfer(…), status="200")

EXECUTED is reported when the body ends, FAILED when it raises. An action that ran has run: an outcome that could not be
reported is logged, counted and handed to ``on_unreported``, and the result goes its way.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from sidecar.chain.permit import Permit
from sidecar.client.act import Act
from sidecar.client.calls import AsyncCalls, Calls
from sidecar.client.outcome import Status, Unreported, UnreportedOutcome
from sidecar.client.retry import ATTEMPTS, REAL, Pace, Patience
from sidecar.client.signing import Signer, Signing
from sidecar.client.target import check_address, check_timeout
from sidecar.client.tls import Tls

Tell = Callable[[UnreportedOutcome], object]


class Reporter:
    """Reports for one executor; serves many threads.

    ``key``: `AgentKey.from_file(path)` or any other `Signer`; None where the transport alone proves it, or nothing
    (`--dev`). ``chain``: hex, as in the trust file. ``timeout`` in seconds, ``attempts`` 1 to 100: a report that is
    repeated is recorded once. ``tls``: as the guard's, with the executor's certificate. UsageError for a bad address or
    chain.
    """

    def __init__(
        self, address: str, *, executor: str, key: Signer | None, chain: str, timeout: float = 2.0,
        attempts: int = ATTEMPTS, on_unreported: Tell | None = None, pace: Pace = REAL, tls: Tls | None = None,
    ) -> None:  # fmt: skip
        self._executor = executor
        signing = None if key is None else Signing(executor, key, chain)
        patience = Patience(check_address(address), check_timeout(timeout), attempts, pace)
        self._calls = Calls(patience, None, signing, tls)
        self._unreported = Unreported(on_unreported)

    @property
    def unreported(self) -> int:
        """How many outcomes could not be reported."""
        return self._unreported.count

    def close(self) -> None:
        """Closes the channel."""
        self._calls.close()

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def report(self, act: Act, status: Status) -> int:
        """Reports; returns the seq of the OUTCOME entry.

        Raises NoDecision when the report was not taken, or another chain than ``chain`` answered.
        """
        return int(self._calls.report(act.report(self._executor, status)).seq)

    @contextmanager
    def acting(self, permit: Permit) -> Iterator[Act]:
        """Runs the body as the action that the permit is for, and reports what became of it."""
        act = Act(permit)
        try:
            yield act
        except BaseException:  # an interrupted action has run in part: FAILED, whatever stopped it
            self._tell(act, Status.FAILED)
            raise
        self._tell(act, Status.EXECUTED)

    def blocked(self, permit: Permit) -> None:
        """Reports that the action was not begun and will not be."""
        self._tell(Act(permit, began=False), Status.BLOCKED)

    def _tell(self, act: Act, status: Status) -> None:
        act.end()
        with self._unreported.told(act.permit.decision_id, status):
            self.report(act, status)


class AsyncReporter:
    """As :class:`Reporter`, awaited; it serves the loop in which it was first used."""

    def __init__(
        self, address: str, *, executor: str, key: Signer | None, chain: str, timeout: float = 2.0,
        attempts: int = ATTEMPTS, on_unreported: Tell | None = None, pace: Pace = REAL, tls: Tls | None = None,
    ) -> None:  # fmt: skip
        self._executor = executor
        signing = None if key is None else Signing(executor, key, chain)
        patience = Patience(check_address(address), check_timeout(timeout), attempts, pace)
        self._calls = AsyncCalls(patience, signing, tls)
        self._unreported = Unreported(on_unreported)

    @property
    def unreported(self) -> int:
        """How many outcomes could not be reported."""
        return self._unreported.count

    async def close(self) -> None:
        """Closes the channel."""
        await self._calls.close()

    async def __aenter__(self) -> AsyncReporter:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def report(self, act: Act, status: Status) -> int:
        """As `Reporter.report`."""
        return int((await self._calls.report(act.report(self._executor, status))).seq)

    @asynccontextmanager
    async def acting(self, permit: Permit) -> AsyncIterator[Act]:
        """As `Reporter.acting`."""
        act = Act(permit)
        try:
            yield act
        except BaseException:  # a cancelled action has run in part: FAILED, whatever stopped it
            await self._tell(act, Status.FAILED)
            raise
        await self._tell(act, Status.EXECUTED)

    async def blocked(self, permit: Permit) -> None:
        """As `Reporter.blocked`."""
        await self._tell(Act(permit, began=False), Status.BLOCKED)

    async def _tell(self, act: Act, status: Status) -> None:
        act.end()
        await self._unreported.sent(lambda: self.report(act, status), act.permit.decision_id, status)
