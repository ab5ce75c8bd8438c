"""What a policy may use: the capabilities of the `opa` at hand without every built-in that is not pure.

`opa capabilities --current` marks those ("nondeterministic"). Without them a policy is a function of its input and
data, so that a past decision can be run again exactly. `allow_net` is empty: else the schemas that a policy names in
its metadata are fetched from wherever it says, while it is being checked.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sidecar.errors import UsageError

from .findings import refused
from .opa_bounded import Bounds, run_opa
from .opa_program import OpaProgram

_OF_THE_NETWORK: Final = {"http.send", "net.lookup_ip_addr"}


@dataclass(frozen=True, slots=True)
class Capabilities:
    """``text`` is the JSON that opa reads; ``impure`` are all built-ins of this opa that are not pure."""

    text: str
    impure: frozenset[str]


def pure_capabilities(
    program: OpaProgram,
    allowed: Iterable[str],
    place: Path,
    bounds: Bounds,
    broken_off: threading.Event | None = None,
) -> Capabilities:
    """The pure capabilities, and the built-ins ``allowed`` besides. ``broken_off``: as `run_opa`'s.

    Raises `UsageError` for a built-in that is allowed but is none, or is pure and needs no leave.
    """
    said = run_opa(program, ["capabilities", "--current"], place, bounds, broken_off)
    try:
        every: dict[str, Any] = json.loads(said.out)
        impure = frozenset(b["name"] for b in every["builtins"] if b.get("nondeterministic"))
    except (ValueError, KeyError, TypeError):
        raise refused("opa capabilities did not say what this opa can do; install a released OPA") from None
    given = frozenset(allowed)
    if unknown := sorted(given - impure):
        raise UsageError(
            f"--allow-builtin {unknown[0]!r}: not a built-in that needs leave; those are {', '.join(sorted(impure))}"
        )
    every["builtins"] = [b for b in every["builtins"] if b["name"] not in impure - given]
    if not given & _OF_THE_NETWORK:
        every["allow_net"] = []
    return Capabilities(json.dumps(every), impure)
