"""What a policy found at its source must pass before it may decide: trust in who made it, then the gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from sidecar.chain.registry import Registry

from .findings import Finding, Refused, bounded
from .gate import check_bundle, check_files, signed_with
from .gate_result import GateResult, GateSettings
from .opa_program import BuiltPolicy, OpaProgram
from .signers import AllowedSigners, Signer
from .source import Candidate

MAX_BUNDLE: Final = 8 << 20
"""Bytes of a bundle that the ledger keeps as an attachment (proto/LEDGER.md, "Attachment")."""


@dataclass(frozen=True, slots=True)
class Terms:
    """``signers``: whose signature a commit must have; None asks for none. ``allow_rollback``: a commit that does not
    follow the one in force may be activated. ``gate``: its settings; the revision in them is replaced.
    """

    gate: GateSettings = field(default_factory=GateSettings)
    signers: AllowedSigners | None = None
    allow_rollback: bool = False

    def objection(self, key: str, steps: Sequence[Mapping[str, Any]], impure: Sequence[str]) -> str:
        """Why a policy that was accepted before would not be trusted under these terms, or "".

        ``key``: the fingerprint of who signed its commit, "" for nobody; ``steps``: what it had to pass.
        """
        if self.signers is not None and not self.signers.names(key):
            return "its commit is not signed by a key that is allowed now"
        passed = {(step["step"], step["note"]) for step in steps if step["outcome"] == "passed"}
        if self.gate.bundle_key is not None and ("signature", signed_with(self.gate.bundle_key)) not in passed:
            return "its bundle was not signed with the key that is asked for now"
        if leave := sorted({*impure} - {*self.gate.allow_builtins}):
            return f"it uses {', '.join(leave)}, which is not allowed now"
        return ""


@dataclass(frozen=True, slots=True)
class Examined:
    """``bundle`` is what the engine may be given, or None where the policy was refused; ``steps`` say why.

    ``steps`` are as POLICY entries have them. ``registry``: the one that came with the policy.
    """

    bundle: BuiltPolicy | None
    signer: Signer | None
    steps: Sequence[Mapping[str, Any]]
    impure_builtins: tuple[str, ...] = ()
    registry: Registry | None = None

    @property
    def cause(self) -> str:
        """The first finding, in one line; "" for a policy that passed."""
        found = [(step, finding) for step in self.steps for finding in step["findings"]]
        if not found:
            return ""
        step, first = found[0]
        line = f":{first['line']}" if first["line"] else ""
        place = f"{first['file']}{line}: " if first["file"] else ""
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        return f"{step['step']}: {place}{first['message']}{more}"


async def examine(program: OpaProgram, candidate: Candidate, terms: Terms) -> Examined:
    """Take a candidate through trust and gate. Raises `UsageError` for settings that do not fit this OPA."""
    try:
        signer = _trusted(candidate, terms)
    except Refused as error:
        return refusal("trust", error)
    settings = terms.gate.for_revision(candidate.revision)
    if candidate.bundle is not None:
        result = await check_bundle(program, candidate.bundle, settings)
    else:
        result = await check_files(program, candidate.files, settings)
    return _of(result, signer, _trust_step(candidate, signer))


def refusal(step: str, error: Refused) -> Examined:
    """A policy that was refused before it came to the gate."""
    findings = [finding.to_json() for finding in bounded(list(error.findings[:20]))]
    return Examined(None, None, [{"step": step, "outcome": "failed", "note": "", "findings": findings}])


def _trusted(candidate: Candidate, terms: Terms) -> Signer | None:
    if terms.signers is not None and candidate.commit is None:
        raise Refused(Finding("", 0, "only signed commits are activated, and this is none: follow a git repository"))
    if terms.gate.bundle_key is not None and candidate.bundle is None:
        raise Refused(Finding("", 0, "only signed bundle files are activated, and this is none: sign one (opa sign)"))
    signer = None
    if terms.signers is not None and candidate.commit is not None:
        signer = terms.signers.signer_of(candidate.commit, datetime.now(UTC))
    if candidate.follows is False and not terms.allow_rollback:
        raise Refused(
            Finding("", 0, "the commit in force is not its ancestor; merge it, or set policy.trust.allow_rollback")
        )
    return signer


def _trust_step(candidate: Candidate, signer: Signer | None) -> list[dict[str, Any]]:
    if candidate.commit is None:
        return []
    said = f"signed by {signer.principal}" if signer else "no signature was asked for"
    if candidate.follows is not None:
        said += "; follows the commit in force" if candidate.follows else "; does not follow the commit in force"
    return [{"step": "trust", "outcome": "passed", "note": said, "findings": []}]


def _of(result: GateResult, signer: Signer | None, before: list[dict[str, Any]]) -> Examined:
    steps = [*before, *result.summary()]
    bundle = result.bundle if result.passed else None
    if bundle is not None and len(bundle.packed) > MAX_BUNDLE:
        too_large = Finding("", 0, f"the bundle is larger than {MAX_BUNDLE} bytes")
        steps.append({"step": "size", "outcome": "failed", "note": "", "findings": [too_large.to_json()]})
        bundle = None
    return Examined(bundle, signer, steps, result.impure_builtins, result.registry)
