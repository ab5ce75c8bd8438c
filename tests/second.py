"""The second verifier, `sidecar/evidence/verify.py`, run in this process on what the package's verifier was given.

The two share no code. A disagreement on verdict or first bad place is a defect of the specification first.
"""

from __future__ import annotations

import importlib.util
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

from sidecar.chain.cosignature import COSIGNATURE
from sidecar.chain.note import VerifierKey
from sidecar.chain.stream import Kind
from sidecar.verify import Evidence, Report, Trust
from sidecar.verify.policy import Policy

FILE = Path(__file__).parents[1] / "sidecar" / "evidence" / "verify.py"


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("second_verifier", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


VERIFY = _load()
Told = tuple[str, int | None, int | None]


def trust_file(trust: Trust) -> dict[str, Any]:
    """The trust file that says this."""
    value: dict[str, Any] = {
        "format": "sidecar/v1/trust",
        "chains": [{"chain": chain.hex(), "identity": key.hex()} for chain, key in trust.chains.items()],
        "custodians": [each.hex() for each in trust.custodians],
        "principals": [{"id": name, "keys": sorted(keys)} for name, keys in trust.principals.items()],
    }
    return value | ({} if trust.policy is None else {"policy": policy_text(trust.policy)})


def policy_text(policy: Policy) -> str:
    """The tlog-policy that says this."""
    rows = [f"log {key}" for key in policy.logs]
    for name, key in policy.witnesses.items():
        rows.append(f"witness {name} {VerifierKey(key.name, key.public_key, COSIGNATURE)}")
    rows += [f"group {name} {count} {' '.join(members)}" for name, (count, members) in policy.groups.items()]
    return "".join(f"{row}\n" for row in [*rows, f"quorum {policy.quorum}"])


def first_bad(report: Report) -> Told:
    """Verdict and first bad place, as the package has it."""
    bad = report.first_bad()
    return (report.verdict.name, None, None) if bad is None else (report.verdict.name, bad.segment, bad.seq)


def second(data: bytes, evidence: Evidence) -> tuple[Told, Any]:
    """Verdict and first bad place, as the second verifier has it, and its report."""
    report = VERIFY.Report()
    disclosed = []
    if evidence.disclosure is not None and evidence.disclosure.chain_id in data:
        disclosed = [
            {"segment": n, "mac_key": keys.mac_key.hex(), "tag_key": keys.tag_key.hex()}
            for n, keys in evidence.disclosure.segments.items()
        ]
    trust = None if evidence.trust is None else trust_file(evidence.trust)
    held = (list(evidence.receipts), [*evidence.logged, *evidence.consistency, *evidence.timestamps])
    openings = {} if evidence.openings is None else VERIFY.read_openings(evidence.openings.encode())
    VERIFY.judge_stream(BytesIO(data).read, report, trust, disclosed, *held, openings)
    bad = next((found for found in report.findings() if found[0] > VERIFY.UNANCHORED), None)
    verdict = VERIFY.VERDICTS[report.worst]
    return ((verdict, None, None) if bad is None else (verdict, bad[2], bad[3])), report


def comparable(data: bytes, evidence: Evidence) -> bool:
    """The second verifier is for whole ledgers and bundles: not for segment files, nor for a ledger that keeps its end.

    Nor is it for a custodian's key and the signature of a timestamp.
    """
    starts_with_context = data[8:9] in (bytes((Kind.GENESIS,)), b"")
    return not starts_with_context and evidence.open_seed is None and not evidence.timestamps


def assert_agree(data: bytes, evidence: Evidence, report: Report) -> None:
    """The second verifier comes to the same verdict and first bad place."""
    told, other = second(data, evidence)
    assert told == first_bad(report), (told, first_bad(report), report.findings[:6], other.findings()[:6])
