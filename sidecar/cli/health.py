"""`sidecar health`: for probes. It imports next to nothing, since a probe is a new process every few seconds."""

from __future__ import annotations

import sys

import click

from sidecar.probe import ask


@click.command()
@click.option("--server", required=True, metavar="ADDR", help="unix:/path, host:port, or http://host:port of /metrics.")
@click.option("--live", is_flag=True, help="Ask whether it is live, not whether it can decide now.")
@click.option("--timeout", type=click.FloatRange(0.05, 60), default=2.0, show_default=True, help="Seconds in all.")
def health(server: str, live: bool, timeout: float) -> None:
    """Ask a sidecar, or by http:// a collector, whether it is ready. Exit: 0 ready; 1 not, and why; 2 usage.

    Where decisions are asked for over TLS, ask the listener for metrics.

    \b
    Example:
      sidecar health --server unix:/run/sidecar/sidecar.sock
    """
    word = ask(server, live=live, timeout=timeout)
    wanted = "live" if live else "ready"
    if word.well:
        click.echo(f"{wanted}, but {word.cause}" if word.cause else wanted)
    else:
        click.echo(f"not {wanted}: {word.cause}")
    sys.exit(not word.well)
