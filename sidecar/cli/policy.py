"""`sidecar policy check` and `sidecar policy test`: the gate, for the policy repository and its CI."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import click

from sidecar.chain.strictjson import dumps
from sidecar.cli.policy_diff import diff
from sidecar.cli.policy_show import show
from sidecar.cli.words import plain
from sidecar.policy import (
    STARTER_ENTRYPOINT,
    GateResult,
    GateSettings,
    GateStep,
    OpaProgram,
    check_policy,
    find_opa,
    try_policy,
)

_MARKS: Final = {"passed": "✓", "failed": "✗", "not run": "–"}

_directory = click.argument("directory", metavar="DIR", type=click.Path(path_type=Path, exists=True, file_okay=False))
_entrypoint = click.option(
    "--entrypoint", default=STARTER_ENTRYPOINT, show_default=True, metavar="RULE", help="The rule that decides."
)
_engine = click.option(
    "--engine",
    type=click.Choice(["opa", "wasm"]),
    default="opa",
    show_default=True,
    help="Who evaluates the policy in use.",
)
_allow = click.option(
    "--allow-builtin",
    "allowed",
    multiple=True,
    metavar="NAME",
    help="Let the policy use a built-in that is not pure; its decisions cannot be re-run exactly. Repeatable.",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group()
def policy() -> None:
    """Check policies before they are activated, see which decided, and compare them."""


policy.add_command(show)
policy.add_command(diff)


@policy.command()
@_directory
@_entrypoint
@_engine
@click.option(
    "--min-coverage",
    type=click.FloatRange(0, 100),
    default=80.0,
    show_default=True,
    metavar="PERCENT",
    help="Lines of the policy that its tests must run.",
)
@_allow
@_json
def check(
    directory: Path, entrypoint: str, engine: str, min_coverage: float, allowed: tuple[str, ...], as_json: bool
) -> None:
    """Take a policy directory through the whole gate.

    The directory holds Rego with its tests, and expectations.yaml with decisions that must come out as written. Needs
    the program opa. Exit: 0 passed; 1 refused, each finding with file and line; 2 usage.

    \b
    Example:
      sidecar policy check policies/ --engine wasm --min-coverage 90
    """
    settings = GateSettings(entrypoint, engine, min_coverage=min_coverage, allow_builtins=allowed)
    _run(check_policy, directory, settings, as_json)


@policy.command()
@_directory
@_entrypoint
@_engine
@_allow
@_json
def test(directory: Path, entrypoint: str, engine: str, allowed: tuple[str, ...], as_json: bool) -> None:
    """Run only the tests and the expectations of a policy directory, without coverage.

    \b
    Example:
      sidecar policy test policies/
    """
    _run(try_policy, directory, GateSettings(entrypoint, engine, allow_builtins=allowed), as_json)


_Gate = Callable[[OpaProgram, Path, GateSettings, Callable[[GateStep], object] | None], Awaitable[GateResult]]


def _run(gate: _Gate, directory: Path, settings: GateSettings, as_json: bool) -> None:
    program = find_opa()
    logging.getLogger("sidecar.opa").setLevel(logging.ERROR)  # its warnings are about servers

    async def whole() -> GateResult:
        return await gate(program, directory, settings, None if as_json else lambda step: _print(step, directory))

    result = asyncio.run(whole())
    if as_json:
        click.echo(dumps(result.to_json()))
    else:
        click.echo(_conclusion(result))
    sys.exit(0 if result.passed else 1)


def _print(step: GateStep, directory: Path) -> None:
    said = step.note or step.outcome
    click.echo(f"{_MARKS[step.outcome]} {step.name:<12} {step.seconds:6.2f} s  {plain(said)}")
    for finding in step.findings:
        place = str(directory / finding.file) if finding.file else str(directory)
        line = f":{finding.line}" if finding.line else ""
        click.echo(f"    {plain(place)}{line}: {plain(finding.message)}")


def _conclusion(result: GateResult) -> str:
    if not result.passed:
        return "refused"
    if result.pure:
        return "passed"
    return f"passed, but its decisions cannot be re-run exactly: it uses {', '.join(result.impure_builtins)}"
