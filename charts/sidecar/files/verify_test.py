"""The second half of `helm test`: the ledger and the receipt that the first half was given hold. Prints the verdict."""

import json
import subprocess
import sys

ran = subprocess.run(
    ["sidecar", "verify", "/var/lib/sidecar/ledger", "--receipt", "/run/test/receipt.txt", "--json"],
    stdout=subprocess.PIPE,
    check=False,
)
report = json.loads(ran.stdout or "{}")
print(json.dumps(report, indent=2))
# UNANCHORED is the best that a ledger in no log can be: all that was checked holds. The receipt must be among that.
held = report.get("verdict") in ("OK", "UNANCHORED") and "receipts against their entries: 1" in report["checked"]
sys.exit(0 if held else 1)
