"""What a collector's operator gives to auditors. Belongs to `main.py`: see there."""

from __future__ import annotations

import base64
import json
from hashlib import sha256

from sidecar.anchoring import timestamp_roots, witness_keys
from sidecar.collecting import verifier_key
from sidecar.collector.runs import Runs
from sidecar.collector.storage import Storage
from sidecar.collector_config import Collecting


def trust(config: Collecting, storage: Storage) -> bytes:
    """What an auditor needs (proto/LOG.md, "Trust file"): chains, log, witnesses, roots."""
    runs = Runs(storage)
    chains, custodians = [], set()
    for chain_id in sorted(runs.chains()):
        chain = runs.chain(chain_id)
        assert chain is not None
        chains.append({"chain": chain_id.hex(), "identity": chain.identity.hex()})
        spkis = (base64.b64decode(each["spki"]) for each in json.loads(chain.genesis)["custodians"])
        custodians |= {_fingerprint(spki) for spki in spkis}
    lines = [f"log {verifier_key(config)}"]
    names = [f"w{number}" for number, _ in enumerate(config.witnesses, 1)]
    lines += [f"witness {name} {key} {url}" for name, (key, url) in zip(names, witness_keys(config), strict=True)]
    lines += [f"group witnesses all {' '.join(names)}", "quorum witnesses"] if names else ["quorum none"]
    value = {
        "format": "sidecar/v1/trust",
        "chains": chains,
        "policy": "".join(f"{line}\n" for line in lines),
        "tsa_roots": [base64.b64encode(root).decode() for root in timestamp_roots(config)],
        "custodians": sorted(custodians),
    }
    return json.dumps(value, indent=2).encode() + b"\n"


def _fingerprint(spki: bytes) -> str:
    return sha256(spki).hexdigest()
