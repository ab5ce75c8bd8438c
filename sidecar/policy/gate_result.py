"""What the gate is told to look for, and what it saw: step by step, for people, programs and POLICY entries."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from sidecar.errors import UsageError

from .engine import check_entrypoint
from .findings import Finding
from .opa_bounded import Bounds
from .opa_program import BuiltPolicy
from .opa_steps import Coverage
from .tree import TreeLimits

Outcome = Literal["passed", "failed", "not run"]


@dataclass(frozen=True, slots=True)
class GateSettings:
    """``min_coverage`` in percent of the policy's lines. ``allow_builtins``: built-ins that are not pure but may be
    used; decisions of such a policy cannot be run again exactly. ``revision`` goes into the bundles' manifest, ""
    leaves what is there. ``evaluation_seconds`` bounds each single decision.
    """

    entrypoint: str = "agents/decision"
    engine: str = "opa"
    min_coverage: float = 80.0
    allow_builtins: tuple[str, ...] = ()
    revision: str = ""
    tree: TreeLimits = field(default_factory=TreeLimits)
    bounds: Bounds = field(default_factory=Bounds)
    evaluation_seconds: float = 5.0

    def __post_init__(self) -> None:
        """Raises `UsageError`."""
        check_entrypoint(self.entrypoint)
        if self.engine not in ("opa", "wasm"):
            raise UsageError(f"policy engine {self.engine!r}: opa or wasm")
        if not 0 <= self.min_coverage <= 100:
            raise UsageError("the minimum coverage is a percentage, 0 to 100")
        if not self.evaluation_seconds > 0:
            raise UsageError("a decision needs more than 0 seconds")


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
        return self.outcome == "passed"

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "outcome": self.outcome,
            "seconds": round(self.seconds, 3),
            "note": self.note,
            "findings": [finding.to_json() for finding in self.findings],
        }


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

    @property
    def passed(self) -> bool:
        """Whether every step ran and passed."""
        return bool(self.steps) and all(step.passed for step in self.steps)

    @property
    def pure(self) -> bool:
        return self.opa_bundle is not None and not self.impure_builtins

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Of all steps, in their order."""
        return tuple(finding for step in self.steps for finding in step.findings)

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
