"""`sidecar doctor`: what is wrong with a sidecar's place, and how to mend it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Final

import click

from sidecar.chain.strictjson import dumps
from sidecar.config import load
from sidecar.errors import UsageError

_SIGNS: Final = {"ok": "✓", "careful": "!", "wrong": "✗", "skipped": "-"}


@click.command()
@click.option("--config", "file", type=click.Path(path_type=Path), help="TOML file of settings, as `serve` takes it.")
@click.option("--data-dir", help="The ledger's directory.")
@click.option("--agent-uid", type=click.IntRange(0, 2**32 - 2), help="The user that the agent's process runs as.")
@click.option("--agent-gid", type=click.IntRange(0, 2**32 - 2), multiple=True, help="Its groups. Repeatable.")
@click.option("--egress", multiple=True, help="HOST:PORT outside: try to reach it as the agent's user. Repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(
    file: Path | None,
    data_dir: str | None,
    agent_uid: int | None,
    agent_gid: tuple[int, ...],
    egress: tuple[str, ...],
    as_json: bool,
) -> None:
    """Look at everything that a sidecar needs, beside one that runs or before its first start. Writes nothing.

    Exit: 0 nothing is wrong (what is marked ! is allowed, and weakens something); 1 something is; 2 usage.

    \b
    Example:
      sidecar doctor --config /etc/sidecar/sidecar.toml --agent-uid 1000
    """
    from sidecar.doctor import Patient, examine

    if (egress or agent_gid) and agent_uid is None:
        which = "--egress is tried as the agent's user" if egress else "--agent-gid says whose groups they are"
        raise UsageError(f"{which}: give --agent-uid too")
    config, _ = load(file, os.environ, {} if data_dir is None else {"data_dir": data_dir})
    found = list(examine(Patient(config, file, agent_uid, frozenset(agent_gid), egress)))
    count = {state: sum(each.state == state for each in found) for state in _SIGNS}
    if as_json:
        members: list[dict[str, Any]] = [
            {"check": each.check, "state": each.state, "found": each.found, "mend": each.mend} for each in found
        ]
        click.echo(dumps({"findings": members, **count}))
    else:
        for each in found:
            mend = f"; {each.mend}" if each.mend else ""
            click.echo(f"{_SIGNS[each.state]} {each.check:<12} {each.found}{mend}")
        click.echo(f"{count['wrong']} wrong, {count['careful']} to be careful with")
    sys.exit(count["wrong"] > 0)
