"""The command line: one file a command. Errors are one line on stderr that names cause and mend; exit 2 for usage.

Rules: commands parse, call and print; what they do is in the rooms below.
"""

from __future__ import annotations

import sys

import click

from sidecar.errors import SidecarError, UsageError

from . import ask, bench, demo, init, keys, serve, show, verify

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="decision-sidecar", prog_name="sidecar")
def cli() -> None:
    """A policy decision point beside each AI agent that can prove what it answered and why."""


for command in (
    demo.demo,
    init.init,
    serve.serve,
    ask.decide,
    ask.outcome,
    verify.verify,
    show.show,
    keys.keys,
    bench.bench,
):
    cli.add_command(command)


def main() -> None:
    """The program `sidecar`."""
    try:
        cli.main(standalone_mode=False)
    except click.ClickException as error:
        message = error.format_message().replace("\n", " ")
        click.echo(f"sidecar: {message}", err=True)
        sys.exit(2)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except UsageError as error:
        click.echo(f"sidecar: {error}", err=True)
        sys.exit(2)
    except SidecarError as error:
        click.echo(f"sidecar: {error}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(141)
