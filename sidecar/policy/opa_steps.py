"""What the gate asks of `opa` over a policy directory: check, test with coverage, build, inspect; each in one run.

``place`` is the gate's scratch directory: the policy in `policy`, beside it `capabilities.json`.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sidecar.chain.printable import number_of

from .bundle import pack, unpack
from .findings import Finding, Refused, refused
from .opa_bounded import Bounds, Said, run_opa
from .opa_program import BuiltPolicy, OpaProgram

POLICY: Final = "policy"
CAPABILITIES: Final = "capabilities.json"
_BUILT: Final = "built.tar.gz"
_STRICT: Final = ("--bundle", "--capabilities", f"../{CAPABILITIES}")
# "error: load error: bundle load failed on data.json: what is wrong", "p.rego:3: rego_parse_error: what is wrong"
_LINE: Final = re.compile(r"^(?:[^:/]*: )*?(?:bundle load failed on )?([^:\s]*\w+\.\w+):(?:(\d+):(?:\d+:)?)? ?(\S.*)$")
_COUNT: Final = re.compile(r"\d+ errors? occurred.*:\s*$")
_TEST_SECONDS: Final = 10


@dataclass(frozen=True, slots=True)
class FileCoverage:
    """Of one file: how much of it the tests ran, 0 to 100, and the lines they did not."""

    percent: float
    uncovered: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """As ``--json`` has it; percent to one decimal."""
        return {"percent": round(self.percent, 1), "uncovered": list(self.uncovered)}


@dataclass(frozen=True, slots=True)
class Coverage:
    """Of the policy without its tests: lines that the tests ran, 0 to 100, and the same of each file."""

    percent: float
    files: dict[str, FileCoverage]

    def to_json(self) -> dict[str, Any]:
        """As ``--json`` has it; percent to one decimal."""
        files = {name: file.to_json() for name, file in self.files.items()}
        return {"percent": round(self.percent, 1), "files": files}


class OpaSteps:
    """The runs of ``program`` over the policy in ``place``, each within ``bounds``. All raise `Refused`.

    ``broken_off``: once it is set, a run ends at once.
    """

    def __init__(
        self, program: OpaProgram, place: Path, bounds: Bounds, broken_off: threading.Event | None = None
    ) -> None:
        self._program, self._place, self._bounds, self._broken_off = program, place, bounds, broken_off

    def check(self, *, strict: bool = True) -> None:
        """Parse and compile. What `opa build -t wasm` leaves over is never strict: it imports what is gone."""
        said = self._run(
            "check", *(["--strict"] if strict else []), *_STRICT, "--max-errors", "100", "--format", "json", "."
        )
        if said.status != 0:
            raise Refused(*_errors(said, "opa check failed"))

    def test(self) -> str:
        """Run the tests and say in words how many passed. Raises `Refused` with each that failed, and where."""
        said = self._run("test", *_STRICT, "--format", "json", "--timeout", f"{_TEST_SECONDS}s", ".")
        try:
            ran = json.loads(said.out)
            failed = [_failed_test(test) for test in ran if "fail" in test or "error" in test]
            skipped = sum(1 for test in ran if test.get("skip"))
        except (ValueError, TypeError, KeyError, AttributeError):
            raise Refused(*_errors(said, "opa test failed")) from None
        if failed:
            raise Refused(*failed)
        return number_of(len(ran) - skipped, "test") + (f", {skipped} skipped" if skipped else "")

    def cover(self) -> Coverage | None:
        """Coverage, or None when the tests do not all pass."""
        flags = ("--coverage", "--format", "json", "--exit-zero-on-skipped", "--timeout", f"{_TEST_SECONDS}s")
        said = self._run("test", *_STRICT, *flags, ".")
        if said.status != 0:
            return None
        try:
            return _coverage(json.loads(said.out)["files"])
        except (ValueError, TypeError, KeyError, AttributeError):
            raise refused("opa test did not report coverage as opa does; install a released OPA") from None

    def build(self, revision: str, *, wasm: str = "") -> BuiltPolicy:
        """Build the bundle without tests: for OPA, or with ``wasm`` as its entry point compiled to Wasm."""
        target = ("--target", "wasm", "--entrypoint", wasm) if wasm else ()
        named = ("--revision", revision) if revision else ()  # else the manifest's own stays
        flags = ("--ignore", "*_test.rego", "--output", f"../{_BUILT}")
        said = self._run("build", *_STRICT, *flags, *named, *target, ".")
        if said.status != 0:
            raise Refused(*_errors(said, "opa build failed"))
        members = unpack((self._place / _BUILT).read_bytes())
        packed = pack(members)
        return BuiltPolicy(packed, hashlib.sha256(packed).hexdigest())

    def used_builtins(self, bundle: bytes) -> frozenset[str]:
        """The built-ins that a bundle's Rego needs."""
        (self._place / _BUILT).write_bytes(bundle)
        said = self._run("inspect", "--format", "json", f"../{_BUILT}")
        try:
            return frozenset(b["name"] for b in json.loads(said.out)["capabilities"].get("builtins") or [])
        except (ValueError, TypeError, KeyError):
            raise Refused(*_errors(said, "opa inspect did not say which built-ins the policy uses")) from None

    def _run(self, *arguments: str) -> Said:
        return run_opa(self._program, list(arguments), self._place / POLICY, self._bounds, self._broken_off)


def _errors(said: Said, otherwise: str) -> list[Finding]:
    """opa's errors, from its JSON or from its lines; never none."""
    for text in (said.err, said.out.decode(errors="replace")):
        try:
            return [_error(one) for one in json.loads(text)["errors"]] or [Finding("", 0, otherwise)]
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
    lines = [line for line in (said.err or said.out.decode(errors="replace")).splitlines() if line.strip()]
    found = [_from_line(line) for line in lines if _LINE.match(line) and not _COUNT.search(line)]
    return found or [Finding("", 0, lines[0].removeprefix("error: ") if lines else otherwise)]


def _error(one: dict[str, Any]) -> Finding:
    location, message = one.get("location"), str(one["message"])
    if isinstance(location, dict) and location.get("file"):
        return Finding(str(location["file"]), int(location.get("row", 0)), message)
    return _from_line(message)


def _from_line(line: str) -> Finding:
    found = _LINE.match(line)
    return Finding(found[1].strip(), int(found[2] or 0), found[3]) if found else Finding("", 0, line)


def _failed_test(test: dict[str, Any]) -> Finding:
    place = test["location"]
    error = test.get("error")
    because = f": {' '.join(str(error.get('message', '')).split())}" if isinstance(error, dict) else ""
    name = f"{str(test['package']).removeprefix('data.')}.{test['name']}"
    return Finding(str(place["file"]), int(place["row"]), f"{name} failed{because}")


def _coverage(files: dict[str, Any]) -> Coverage:
    made: dict[str, FileCoverage] = {}
    covered = total = 0
    for name, file in sorted(files.items()):
        if name.endswith("_test.rego"):
            continue
        hit, missed = int(file.get("covered_lines", 0)), int(file.get("not_covered_lines", 0))
        parts = [(part["start"]["row"], part["end"]["row"]) for part in file.get("not_covered") or []]
        rows = {row for first, last in parts for row in range(first, last + 1)}
        made[name] = FileCoverage(100 * hit / max(1, hit + missed), tuple(sorted(rows)))
        covered, total = covered + hit, total + hit + missed
    return Coverage(100 * covered / max(1, total), made)
