"""The policy room: asks a policy, and judges whether what came back is a decision.

Owns the engine port (`Engine`), the engine for a running OPA (`OpaEngine`), the one that starts an OPA and keeps it
running (`SupervisedOpa`), here or in another container (`OpaRoom`, `Keeper`), the embedded one for bundles compiled to
Wasm (`WasmEngine`), the reading of bundles, and the verdict. Also the gate that a policy directory must pass before it
is used (`check_policy`), and the re-running of inputs (`rerun`). Rules: an engine raises `EngineError` and nothing
else; whatever is not plainly a decision raises and never becomes ALLOW; the policy sees only the input document, no
clock and no network. This room knows nothing of the ledger. `STARTER_BUNDLE` is the starter policy of `rego/`, built
by `rego/build.py`; `STARTER_SOURCE` is its sources, packed.
"""

from pathlib import Path
from typing import Final

from .archived import archived_opa, archived_wasm
from .bundle import Bundle, open_bundle
from .bundle_signature import BundleKey, verify_bundle
from .engine import Engine, Evaluation, PolicyVersion, check_entrypoint
from .examine import Examined, Terms, examine, refusal
from .findings import Finding, Refused
from .gate import build_files, check_bundle, check_files, check_policy, try_policy
from .gate_result import GateResult, GateSettings
from .gate_result import Step as GateStep
from .git_source import GitSettings, GitSource
from .opa import OpaEngine
from .opa_bounded import Bounds
from .opa_program import BuiltPolicy, OpaProgram, find_opa
from .opa_room import Keeper, OpaRoom, room_in, sockets_in
from .opa_steps import Coverage
from .path_source import PathSource
from .rerun import Rerun, rerun
from .signers import AllowedSigners, Signer
from .source import Candidate, Commit, Source
from .supervised import Pace, SupervisedOpa
from .switch import Retired, Switch
from .tree import TreeLimits
from .verdict import Approval, Effect, Obligation, Reason, Verdict, interpret
from .versions import Policy, deciding, read_bundle, read_policy
from .wasm import WasmEngine

STARTER_BUNDLE: Final = Path(__file__).with_name("starter.tar.gz")
STARTER_SOURCE: Final = STARTER_BUNDLE.with_name("starter_source.tar.gz")
STARTER_ENTRYPOINT: Final = "agents/decision"

__all__ = [
    "STARTER_BUNDLE",
    "STARTER_ENTRYPOINT",
    "STARTER_SOURCE",
    "AllowedSigners",
    "Approval",
    "Bounds",
    "BuiltPolicy",
    "Bundle",
    "BundleKey",
    "Candidate",
    "Commit",
    "Coverage",
    "Effect",
    "Engine",
    "Evaluation",
    "Examined",
    "Finding",
    "GateResult",
    "GateSettings",
    "GateStep",
    "GitSettings",
    "GitSource",
    "Keeper",
    "Obligation",
    "OpaEngine",
    "OpaProgram",
    "OpaRoom",
    "Pace",
    "PathSource",
    "Policy",
    "PolicyVersion",
    "Reason",
    "Refused",
    "Rerun",
    "Retired",
    "Signer",
    "Source",
    "SupervisedOpa",
    "Switch",
    "Terms",
    "TreeLimits",
    "Verdict",
    "WasmEngine",
    "archived_opa",
    "archived_wasm",
    "build_files",
    "check_bundle",
    "check_entrypoint",
    "check_files",
    "check_policy",
    "deciding",
    "examine",
    "find_opa",
    "interpret",
    "open_bundle",
    "read_bundle",
    "read_policy",
    "refusal",
    "rerun",
    "room_in",
    "sockets_in",
    "try_policy",
    "verify_bundle",
]
