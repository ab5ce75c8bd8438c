"""The published bundles, their trust files, and the table of what is due.

python -m tests.conformance.make DIRECTORY        # writes them all
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.conformance import (  # noqa: F401  they register their bundles
    case_authority,
    case_claims,
    case_containers,
    case_damage,
    case_forged,
    case_gateways,
    case_personal,
)
from tests.conformance.chains import (
    approved,
    chain,
    pruned,
    trust,
)
from tests.conformance.published import CASES, ids
from tests.notary import Notary

TRUST: dict[str, Callable[[], bytes]] = {
    "trust.json": lambda: trust(chain(), pruned(), approved(), case_gateways.ledger(), case_forged.ledger()),
    "trust-two.json": lambda: trust(chain(), chain("case-two")),
    "trust-no-log.json": lambda: _without_policy(),
    "trust-no-witness.json": lambda: _policy(Notary().policy()),
    "trust-another-chain.json": lambda: trust(chain("case-two")),
    "trust-personal.json": lambda: trust(case_personal.ledger()),
    "trust-personal-kept.json": lambda: trust(case_personal.ledger(retention="sec-17a-4")),
}
CHAINS: dict[str, Callable[[], list[bytes]]] = {
    "trust-two.json": ids,
    "trust-personal.json": lambda: [case_personal.ledger().chain_id],
    "trust-personal-kept.json": lambda: [case_personal.ledger(retention="sec-17a-4").chain_id],
}
"""Ids of the case's chains, by trust file; elsewhere it is the one that its maker names."""


def _without_policy() -> bytes:
    value = json.loads(trust(chain()))
    del value["policy"]
    return json.dumps(value).encode()


def _policy(policy: str) -> bytes:
    return json.dumps({**json.loads(trust(chain())), "policy": policy}).encode()


def expected() -> dict[str, Any]:
    """The table: for each bundle the trust file to give, verdict and first bad place (chain by id)."""
    table = {}
    for name, each in sorted(CASES.items()):
        due = each.due
        chains = CHAINS[each.trust]() if each.trust in CHAINS else [each.of().chain_id]
        place = {
            "chain": None if due.chain is None else chains[due.chain].hex(),
            "segment": due.segment,
            "seq": due.seq,
        }
        bad = due.verdict not in ("OK", "REDACTED", "PRUNED", "UNANCHORED")
        table[name] = {"trust": each.trust, "verdict": due.verdict, "first_bad": place if bad else None}
    return table
