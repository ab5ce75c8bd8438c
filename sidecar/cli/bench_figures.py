"""What `sidecar bench` found, and how it is said: figures with their spread, and targets met or missed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


def percentile(values: Sequence[float], share: float) -> float:
    """The value that so many of them, from 0 to 1, do not exceed. There is one at least."""
    ordered = sorted(values)
    return ordered[round((len(ordered) - 1) * share)]


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure, measured once in each round. ``unit`` is "s" (seconds), "/s" (a second), "B/s" or "B"."""

    name: str
    unit: str
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError(f"{self.name}: no value")

    @property
    def median(self) -> float:
        """The middle one; what ratios are made of."""
        return statistics.median(self.values)

    @property
    def spread(self) -> tuple[float, float]:
        """p10 and p90 over the rounds."""
        return percentile(self.values, 0.1), percentile(self.values, 0.9)

    def line(self) -> str:
        """One line for a person."""
        low, high = (_said(v, self.unit) for v in self.spread)
        return f"{self.name:<58} {_said(self.median, self.unit):>12}   {low} to {high}"


@dataclass(frozen=True, slots=True)
class Target:
    """What the project promises, held against what was found. ``found`` and ``limit`` are in ``unit`` ("x": a ratio).

    ``judged`` is "" or says why the run was too small to judge by.
    """

    name: str
    found: float
    limit: float
    at_most: bool
    unit: str = "x"
    judged: str = ""

    @property
    def met(self) -> bool:
        """Whether the limit is kept."""
        return self.found <= self.limit if self.at_most else self.found >= self.limit

    def line(self) -> str:
        """One line for a person."""
        word = f"not judged: {self.judged}" if self.judged else "MET" if self.met else "MISSED"
        sign = "≤" if self.at_most else "≥"
        text = f"{self.name}: {_said(self.found, self.unit)} (target {sign} {_said(self.limit, self.unit)})"
        return f"{text:<92} {word}"


@dataclass(slots=True)
class Findings:
    """Everything a run found. ``left_out``: a part by name, and why it was not measured."""

    figures: dict[str, Figure] = field(default_factory=dict)
    targets: list[Target] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, unit: str, values: Sequence[float]) -> Figure:
        """Keep a figure. Its name is new."""
        figure = Figure(name, unit, tuple(values))
        if name in self.figures:
            raise ValueError(f"figure {name} twice")
        self.figures[name] = figure
        return figure

    def hold(self, name: str, found: float, limit: float, *, at_most: bool, unit: str = "x", judged: str = "") -> None:
        """Keep a target."""
        self.targets.append(Target(name, found, limit, at_most, unit, judged))

    def to_json(self, machine: Mapping[str, str]) -> dict[str, Any]:
        """All of it, for `--json`: figures with every round's value, in seconds, bytes and their ratios."""
        return {
            "machine": dict(machine),
            "figures": [
                {"name": f.name, "unit": f.unit, "median": f.median, "p10": f.spread[0], "p90": f.spread[1],
                 "rounds": list(f.values)}
                for f in self.figures.values()
            ],
            "targets": [
                {"name": t.name, "unit": t.unit, "found": t.found, "limit": t.limit,
                 "sign": "<=" if t.at_most else ">=", "met": None if t.judged else t.met, "not_judged": t.judged}
                for t in self.targets
            ],
            "left_out": dict(self.left_out),
        }  # fmt: skip

    def lines(self, machine: Mapping[str, str]) -> list[str]:
        """All of it, for a person."""
        lines = [f"{name:<12} {value}" for name, value in machine.items()]
        lines += ["", f"{'':<58} {'median':>12}   p10 to p90 over the rounds"]
        lines += [figure.line() for figure in self.figures.values()]
        lines += ["", *(target.line() for target in self.targets)]
        return lines + [f"left out: {name}: {why}" for name, why in self.left_out.items()]


def _said(value: float, unit: str) -> str:
    if unit == "x":
        return f"{value:.2f}x"
    if unit == "/s":
        return f"{value:,.0f}/s"
    if unit in ("B", "B/s"):
        return f"{value / 1e6:,.1f} M{unit}"
    size = abs(value)
    factor, name = (1e6, "µs") if size < 1e-3 else (1e3, "ms") if size < 1 else (1.0, "s")
    return f"{value * factor:.3g} {name}"
