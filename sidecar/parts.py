"""Parts built from the configuration: those that policies pass through (source, trust, gate, engine), and TLS.

Belongs to `main.py`: the two are the only place that builds concrete parts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from sidecar.api import Metrics, ServerTls, half
from sidecar.chain.registry import parse as parse_registry
from sidecar.client import FileSource, Material, WorkloadSource, trace_parent
from sidecar.config import Config, read_file
from sidecar.decide import Follower, InForce, Origin, Period, Registered, RegistryFollower, Staleness
from sidecar.ending import first
from sidecar.errors import EngineError, Gone, LedgerDamaged, NotFound, PolicyLoadError, PolicySourceError, UsageError
from sidecar.identity import RegistryFile
from sidecar.ledger import Ledger
from sidecar.policy import (
    STARTER_BUNDLE,
    AllowedSigners,
    BuiltPolicy,
    BundleKey,
    Candidate,
    Engine,
    Examined,
    GateSettings,
    GitSettings,
    GitSource,
    OpaEngine,
    OpaRoom,
    PathSource,
    Source,
    SupervisedOpa,
    Switch,
    Terms,
    WasmEngine,
    examine,
    find_opa,
)

Made = TypeVar("Made")

log = logging.getLogger("sidecar.policy")
tls_log = logging.getLogger("sidecar.tls")

_STARTER = Origin("starter", "the starter policy of this program")
_GIT_CACHE = "policy.git"
_NEAR = 4  # entries
_SYNCED = "policy.synced"
_LEAVE_FREE = 64 << 20  # bytes of the ledger's disk: what a repository holds must not end the answers


def check_provable(config: Config) -> None:
    """Raises UsageError where nobody could ever be proved."""
    if not (config.dev or config.registry or config.policy_source_git_url or config.policy_source_path):
        raise UsageError(
            "registry is not set, so no caller could be proved: name a registry of agents (made with `sidecar agents "
            "add`), or start with --dev, which accepts whatever name a caller gives"
        )


def registry_follower(config: Config, in_force: InForce, metrics: Metrics) -> RegistryFollower | None:
    """Who follows the registry's file, if one is configured."""
    return RegistryFollower(RegistryFile(Path(config.registry)), in_force, metrics) if config.registry else None


def opa_room_of(config: Config) -> OpaRoom | None:
    """Where OPA runs as another user, if it does. Raises UsageError."""
    return OpaRoom(Path(config.opa_room)) if config.opa_room else None


def build_engine(config: Config, bundle: BuiltPolicy, room: OpaRoom | None) -> Engine:
    """An engine that decides by ``bundle``; takes a few tenths of a second. Raises UsageError or PolicyLoadError."""
    if config.engine == "opa":
        start, trace_parent = room.started if room else None, under(config)
        return SupervisedOpa(find_opa(), bundle, config.entrypoint, start=start, trace_parent=trace_parent)
    return WasmEngine(bundle.packed, config.entrypoint)


def under(config: Config) -> Callable[[], str]:
    """What says under which span OPA is asked."""
    return trace_parent if config.otel_endpoint else lambda: ""


def in_force_of(config: Config, switch: Switch, ledger: Ledger, further: Callable[[], None]) -> InForce:
    """What may decide, under the configured rules."""
    observing = Origin("opa", config.opa) if config.opa else None
    staleness = Staleness(config.policy_max_staleness, config.policy_stale == "deny")
    mark = Path(config.data_dir, _SYNCED)
    age, on_sync = policy_age(config), lambda: _touch(mark)
    return InForce(switch, ledger, staleness, observing=observing, age=age, on_sync=on_sync, further=further)


def policy_age(config: Config) -> float:
    """Seconds since the source was last asked with success, as the mark that earlier runs left tells it; 0 without."""
    try:
        return max(0.0, time.time() - Path(config.data_dir, _SYNCED).stat().st_mtime)
    except OSError:
        return 0.0


def _touch(mark: Path) -> None:
    with contextlib.suppress(OSError):  # a full disk: the mark stays as it was, and tells of a greater age
        mark.touch(mode=0o600)


async def server_tls(
    config: Config, metrics: Metrics, begun: Callable[[], None], stopping: asyncio.Event
) -> ServerTls | None:
    """TLS of the sidecar's own services, as `tls_of`."""
    files = (config.tls_cert_file, config.tls_key_file, config.tls_client_ca_file)
    tls = await tls_of(config.spiffe_socket, files, metrics, begun, stopping)
    if tls is not None:
        metrics.watch_tls(tls.not_after)
    return tls


async def tls_of(
    workload: str,
    files: tuple[str, str, str],
    metrics: Metrics,
    begun: Callable[[], None],
    stopping: asyncio.Event,
    door: str = "",
) -> ServerTls | None:
    """gRPC's TLS of the Workload API at ``workload``, of files (certificate, key, roots of clients), or None; waits for
    the SPIFFE agent's first SVID. ``begun``: told of each handshake; ``stopping``, ``door``: as `material_of`'s.

    Raises:
        UsageError: there is no material to begin with. Stopped: the end was asked for before there was.
    """

    def handshake() -> None:
        metrics.tls_handshake()
        begun()

    if not workload and not files[0]:
        return None
    mutual = bool(workload or files[2])
    return ServerTls(await material_of(workload, files, half(mutual=mutual), metrics, stopping, door), handshake)


async def material_of(
    workload: str,
    files: tuple[str, str, str],
    make: Callable[[Material], Made],
    metrics: Metrics,
    stopping: asyncio.Event,
    door: str = "",
) -> FileSource[Made] | WorkloadSource[Made]:
    """What ``make`` makes of the Workload API's newest material, or of the files'. ``stopping``: set where the end is
    asked for; ``door``: whose it is, for the log. Raises UsageError and Stopped as `tls_of`."""

    def trouble(cause: str) -> None:
        tls_log.error("%s%s", door and f"doors.{door}: ", cause)
        metrics.tls_fault()

    source = WorkloadSource(workload, make, trouble) if workload else FileSource(files, make, trouble)
    return await first(source, stopping)


@dataclass(frozen=True, slots=True)
class Policies:
    """How a policy comes into force in this run, and whether anybody looks for another."""

    config: Config
    switch: Switch
    in_force: InForce
    ledger: Ledger
    metrics: Metrics
    room: OpaRoom | None

    async def begin(self) -> asyncio.Task[None] | None:
        """Put a policy in force: a running OPA's, the starter, the last one in force here, or what the source has.

        Gives the task that follows the source, if there is one. A git repository that cannot be reached, or holds
        nothing that may be used, leaves the sidecar without a policy: every decision is a DENY until it does.

        Raises:
            SidecarError: there is no policy to begin with.
        """
        if self.config.opa:
            config = self.config
            self.switch.put(OpaEngine(config.opa, config.entrypoint, trace_parent=under(config)))
            return None
        source = source_of(self.config)
        if source is None:
            await self._start_with_starter()
            return None
        self.metrics.watch_policy(lambda: self.in_force.age, lambda: self.in_force.stale)
        follower = self._follower(*source)
        later = await self._resume(*source) or source[0] == "git"  # which may take its time
        if not later:
            await self._first(follower)
        return asyncio.create_task(follower.follow(at_once=later))

    async def _start_with_starter(self) -> None:
        if self.config.engine == "opa":
            raise UsageError("engine opa needs --policy, to start OPA with, or --opa, where one runs; it has neither")
        packed = STARTER_BUNDLE.read_bytes()
        engine = await asyncio.to_thread(WasmEngine, packed, self.config.entrypoint)
        last = self._last("starter", _STARTER.place)
        resumed = last is not None and last["bundle_digest"] == BuiltPolicy.of(packed).digest
        await self.in_force.put_in_force(engine, packed, _STARTER, resumed=resumed)

    async def _resume(self, kind: str, source: Source) -> bool:
        """Let the policy decide that did so last, from the ledger's archive: if it is from there, and trusted still."""
        last = self._last(kind, source.place)
        if last is None or (last["engine"], last["entrypoint"]) != (self.config.engine, self.config.entrypoint):
            return False
        origin = Origin.of(last)
        key = "" if origin.signer is None else origin.signer["key"]
        cause = terms_of(self.config).objection(key, origin.gate, origin.impure_builtins)
        try:
            if cause:
                raise PolicyLoadError(cause)
            packed = self.ledger.attachment(bytes.fromhex(last["bundle_digest"]))
            engine = await asyncio.to_thread(build_engine, self.config, BuiltPolicy.of(packed), self.room)
            registry = self._last_registry(kind, source.place)
            await self.in_force.put_in_force(engine, packed, origin, registry=registry, resumed=True)
        except (PolicyLoadError, EngineError, NotFound, LedgerDamaged) as error:
            log.warning("the policy in force before is not resumed: %s", error)
            return False
        return True

    def _last(self, kind: str, place: str) -> dict[str, Any] | None:
        """The POLICY entry of the last policy in force here, if it came from that place."""
        seq = self.ledger.last_attached()
        payload = None if seq is None else self.ledger.payload(seq)
        return payload if payload and payload["source"] == {"kind": kind, "place": place} else None

    def _last_registry(self, kind: str, place: str) -> Registered | None:
        """The registry that came with the last policy: its entry stands right before that policy's.

        Raises:
            PolicyLoadError: there must be one, and there is none.
        """
        at = self.ledger.last_attached()
        if self.config.registry or at is None:
            return None
        for seq in range(at - 1, max(-1, at - _NEAR), -1):  # what the ledger writes by itself may stand between
            try:
                payload = self.ledger.payload(seq)
            except Gone:  # so it was no REGISTRY: these stay
                continue
            if payload["type"] == "REGISTRY" and payload["source"] == {"kind": kind, "place": place}:
                return Registered(parse_registry(payload["registry"].encode()), kind, place, payload["revision"])
        if not self.config.dev:
            raise PolicyLoadError("the policy in force before came without a registry")
        return None

    async def _first(self, follower: Follower) -> None:
        """A path that holds no usable policy is the operator's to mend, now."""
        try:
            found = await follower.look()
        except PolicySourceError as error:
            raise UsageError(str(error)) from None
        if not found:
            raise PolicyLoadError(f"policy {self.config.policy_source_path} is refused: {follower.cause}")

    def _follower(self, kind: str, source: Source) -> Follower:
        config, program, terms = self.config, find_opa(), terms_of(self.config)

        async def examined(candidate: Candidate) -> Examined:
            return await examine(program, candidate, terms)

        def built(bundle: BuiltPolicy) -> Engine:
            return build_engine(config, bundle, self.room)

        period = Period(config.policy_source_period)
        last = self._last(kind, source.place)
        before = "" if last is None else last["revision"]
        return Follower(
            source, kind, examined, built, self.in_force, self.metrics, period,
            before=before, registry_elsewhere=bool(config.registry),
        )  # fmt: skip


def source_of(config: Config, cache: Path | None = None) -> tuple[str, Source] | None:
    """The configured source and its kind. ``cache``: where git's is kept, in place of the ledger's directory."""
    if config.policy_source_git_url:
        return "git", GitSource(_git(config), cache or Path(config.data_dir, _GIT_CACHE), leave_free=_LEAVE_FREE)
    if config.policy_source_path:
        path = Path(config.policy_source_path)
        if not path.exists():
            raise UsageError(f"cannot read policy bundle {path}: No such file or directory")
        return "directory" if path.is_dir() else "bundle", PathSource(path)
    return None


def _git(config: Config) -> GitSettings:
    before = "policy_source_git_"
    names = [f.name.removeprefix(before) for f in fields(config) if f.name.startswith(before)]
    return GitSettings(**{name: getattr(config, before + name) for name in names})


def terms_of(config: Config) -> Terms:
    """What a policy must pass."""
    signers = None
    if config.policy_trust_allowed_signers:
        raw = read_file(Path(config.policy_trust_allowed_signers), "policy.trust.allowed_signers")
        signers = AllowedSigners.parse(raw.decode(errors="replace"))
    key = None
    if config.policy_trust_bundle_key_file:
        key = BundleKey(
            config.policy_trust_bundle_key_id,
            config.policy_trust_bundle_algorithm,
            Path(config.policy_trust_bundle_key_file),
        )
    gate = GateSettings(
        entrypoint=config.entrypoint,
        engine=config.engine,
        min_coverage=config.policy_gate_min_coverage,
        allow_builtins=config.policy_gate_allow_builtins,
        require_expectations=config.policy_gate_expectations,
        bundle_key=key,
        require_registry=not (config.dev or config.registry),
    )
    return Terms(gate, signers, config.policy_trust_allow_rollback)
