"""An engine that starts an OPA of its own, or has it started elsewhere (`opa_room`), and keeps it running.

    start ─► answers its health question? ─► serves ─► ended, or silent for `hung_after` ─► kill, wait, start again

Each run of OPA has a directory, a socket and a client of its own (`opa_process`), so that nothing of a run that ended
reaches the next. While none serves, evaluating raises `EngineUnavailable` at once, and that becomes a DENY. Who could
reach the socket still lacks the token (`opa_guard`). A process with the sidecar's own user id is not kept out of
anything: it can read this process's memory. Run the agent under another.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from sidecar.errors import EngineError, EngineUnavailable, SidecarError

from .engine import READY_TIMEOUT, Evaluation, PolicyVersion, check_entrypoint
from .opa import OpaEngine, TraceParent
from .opa_guard import Guarded, guard_bundle
from .opa_process import OpaProcess, opa_process
from .opa_program import BuiltPolicy, OpaProgram

log = logging.getLogger("sidecar.opa")

_LOOK_EVERY: Final = 0.02  # seconds, while OPA starts
_CHANCE: Final = random.SystemRandom()
Start = Callable[[Guarded], AbstractAsyncContextManager[OpaProcess]]


@dataclass(frozen=True, slots=True)
class Pace:
    """How patient the supervision is; all in seconds, above 0.

    ``probe_every``: between two health questions. ``hung_after``: without an answer to one for so long, OPA is killed.
    ``start_within``: until it must have answered the first. ``first_delay``, doubled with each failure up to
    ``longest_delay``: before it is started again; a run of ``longest_delay`` makes the failures before it forgotten.
    """

    probe_every: float = 1.0
    hung_after: float = 5.0
    start_within: float = 30.0
    first_delay: float = 0.1
    longest_delay: float = 10.0

    def __post_init__(self) -> None:
        if min(self.probe_every, self.hung_after, self.start_within, self.first_delay) <= 0:
            raise ValueError("every time of Pace must be above 0")
        if self.longest_delay < self.first_delay:
            raise ValueError("longest_delay must not be below first_delay")

    def delay(self, failures: int, chance: float) -> float:
        """Seconds to wait after so many failures in a row (from 1); ``chance`` from 0 to 1 takes off up to half."""
        full = self.first_delay * 2.0 ** min(failures - 1, 60)
        return min(self.longest_delay, full) * (1 - chance / 2)


class SupervisedOpa:
    """See `Engine`. Built anywhere; the first question starts OPA on the running event loop.

    That loop's thread must live as long as the engine: the kernel ends OPA with the thread that started it.
    """

    def __init__(
        self,
        program: OpaProgram,
        policy: BuiltPolicy,
        entrypoint: str,
        *,
        start: Start | None = None,
        pace: Pace | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        monotonic: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = _CHANCE.random,
        trace_parent: TraceParent = lambda: "",
    ) -> None:
        """``start``: runs an OPA with a guarded bundle; without it, this process does. ``trace_parent``: as
        `OpaEngine`'s. Raises `UsageError` for an entry point that is none.
        """
        check_entrypoint(entrypoint)
        self._start = start or partial(opa_process, program)
        self._guarded = guard_bundle(policy.packed, entrypoint)
        self._program = program
        self._pace = pace or Pace()
        self._trace_parent = trace_parent
        self._sleep, self._monotonic, self._chance = sleep, monotonic, chance
        self._version = PolicyVersion("opa", program.version, entrypoint, self._guarded.revision, policy.digest)
        self._task: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()  # the first start has succeeded or failed
        self._serving: tuple[OpaEngine, OpaProcess] | None = None
        self._closed = False

    @property
    def version(self) -> PolicyVersion:
        """What OPA said with its last answer; before that, what is known of the program and the bundle."""
        return self._version

    @property
    def process(self) -> OpaProcess | None:
        """The OPA that answers now, or None while none does."""
        return self._serving[1] if self._serving else None

    async def evaluate(self, document: dict[str, Any], timeout: float) -> Evaluation:
        """See `Engine.evaluate`. Does not wait for an OPA that is being started."""
        answer = await self._current().evaluate(document, timeout)
        self._version = replace(answer.version, bundle_digest=self._version.bundle_digest)
        return Evaluation(answer.result, self._version)

    async def ready(self) -> None:
        """See `Engine.ready`. Waits for the very first start, at most 2 seconds; never for a later one."""
        self._begin()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_TIMEOUT):
                await self._tried.wait()
        await self._current().ready()

    async def close(self) -> None:
        """See `Engine.close`. Afterwards OPA is gone, and so is its directory."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def _begin(self) -> None:
        if self._closed:
            raise EngineUnavailable("the policy engine is closed")
        if self._task is None:
            self._task = asyncio.create_task(self._supervise())

    def _current(self) -> OpaEngine:
        self._begin()
        if self._serving is None:
            raise EngineUnavailable("OPA is not running; the sidecar is starting it, see its log")
        return self._serving[0]

    async def _supervise(self) -> None:
        failures = 0
        while True:
            began = self._monotonic()
            trouble = await self._one_run()
            self._tried.set()
            if self._closed:  # what went wrong while it was being ended
                return
            failures = 1 if self._monotonic() - began >= self._pace.longest_delay else failures + 1
            delay = self._pace.delay(failures, self._chance())
            log.error("OPA %s; starting it again in %.2f s", trouble, delay)
            await self._sleep(delay)

    async def _one_run(self) -> str:
        """Start OPA and stay with it to its end. Returns what ended it, in words for the log."""
        try:
            async with contextlib.AsyncExitStack() as stack:
                process = await stack.enter_async_context(self._start(self._guarded))
                token, under = self._guarded.token, self._trace_parent
                engine = OpaEngine(process.address, self._version.entrypoint, token=token, trace_parent=under)
                stack.push_async_callback(engine.close)
                return await self._stay(engine, process)
        except (OSError, SidecarError) as error:
            return f"could not be started ({type(error).__name__}: {error})"
        except Exception as error:  # whatever it was: without this loop no decision would ever be made again
            return f"could not be kept running ({type(error).__name__})"

    async def _stay(self, engine: OpaEngine, process: OpaProcess) -> str:
        if not await self._comes_up(process):
            return _end(process) or f"did not come up in {self._pace.start_within:g} s"
        process.loaded = True
        self._serving = engine, process
        self._tried.set()
        log.info("OPA %s serves the policy, %s", self._program.version, process.told)
        try:
            await self._until_silent(process)
        finally:
            self._serving = None
        return _end(process) or f"did not answer for {self._pace.hung_after:g} s"

    async def _comes_up(self, process: OpaProcess) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._pace.start_within):
                while not process.ended.done():
                    if await self._alive(process, self._pace.start_within):
                        return True
                    await asyncio.sleep(_LOOK_EVERY)
        return False

    async def _until_silent(self, process: OpaProcess) -> None:
        """Return when OPA has ended, or was asked again and again for ``hung_after`` and never said it is well."""
        heard = self._monotonic()
        while self._monotonic() - heard < self._pace.hung_after:
            await asyncio.wait({process.ended}, timeout=self._pace.probe_every)
            if process.ended.done():
                return
            if await self._alive(process, self._pace.hung_after):
                heard = self._monotonic()

    async def _alive(self, process: OpaProcess, timeout: float) -> bool:
        """Whether OPA takes a new connection and says within ``timeout`` seconds that it is well."""
        probe = Probe(process.address, self._version.entrypoint, token=self._guarded.token)
        try:
            return await probe.healthy(timeout)
        except EngineError:
            return False
        finally:
            await probe.close()


class Probe(OpaEngine):
    """A client for one question: nothing of the policy is evaluated."""

    async def healthy(self, timeout: float) -> bool:
        """Whether it answers within so many seconds. Raises EngineError."""
        return bool(await self._within(timeout, self._health()))


def _end(process: OpaProcess) -> str:
    """How OPA ended, in words; empty while it runs."""
    if not process.ended.done():
        return ""
    status = process.ended.result()
    return f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
