"""Following the policy's source: what is found there is examined, and put in force or refused; on record either way.

    source ─► examine (trust, gate) ─► engine made ─► POLICY entry durable ─► in force
                     └► refused: POLICY entry, and what was in force stays

Nothing here ever takes a policy out of force: a source that cannot be reached, a policy that is refused and an engine
that does not come up leave everything as it was. How long that may go on is `in_force.Staleness`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import random
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from sidecar.decide.entries import Origin
from sidecar.decide.in_force import InForce
from sidecar.decide.registered import Registered
from sidecar.errors import EngineError, LedgerError, PolicyLoadError, PolicySourceError, SidecarError
from sidecar.policy import BuiltPolicy, Candidate, Commit, Engine, Examined, Refused, Source, refusal

log = logging.getLogger("sidecar.policy")

_CHANCE: Final = random.SystemRandom()
Examine = Callable[[Candidate], Awaitable[Examined]]
Build = Callable[[BuiltPolicy], Engine]


class Counted(Protocol):
    """Who counts what came of looking at the source; must neither block nor raise."""

    def policy_event(self, event: str) -> None:
        """``event``: activated, refused, unreachable or failed."""
        ...


@dataclass(frozen=True, slots=True)
class Period:
    """``period``: seconds between two looks, each taken off or added up to ``jitter`` (0 to 1) of it."""

    period: float = 60.0
    jitter: float = 0.2

    def __post_init__(self) -> None:
        if not self.period > 0 or not 0 <= self.jitter <= 1:
            raise ValueError("the period must be above 0 and the jitter from 0 to 1")

    def pause(self, chance: float) -> float:
        """Seconds until the next look; ``chance`` from 0 to 1."""
        return self.period * (1 + self.jitter * (2 * chance - 1))


class Follower:
    """``kind``: of the source, as POLICY entries have it. ``build`` makes an engine; it may block: it has a thread.

    ``registry_elsewhere``: a registry that comes with a policy is checked and not used.
    """

    def __init__(
        self,
        source: Source,
        kind: str,
        examine: Examine,
        build: Build,
        in_force: InForce,
        counted: Counted,
        period: Period | None = None,
        *,
        registry_elsewhere: bool = False,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        chance: Callable[[], float] = _CHANCE.random,
    ) -> None:
        self._source, self._kind, self._examine, self._build = source, kind, examine, build
        self._in_force, self._counted, self._period = in_force, counted, period or Period()
        self._sleep, self._chance = sleep, chance
        self._registry_elsewhere = registry_elsewhere
        self._seen = ""
        self._refused: tuple[str, str] | None = None
        self.cause = ""

    async def follow(self, *, at_once: bool = False) -> None:
        """Look again and again, until cancelled. Whatever goes wrong is logged, counted, and tried again."""
        while True:
            if not at_once:
                await self._sleep(self._period.pause(self._chance()))
            at_once = False
            told = self.cause
            try:
                if not await self.look() and self.cause != told:
                    log.error("no new policy comes into force: what the source holds is refused: %s", self.cause)
            except SidecarError as error:
                log.warning("no new policy comes into force: %s", error)
            except Exception as error:  # or nobody would ever look again
                self._counted.policy_event("failed")
                log.error("no new policy comes into force: looking for one failed (%s)", type(error).__name__)

    async def look(self) -> bool:
        """Look once. Gives whether what is there is in force now; `cause` says why not.

        Raises:
            PolicySourceError: the source cannot be reached. EngineError, PolicyLoadError: the engine did not come up
            with the policy. LedgerError: it could not be recorded.
        """
        current = self._in_force.current
        try:
            candidate = await _looked(self._source, self._seen, current.revision if current else "")
        except PolicySourceError:
            self._counted.policy_event("unreachable")
            raise
        except Refused as error:
            await self._refuse(error.revision, None, refusal("source", error))
            return False
        if candidate is not None:
            await self._take(candidate)
        self._in_force.synced()
        return self._refused is None

    async def _take(self, candidate: Candidate) -> None:
        examined = await self._examine(candidate)
        if examined.bundle is None:
            await self._refuse(candidate.revision, candidate.commit, examined)
        else:
            await self._activate(candidate, examined, examined.bundle)
        self._seen = candidate.revision

    async def _activate(self, candidate: Candidate, examined: Examined, bundle: BuiltPolicy) -> None:
        self._refused, self.cause = None, ""
        current = self._in_force.current
        registry = self._registered(candidate, examined)
        known = self._in_force.registry
        same_registry = registry is None or (known is not None and known.read.digest == registry.read.digest)
        if current is not None and current.bundle_digest == bundle.digest and same_registry:
            return
        origin = self._origin(candidate.commit, examined)
        try:
            engine = await asyncio.to_thread(self._build, bundle)
            await self._in_force.put_in_force(engine, bundle.packed, origin, registry=registry)
        except (EngineError, PolicyLoadError, LedgerError):
            self._counted.policy_event("failed")
            raise
        self._counted.policy_event("activated")
        log.info("policy revision %s is in force, bundle %s", candidate.revision, bundle.digest)

    def _registered(self, candidate: Candidate, examined: Examined) -> Registered | None:
        """The registry that comes into force with the policy, unless it is kept elsewhere."""
        if examined.registry is None or self._registry_elsewhere:
            return None
        return Registered(examined.registry, self._kind, self._source.place, candidate.revision)

    async def _refuse(self, revision: str, commit: Commit | None, examined: Examined) -> None:
        """On record once, however often it is found again."""
        self.cause = f"revision {revision or 'unknown'}: {examined.cause}"
        if self._refused != (revision, examined.cause):
            await self._in_force.refuse(revision, self._origin(commit, examined))
            self._refused = revision, examined.cause
            self._counted.policy_event("refused")
        self._in_force.synced()

    def _origin(self, commit: Commit | None, examined: Examined) -> Origin:
        return Origin(
            self._kind,
            self._source.place,
            None if commit is None else _said(commit),
            None if examined.signer is None else dataclasses.asdict(examined.signer),
            examined.steps,
            examined.impure_builtins,
        )


async def _looked(source: Source, seen: str, active: str) -> Candidate | None:
    """`Source.look` on a thread of its own, which nobody waits for when the sidecar ends: it may hang for a while."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Candidate | None] = loop.create_future()

    def settle(found: Candidate | None, error: Exception | None) -> None:
        if answer.done():  # nobody waits any more
            return
        if error is None:
            answer.set_result(found)
        else:
            answer.set_exception(error)

    def look() -> None:
        found, trouble = None, None
        try:
            found = source.look(seen, active)
        except Exception as error:
            trouble = error
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, found, trouble)

    threading.Thread(target=look, name="policy-source", daemon=True).start()
    return await answer


def _said(commit: Commit) -> dict[str, Any]:
    names = ("id", "author", "committer", "authored", "committed", "subject")
    return {name: getattr(commit, name) for name in names}
