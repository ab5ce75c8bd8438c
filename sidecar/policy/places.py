"""Where in a policy's sources something is, and how what was found there is said."""

from __future__ import annotations

import re

from .findings import Finding
from .opa_steps import Coverage


def too_little(coverage: Coverage, least: float) -> str:
    """What is said of tests that run less than ``least`` percent of the policy's lines."""
    if not any(file.percent for file in coverage.files.values()):
        return f"no line of the policy is covered by a test, {least:g} % must be; write tests in files *_test.rego"
    return f"the tests cover {coverage.percent:.1f} % of the policy's lines, {least:g} % is the least"


def uncovered(coverage: Coverage) -> list[Finding]:
    """One for each file with lines that no test ran, at the first of them; the least covered file first."""
    lacking = sorted((f.percent, name, f.uncovered) for name, f in coverage.files.items() if f.uncovered)
    return [Finding(name, rows[0], f"{percent:.1f} % covered; not: {_spans(rows)}") for percent, name, rows in lacking]


def _spans(rows: tuple[int, ...]) -> str:
    """3, 4, 5, 9 as "3-5, 9"."""
    spans: list[list[int]] = []
    for row in rows:
        if spans and row == spans[-1][1] + 1:
            spans[-1][1] = row
        else:
            spans.append([row, row])
    return ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in spans)


def unloadable(cause: str, files: dict[str, bytes]) -> list[Finding]:
    """Why the Wasm engine does not load a bundle; for built-ins it lacks, the first place of each."""
    listed = re.search(r"does not supply: ([^;]+);", cause)
    if listed is None:
        return [Finding("", 0, cause)]
    return [
        Finding(
            *_first(rf"(?<![\w.]){re.escape(name)}\b", files), f"the wasm engine does not supply the built-in {name}"
        )
        for name in listed[1].split(", ")
    ]


def place_of(entrypoint: str, files: dict[str, bytes]) -> tuple[str, int]:
    """Where the entry point's rule is, or its package; a hint for people, found by looking at the text."""
    *package, rule = entrypoint.split("/")
    head = rf"^package\s+{re.escape('.'.join(package))}\s*(#.*)?$"
    owning = {name: raw for name, raw in files.items() if _first(head, {name: raw})[0]}
    place = _first(rf"^(default\s+)?{re.escape(rule)}\b", owning)
    return place if place[0] else _first(head, owning)


def _first(pattern: str, files: dict[str, bytes]) -> tuple[str, int]:
    """File and line of the first match in Rego that is no test; "" and 0 for none."""
    for name, raw in files.items():
        if name.endswith(".rego") and not name.endswith("_test.rego"):
            text = raw.decode(errors="replace")
            if found := re.search(pattern, text, re.MULTILINE):
                return name, text.count("\n", 0, found.start()) + 1
    return "", 0
