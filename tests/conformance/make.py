"""Write the published bundles, their trust files and what is due of them: `python -m tests.conformance.make DIR`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.conformance.cases import CASES, TRUST, expected

TABLE = Path(__file__).parent / "expected.json"


def table() -> str:
    """`expected.json`."""
    return json.dumps(expected(), indent=1, sort_keys=True) + "\n"


def make(directory: Path) -> None:
    """All of it."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, each in CASES.items():
        (directory / f"{name}.zip").write_bytes(each.make())
    for name, content in TRUST.items():
        (directory / name).write_bytes(content())
    (directory / "expected.json").write_text(table())


if __name__ == "__main__":
    if len(sys.argv) > 1:
        make(Path(sys.argv[1]))
    TABLE.write_text(table())
