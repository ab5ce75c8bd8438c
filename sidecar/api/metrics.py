"""What is counted, in Prometheus' terms (its "Metric and label naming" and "Instrumentation" pages).

Every label is from a fixed set, so that no caller can make series: a value outside becomes `other`. docs/METRICS.md
says what each metric means.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Protocol

import grpc
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from sidecar.api.handshakes import WHYS as HANDSHAKE_WHYS
from sidecar.api.unanchored import Unanchored
from sidecar.chain.head import EFFECTS
from sidecar.chain.payload import CAUSES
from sidecar.decide import APPROVAL_CAUSES, OUTCOME_WHYS, Answer, Stages
from sidecar.errors import SidecarError
from sidecar.identity import WHYS
from sidecar.ledger import Ledger
from sidecar.policy import Engine

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
METHODS: Final = frozenset(
    {
        *("Decide", "DecideBatch", "DecideStream", "ReportOutcome", "Head", "GetEntry", "Prove"),
        *("ListApprovals", "Approve", "WatchApproval"),
        *("Check", "StreamAccessLogs"),
        *("Evaluation", "Evaluations", "AuthZen"),
    }
)
APPROVALS: Final = APPROVAL_CAUSES | {"approve", "reject", "allowed"}
CODES: Final = frozenset(code.name for code in grpc.StatusCode)
POLICY_EVENTS: Final = frozenset({"activated", "refused", "unreachable", "failed"})
REGISTRY_EVENTS: Final = frozenset({"activated", "refused", "unreachable", "failed"})
STAGES: Final = ("evaluate", "record", "total")
OTHER: Final = "other"

_SECONDS: Final = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_ENTRIES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)


class Shipping(Protocol):
    """How shipping stands, now: see `Metrics.watch_shipping`. ``anchored``: the first entry that no receipt covers."""

    @property
    def anchored(self) -> int: ...


class Metrics:
    """Counts what an `Observer` and a ledger's `on_commit` are told, and looks at ledger and engine when scraped."""

    def __init__(self, software: str, wall_ns: Callable[[], int] = time.time_ns) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, of no use here
        self._registry = registry = CollectorRegistry()
        self._effects = Counter(
            "sidecar_decisions", "Decisions recorded, by effect and cause.", ("effect", "cause"), registry=registry
        )
        self._repeats = Counter(
            "sidecar_repeated_answers", "Decisions given again for an idempotency key.", registry=registry
        )
        self._closed = Counter(
            "sidecar_fail_closed", "DENYs for want of a policy decision, by cause.", ("cause",), registry=registry
        )
        self._refused = Counter(
            "sidecar_rejected", "Requests refused by their caller's fault, by gRPC code.", ("code",), registry=registry
        )
        self._unproved = Counter(
            "sidecar_unproved", "Requests refused for who asked, by what was wrong.", ("why",), registry=registry
        )
        self._outcomes = Counter(
            "sidecar_outcomes_refused", "Outcomes that were not taken, by what was wrong.", ("why",), registry=registry
        )
        self._errors = Counter(
            "sidecar_errors", "Calls and questions that ended in an error.", ("method", "code"), registry=registry
        )
        self._took = Histogram(
            "sidecar_decision_seconds", "Time of a decision, by stage.", ("stage",), registry=registry, buckets=_SECONDS
        )
        self._commit_entries = Histogram(
            "sidecar_commit_entries", "Entries in a durable commit.", registry=registry, buckets=_ENTRIES
        )
        self._commit_seconds = Histogram(
            "sidecar_commit_seconds", "Time of a durable commit.", registry=registry, buckets=_SECONDS
        )
        self._policies = Counter(
            "sidecar_policy_events", "What came of looking at the policy's source.", ("event",), registry=registry
        )
        self._registries = Counter(
            "sidecar_registry_events", "What came of looking at the registry's file.", ("event",), registry=registry
        )
        self._approvals = Counter(
            "sidecar_approvals", "Approvals taken, used and refused, by what.", ("what",), registry=registry
        )
        self._shadow = Counter(
            "sidecar_not_enforced", "Decisions other than ALLOW that were answered in shadow.", registry=registry
        )
        self._handshakes = Counter(
            "sidecar_tls_handshakes", "TLS handshakes begun, also those that fail.", registry=registry
        )
        self._handshakes_failed = Counter(
            "sidecar_tls_refused", "TLS handshakes that failed, by what was wrong.", ("why",), registry=registry
        )
        self._tls_faults = Counter(
            "sidecar_tls_faults", "TLS files or SVIDs that were not had or not usable.", registry=registry
        )
        self._ends = Gauge(
            "sidecar_tls_certificate_end_seconds", "When the sidecar's certificate ends, since 1970.", ("shown_to",),
            registry=registry,
        )  # fmt: skip
        self._ready = Gauge("sidecar_ready", "1 when decisions can be made.", registry=registry)
        self._software, self._wall_ns = software, wall_ns
        self._anchored: Callable[[], int] = lambda: 0
        self._begin()

    def _begin(self) -> None:
        """Series that exist from the start: the first fault is a rise from 0, which an alert can see."""
        self._stages = [self._took.labels(stage) for stage in STAGES]
        self._policy = {effect: self._effects.labels(effect, "policy") for effect in sorted(EFFECTS)}
        for cause in sorted(CAUSES - {"policy"}):
            self._effects.labels("DENY", cause)
            self._closed.labels(cause)
        for event in POLICY_EVENTS:
            self._policies.labels(event)
        for code in ("INVALID_ARGUMENT", "UNAUTHENTICATED", "PERMISSION_DENIED", "NOT_FOUND", "FAILED_PRECONDITION",
            "RESOURCE_EXHAUSTED",
        ):  # fmt: skip
            self._refused.labels(code)
        for why in WHYS:
            self._unproved.labels(why)
        for why in OUTCOME_WHYS:
            self._outcomes.labels(why)
        for why in HANDSHAKE_WHYS:
            self._handshakes_failed.labels(why)
        for event in REGISTRY_EVENTS:
            self._registries.labels(event)
        for what in APPROVALS:
            self._approvals.labels(what)

    def attach(self, ledger: Ledger, engine: Engine) -> None:
        """From now on a scrape looks at these too. Once."""
        self._registry.register(_Looked(self._software, ledger, engine, self._wall_ns, lambda: self._anchored()))

    def page(self) -> bytes:
        """Everything, in the text format of `CONTENT_TYPE`."""
        return generate_latest(self._registry)

    def watch_policy(self, age: Callable[[], float], stale: Callable[[], bool]) -> None:
        """From now on a scrape shows for how long the policy's source was not asked with success, and if too long."""
        told = "Since a successful look at the source."
        Gauge("sidecar_policy_age_seconds", told, registry=self._registry).set_function(age)
        late = Gauge("sidecar_policy_stale", "1 when that is too long.", registry=self._registry)
        late.set_function(lambda: float(stale()))

    def watch_shipping(self, shipping: Shipping) -> None:
        """From now on a scrape shows how far the collector is behind, and what is unanchored is counted by receipts."""
        self._anchored = lambda: shipping.anchored
        told = {
            "unshipped_entries": "Entries that the collector has not acknowledged.",
            "unshipped_bytes": "Bytes of them, as they are stored.",
            "unshipped_age_seconds": "Age at most of the oldest of them.",
            "unshipped_exceeded": "1 when that is more than may be.",
            "acknowledged_entries": "Entries that the collector acknowledged.",
            "shipped_bytes": "Bytes of parcels sent in this run.",
            "let_go_entries": "Entries that left the ledger in this run, receipted.",
            "ship_failures": "Attempts in a row to reach the collector that failed.",
            "ship_refused": "Parcels and questions that it refused in this run.",
            "unreceipted_age_seconds": "Since the oldest note was shipped that has no receipt.",
        }
        for name, text in told.items():
            gauge = Gauge(f"sidecar_{name}", text, registry=self._registry)
            gauge.set_function(functools.partial(getattr, shipping, name))

    def watch_tls(self, not_after: Callable[[], float], shown_to: str = "callers") -> None:
        """From now on a scrape shows when a certificate of the sidecar's own ends. ``shown_to``: or a door's name."""
        self._ends.labels(shown_to).set_function(not_after)

    def watch_link(self, not_after: Callable[[], float]) -> None:
        """From now on a scrape shows when the certificate ends that the collector is shown."""
        told = "When the certificate for the collector ends, since 1970."
        Gauge("sidecar_collector_certificate_end_seconds", told, registry=self._registry).set_function(not_after)

    def tls_handshake(self) -> None:
        """A client began one. On any thread."""
        self._handshakes.inc()

    def handshake_failed(self, why: str) -> None:
        """One that a client began; ``why`` is one of `handshakes.WHYS`. On any thread."""
        self._handshakes_failed.labels(_of(HANDSHAKE_WHYS, why)).inc()

    def tls_fault(self) -> None:
        """New certificates or roots could not be had or used; those before stay. On any thread."""
        self._tls_faults.inc()

    def policy_event(self, event: str) -> None:
        """As `Counted.policy_event`."""
        self._policies.labels(_of(POLICY_EVENTS, event)).inc()

    def registry_event(self, event: str) -> None:
        """As `RegistryFollower`'s: activated, refused, unreachable or failed."""
        self._registries.labels(_of(REGISTRY_EVENTS, event)).inc()

    def watch_approvals(self, waiting: Callable[[], int]) -> None:
        """From now on a scrape shows how many decisions wait for approvals."""
        told = "Decisions that wait for approvals."
        Gauge("sidecar_approvals_waiting", told, registry=self._registry).set_function(waiting)

    def watch_spans(self, spans: Mapping[str, int]) -> None:
        """From now on a scrape shows what became of spans."""
        self._registry.register(_Spans(spans))

    def watch_registry(self, broken: Callable[[], bool]) -> None:
        """From now on a scrape shows whether the registry's file can be used."""
        told = "1 while the registry's file cannot be used."
        Gauge("sidecar_registry_broken", told, registry=self._registry).set_function(lambda: float(broken()))

    def watch_ready(self, ready: Callable[[], bool]) -> None:
        """From now on a scrape shows whether decisions can be made."""
        self._ready.set_function(lambda: float(ready()))

    def committed(self, entries: int, seconds: float) -> None:
        """A commit is durable; of 0 entries: a seal alone. On any thread."""
        if entries:
            self._commit_entries.observe(entries)
        self._commit_seconds.observe(seconds)

    def decided(self, answer: Answer, took: Stages) -> None:
        """As `Observer.decided`."""
        effect, cause = answer.judged.verdict.effect, answer.judged.cause
        if cause == "policy":
            self._policy[effect].inc()
        else:
            self._effects.labels(effect, _of(CAUSES, cause)).inc()
        if not answer.enforced and effect != "ALLOW":
            self._shadow.inc()
        for judged in (answer.judged, *answer.alternatives):
            if judged.cause != "policy":
                self._closed.labels(_of(CAUSES, judged.cause)).inc()
        for stage, seconds in zip(self._stages, (took.evaluate, took.record, took.total), strict=True):
            stage.observe(seconds)

    def repeated(self, answer: Answer) -> None:
        """As `Observer.repeated`."""
        self._repeats.inc()

    def refused(self, code: str, field: str, why: str = "") -> None:
        """As `Observer.refused`; the field is no label."""
        self._refused.labels(_of(CODES, code)).inc()
        if why:
            self._unproved.labels(_of(WHYS, why)).inc()

    def outcome_refused(self, why: str) -> None:
        """As `Observer.outcome_refused`."""
        self._outcomes.labels(_of(OUTCOME_WHYS, why)).inc()

    def approval(self, what: str) -> None:
        """As `Observer.approval`."""
        self._approvals.labels(_of(APPROVALS, what)).inc()

    def unanswered(self, method: str, code: str, fault: str = "") -> None:
        """As `Observer.unanswered`; the fault is no label."""
        self._errors.labels(_of(METHODS, method), _of(CODES, code)).inc()


class _Spans:
    """Counters that somebody else keeps."""

    def __init__(self, spans: Mapping[str, int]) -> None:
        self._spans = spans

    def describe(self) -> list[Metric]:
        """Nothing."""
        return []

    def collect(self) -> Iterator[Metric]:
        """As prometheus_client's `Collector.collect`."""
        family = CounterMetricFamily("sidecar_spans", "Spans, by what became of them.", labels=["what"])
        for what, number in self._spans.items():
            family.add_metric([what], number)
        yield family


class _Looked:
    """What is looked at when scraped. A ledger that cannot be looked at is left out of the page."""

    def __init__(
        self, software: str, ledger: Ledger, engine: Engine, wall_ns: Callable[[], int], anchored: Callable[[], int]
    ) -> None:
        self._software, self._ledger, self._engine, self._wall_ns = software, ledger, engine, wall_ns
        self._anchored, self._blind = anchored, Unanchored(ledger.decisions)

    def describe(self) -> list[Metric]:
        """Nothing: registering must not look."""
        return []

    def collect(self) -> Iterator[Metric]:
        """As prometheus_client's `Collector.collect`."""
        yield self._build()
        for look in (self._usage, self._age):
            try:
                yield from look()
            except (SidecarError, OSError):
                continue

    def _build(self) -> Metric:
        version = self._engine.version
        labels = {"version": self._software, "engine": version.engine, "engine_version": version.engine_version}
        family = GaugeMetricFamily("sidecar_build_info", "Always 1.", labels=list(labels))
        family.add_metric(list(labels.values()), 1)
        return family

    def _usage(self) -> list[Metric]:
        usage = self._ledger.usage()
        anchored = self._anchored()
        unanchored = max(0, usage.entries - anchored)
        blind = self._blind.look(anchored, usage.entries)
        return [
            GaugeMetricFamily("sidecar_queue_depth", "Entries waiting to be written.", usage.queue_depth),
            GaugeMetricFamily("sidecar_ledger_used_bytes", "Size of the ledger.", usage.bytes_used),
            GaugeMetricFamily("sidecar_ledger_limit_bytes", "Greatest size of the ledger.", usage.bytes_limit),
            GaugeMetricFamily("sidecar_ledger_headroom_bytes", "Bytes until refusal.", usage.bytes_left),
            GaugeMetricFamily("sidecar_ledger_disk_free_bytes", "Free on its disk.", usage.bytes_free_on_disk),
            CounterMetricFamily("sidecar_ledger_entries", "Entries in the chain.", usage.entries),
            GaugeMetricFamily("sidecar_unanchored_entries", "Entries no outsider vouches for.", unanchored),
            GaugeMetricFamily("sidecar_unanchored_decisions", "Decisions no outsider vouches for.", blind),
        ]

    def _age(self) -> list[Metric]:
        """By the wall clock of the first entry that no receipt covers."""
        anchored = self._anchored()
        some = anchored < self._ledger.position().next_seq
        age = max(0, self._wall_ns() - self._ledger.began(anchored)) / 1e9 if some else 0.0
        return [GaugeMetricFamily("sidecar_unanchored_age_seconds", "Age of the oldest unanchored entry.", age)]


def _of(known: frozenset[str], value: str) -> str:
    return value if value in known else OTHER
