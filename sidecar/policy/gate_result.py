"""What the gate is told to look for, and what it saw: step by step, for people, programs and POLICY entries."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from sidecar.chain.registry import Registry
from sidecar.chain.strictjson import dumps
from sidecar.errors import UsageError

from .bundle_signature import BundleKey
from .engine import check_entrypoint
from .findings import Finding
from .opa_bounded import Bounds
from .opa_program import BuiltPolicy
from .opa_steps import Coverage
from .tree import TreeLimits

Outcome = Literal["passed", "failed", "not run"]

SUMMARY_BYTES: Final = 32 << 10
"""The most that `GateResult.summary` takes as JSON."""
_NOTE: Final = 300
# How many findings of a step and how many characters of each, most first; the last always fits.
_AMOUNTS: Final = ((20, 500), (20, 200), (10, 150), (5, 100), (2, 50))


@dataclass(frozen=True, slots=True)
class GateSettings:
    """``min_coverage`` in percent of the policy's lines. ``allow_builtins``: built-ins that are not pure but may be
    used; decisions of such a policy cannot be run again exactly. ``revision`` goes into the bundles' manifest, ""
    leaves what is there; a bundle file keeps its own. ``evaluation_seconds`` bounds each single decision.
    ``require_expectations``: whether a policy that is no bundle file must have its expectations.yaml. ``bundle_key``:
    the key that a bundle file must be signed with; None asks for no signature.
    ``require_registry``: whether the policy must come with its registry.json.
    """

    entrypoint: str = "agents/decision"
    engine: str = "opa"
    min_coverage: float = 80.0
    allow_builtins: tuple[str, ...] = ()
    revision: str = ""
    tree: TreeLimits = field(default_factory=TreeLimits)
    bounds: Bounds = field(default_factory=Bounds)
    evaluation_seconds: float = 5.0
    require_expectations: bool = True
    bundle_key: BundleKey | None = None
    require_registry: bool = False

    def __post_init__(self) -> None:
        """Raises `UsageError`."""
        check_entrypoint(self.entrypoint)
        if self.engine not in ("opa", "wasm"):
            raise UsageError(f"policy engine {self.engine!r}: opa or wasm")
        if not 0 <= self.min_coverage <= 100:
            raise UsageError("the minimum coverage is a percentage, 0 to 100")
        if not self.evaluation_seconds > 0:
            raise UsageError("a decision needs more than 0 seconds")

    def for_revision(self, revision: str) -> GateSettings:
        """The same for another ``revision``."""
        return replace(self, revision=revision)


@dataclass(frozen=True, slots=True)
class Step:
    """One step: ``note`` says in words what it saw when it passed, ``findings`` what was wrong when it failed."""

    name: str
    outcome: Outcome
    findings: tuple[Finding, ...]
    seconds: float
    note: str

    @property
    def passed(self) -> bool:
        """Whether it ran, and found nothing."""
        return self.outcome == "passed"

    def to_json(self) -> dict[str, Any]:
        """As ``--json`` has it."""
        return {
            "name": self.name,
            "outcome": self.outcome,
            "seconds": round(self.seconds, 3),
            "note": self.note,
            "findings": [finding.to_json() for finding in self.findings],
        }

    def summary(self, findings: int, characters: int) -> dict[str, Any]:
        """The step with at most so many findings, and so many characters of a message; the rest is counted."""
        some = self.findings if len(self.findings) <= findings else self.findings[: findings - 1]
        said = [{"file": f.file[:characters], "line": f.line, "message": f.message[:characters]} for f in some]
        if left := len(self.findings) - len(some):
            said.append({"file": "", "line": 0, "message": f"and {left} more"})
        return {"step": self.name, "outcome": self.outcome, "note": self.note[:_NOTE], "findings": said}


@dataclass(frozen=True, slots=True)
class GateResult:
    """What the gate saw. The bundles are there when they could be built, whether or not the gate was passed.

    ``impure_builtins`` are those that the policy uses (its tests aside); ``pure`` says that it was built and uses none.
    """

    settings: GateSettings
    opa_version: str
    steps: tuple[Step, ...]
    impure_builtins: tuple[str, ...]
    coverage: Coverage | None
    opa_bundle: BuiltPolicy | None
    wasm_bundle: BuiltPolicy | None
    registry: Registry | None = None

    @property
    def passed(self) -> bool:
        """Whether every step ran and passed."""
        return bool(self.steps) and all(step.passed for step in self.steps)

    @property
    def pure(self) -> bool:
        """Whether there is a bundle whose decisions can be re-run exactly: it uses no built-in that is not pure."""
        return (self.opa_bundle or self.wasm_bundle) is not None and not self.impure_builtins

    @property
    def bundle(self) -> BuiltPolicy | None:
        """What the engine is to be given, if the gate was passed."""
        return self.wasm_bundle if self.settings.engine == "wasm" else self.opa_bundle

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Of all steps, in their order."""
        return tuple(finding for step in self.steps for finding in step.findings)

    def summary(self) -> list[dict[str, Any]]:
        """The steps as POLICY entries have them: step, outcome, note, findings; at most `SUMMARY_BYTES` as JSON."""
        for findings, characters in _AMOUNTS:
            said = [step.summary(findings, characters) for step in self.steps]
            if len(dumps(said)) <= SUMMARY_BYTES:
                break
        return said

    def to_json(self) -> dict[str, Any]:
        """Everything but the bundles' bytes, as JSON has it."""
        built = {"opa": self.opa_bundle, "wasm": self.wasm_bundle}
        return {
            "passed": self.passed,
            "engine": self.settings.engine,
            "entrypoint": self.settings.entrypoint,
            "opa_version": self.opa_version,
            "min_coverage": self.settings.min_coverage,
            "pure": self.pure,
            "impure_builtins": list(self.impure_builtins),
            "steps": [step.to_json() for step in self.steps],
            "coverage": self.coverage.to_json() if self.coverage else None,
            "bundles": {name: bundle.digest for name, bundle in built.items() if bundle},
        }
