"""Which policies may decide: those that a POLICY entry has put in force, durably, before they could.

    engine ready ─► POLICY entry and bundle durable ─► engine asked from now on ─► the one before: drained, closed

A decision already under way when the policy changes is finished by the policy it was begun with, and its entry says so.
An answer by any other revision is no decision. Where somebody else feeds OPA, what it reports is recorded first
(``observed``), and only then decides.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sidecar.chain.entry import EntryType
from sidecar.decide import entries
from sidecar.decide.entries import Origin
from sidecar.decide.registered import Registered, refused
from sidecar.errors import EngineError, PolicyLoadError, PolicyNotActive, PolicyStale, SidecarError
from sidecar.ledger import Draft, Ledger
from sidecar.policy import Engine, PolicyVersion, Switch

READY_WITHIN = 30.0  # seconds for a new engine to be ready to decide
_LOOK_EVERY = 0.02

Identity = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class Staleness:
    """How long the policy's source may go without being asked with success, in seconds; 0: for ever.

    ``deny``: when it is longer, every decision is a DENY; else it is only said.
    """

    limit: float = 0.0
    deny: bool = False

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise ValueError("the greatest staleness must not be below 0")


class InForce:
    """The policies that may decide now. Used on the event loop's thread alone."""

    def __init__(
        self,
        switch: Switch,
        ledger: Ledger,
        staleness: Staleness = Staleness(),
        *,
        observing: Origin | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        age: float = 0.0,
        on_sync: Callable[[], object] = lambda: None,
        further: Callable[[], None] = lambda: None,
    ) -> None:
        """``observing``: somebody else feeds the engine; what it reports is put on record with this origin. ``age``:
        seconds since the source was asked with success by a run before this one; ``on_sync`` hears when it is now.
        ``further``: raises EngineError where no decision may be made for another reason than the policy's age.
        """
        self._further = further
        self._switch, self._ledger, self._staleness = switch, ledger, staleness
        self._observing, self._monotonic, self._on_sync = observing, monotonic, on_sync
        self._admitted: dict[Identity, Sequence[str]] = {}  # and the built-ins that are not pure
        self._current: PolicyVersion | None = None
        self._registry: Registered | None = None
        self._recent: list[str] = []  # digests that the last two REGISTRY entries handed to the ledger name
        self._pairs: dict[Identity, str] = {}  # policies that came with a registry: its digest
        self._synced = monotonic() - age
        self._one_at_a_time = asyncio.Lock()

    @property
    def current(self) -> PolicyVersion | None:
        """The policy last put in force, or None."""
        return self._current

    @property
    def registry(self) -> Registered | None:
        """The registry in force, or None."""
        return self._registry

    def goes_with(self, version: PolicyVersion, registry: Registered | None) -> bool:
        """Whether a decision by this policy, recorded now, may be about who this registry says.

        Not where the two came apart, and not by a registry before the last two: verifiers know no older one.
        """
        due = self._pairs.get(_identity(version))
        if registry is None:
            return due is None
        return self.knows(registry) and due in (None, registry.read.digest)

    def knows(self, registry: Registered | None) -> bool:
        """Whether an entry recorded now may be about who this registry says: it is one of the last two, or none was."""
        return registry is None or registry.read.digest in self._recent

    async def put_registry(self, registry: Registered) -> None:
        """Let ``registry`` say who the principals are from now on. Raises LedgerError: it could not be recorded."""
        async with self._one_at_a_time:
            self._note(registry)
            await self._ledger.record(registry.draft(self._registry))
            self._registry = registry

    def _note(self, registry: Registered) -> None:
        """It is handed to the ledger now."""
        kept = [digest for digest in self._recent if digest != registry.read.digest]
        self._recent = [*kept, registry.read.digest][-2:]

    async def refuse_registry(self, kind: str, place: str, cause: str) -> None:
        """Put on record that a registry was found and not put in force. Raises LedgerError."""
        await self._ledger.record(refused(kind, place, cause, self._registry))

    @property
    def age(self) -> float:
        """Seconds since the policy's source was last asked with success."""
        return self._monotonic() - self._synced

    def synced(self) -> None:
        """The source was asked, and what it holds is in force or was refused."""
        self._synced = self._monotonic()
        self._on_sync()

    def check_fresh(self) -> None:
        """Raises EngineError where no decision may be made, for want of a look at the source or another."""
        self._further()
        if self._staleness.deny and self.stale:
            raise PolicyStale("the policy's source could not be asked for too long; mend its reachability")

    @property
    def stale(self) -> bool:
        """Whether the source has not been asked with success for longer than is allowed."""
        return bool(self._staleness.limit) and self.age > self._staleness.limit

    async def check(self, version: PolicyVersion) -> Sequence[str]:
        """Return if a policy of this version may decide: the built-ins for which it cannot be re-run exactly.

        Raises:
            PolicyNotActive: no POLICY entry put it in force. LedgerError: it could not be recorded as observed.
        """
        impure = self._admitted.get(_identity(version))
        if impure is not None:
            return impure
        if self._observing is None:
            revision = version.revision[:64] or "unknown"
            raise PolicyNotActive(f"the engine answered by revision {revision}, which nothing here put in force")
        await self.observe(version)
        return ()

    async def observe(self, version: PolicyVersion) -> None:
        """Put on record what an engine that others feed reports, unless it is already.

        Raises:
            PolicyNotActive: it does not say which revision it serves. LedgerError.
        """
        if self._observing is None or _identity(version) in self._admitted:
            return
        if not version.revision:
            raise PolicyNotActive(
                "the running OPA names no revision of what it serves, so that any change would go unseen; "
                "let it load a bundle built with --revision"
            )
        async with self._one_at_a_time:
            if _identity(version) not in self._admitted:
                payload = entries.policy("observed", version, self._current, self._observing)
                await self._ledger.record(Draft(EntryType.POLICY, payload))
                self._admitted = {_identity(version): ()}
                self._current = version

    async def put_in_force(
        self, engine: Engine, bundle: bytes, origin: Origin, *, registry: Registered | None = None,
        resumed: bool = False, within: float = READY_WITHIN,
    ) -> None:  # fmt: skip
        """Let ``engine``, which was made from ``bundle``, decide from now on; takes the engine over.

        ``registry``: the one that came with the policy, put in force in the same moment; None: the one in force stays.
        ``within``: seconds that it has to come up.

        Raises:
            EngineError, PolicyLoadError: it does not come up; LedgerError: it could not be recorded. The policy before
            stays in force, and the engine is closed.
        """
        async with self._one_at_a_time:
            try:
                await _up(engine, within)
                version = engine.version
                event = "resumed" if resumed else "activated"
                payload = entries.policy(event, version, self._current, origin)
                drafts = [Draft(EntryType.POLICY, payload, attachment=bundle)]
                if registry is not None:
                    self._note(registry)
                    drafts.insert(0, registry.draft(self._registry, resumed=resumed))
                recorded = [asyncio.wrap_future(self._ledger.append(draft)) for draft in drafts]  # side by side
                await asyncio.gather(*recorded)
            except BaseException:
                await engine.close()
                raise
            if registry is not None:
                self._registry = registry
                self._pairs[_identity(version)] = registry.read.digest
            self._admitted[_identity(version)] = tuple(origin.impure_builtins)
            self._current = version
            retired = self._switch.put(engine)
        await retired.gone()
        if self._current == version:
            self._admitted = {_identity(version): tuple(origin.impure_builtins)}
            self._pairs = {i: digest for i, digest in self._pairs.items() if i in self._admitted}

    async def refuse(self, revision: str, origin: Origin) -> None:
        """Put on record that what was found at the source was not put in force. Raises LedgerError."""
        told = self._switch.version
        version = PolicyVersion(told.engine, told.engine_version, told.entrypoint, revision, "")
        payload = entries.policy("refused", version, self._current, origin)
        await self._ledger.record(Draft(EntryType.POLICY, payload))


def same(versions: Sequence[PolicyVersion]) -> bool:
    """Whether all of them are one policy."""
    return len({_identity(version) for version in versions}) <= 1


def _identity(version: PolicyVersion) -> Identity:
    return version.engine, version.entrypoint, version.revision, version.bundle_digest


async def _up(engine: Engine, within: float) -> None:
    """Wait until the engine can decide. Raises the last EngineError of one that cannot."""
    trouble: SidecarError = PolicyLoadError("the policy engine did not come up")
    try:
        async with asyncio.timeout(within):
            while True:
                try:
                    return await engine.ready()
                except EngineError as error:
                    trouble = error
                    await asyncio.sleep(_LOOK_EVERY)
    except TimeoutError:
        raise trouble from None
