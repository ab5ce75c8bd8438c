"""Settings that are allowed, and weaken what the sidecar promises."""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.config import Config, host_and_port, is_loopback
from sidecar.doctor.finding import Finding, careful, ok
from sidecar.doctor.patient import Patient

CHECK = "settings"


def check_settings(patient: Patient) -> Iterator[Finding]:
    """One finding for each, or that there is none."""
    found = [careful(CHECK, what, mend) for what, mend in _weak(patient.config)]
    yield from found or [ok(CHECK, "none that weakens anything")]


def _weak(config: Config) -> Iterator[tuple[str, str]]:
    if config.dev:
        yield "dev: any name that a caller gives is believed", "register agents, set registry, and leave dev out"
    if config.enforcement == "shadow":
        yield "enforcement is shadow: guards set to it act whatever is decided", "set enforcement to enforce"
    if config.metrics and not is_loopback(host_and_port("metrics", config.metrics)[0]):
        yield f"metrics on {config.metrics} are for whoever reaches the port", "let a network policy say who does"
    yield from _weak_policy(config)
    yield from _weak_shipping(config)


def _weak_policy(config: Config) -> Iterator[tuple[str, str]]:
    if config.policy_source_git_url and not config.policy_trust_allowed_signers:
        yield "whoever can push to the repository decides the policy", "set policy.trust.allowed_signers"
    if config.policy_source_git_url and not config.policy_max_staleness:
        yield "a policy whose source is out of reach decides for ever", "set policy.max_staleness"
    elif config.policy_max_staleness and config.policy_stale == "warn":
        yield "a stale policy goes on deciding", 'set policy.stale to "deny"'
    if config.policy_trust_allow_rollback:
        yield "an older policy may be put in force again", "leave policy.trust.allow_rollback out"
    if config.policy_gate_allow_builtins:
        names = ", ".join(config.policy_gate_allow_builtins)
        yield f"policies may use {names}: such decisions cannot be re-run", "leave policy.gate.allow_builtins out"
    if not config.policy_gate_expectations or config.policy_gate_min_coverage == 0:
        yield "policies need no tests to be put in force", "leave policy.gate as it is by default"


def _weak_shipping(config: Config) -> Iterator[tuple[str, str]]:
    if not config.collector_address:
        yield "nothing is shipped: nobody outside vouches for the ledger", "set collector.address and collector.log_key"
        return
    bounds = (
        config.collector_max_unshipped_entries or config.collector_max_unshipped_seconds
        or config.collector_max_unshipped_mib
    )  # fmt: skip
    if not bounds or config.collector_unshipped == "warn":
        mend = 'set collector.max_unshipped_seconds and collector.unshipped = "deny"'
        yield "decisions go on however much is not shipped", mend
    if config.collector_unconfirmed_start:
        yield "it starts without the collector's word that the ledger is the newest", "leave unconfirmed_start out"
