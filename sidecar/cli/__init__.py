"""The command line: one file a command. Errors are one line on stderr that names cause and mend; exit 2 for usage.

Rules: commands parse, call and print; what they do is in the rooms below.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from sidecar.errors import LedgerUnknown, SidecarError, UsageError

__all__ = ["main"]

DEFECT = 70  # EX_SOFTWARE: never 1, which `verify` keeps for a ledger that is not true


# A command is imported when it is run: gRPC, Wasmtime and the like take longer than most commands. What each is for
# stands here too, for the list of them.
def _demo() -> click.Command:
    """Watch an agent being judged, the record being shipped and verified, and three forgeries being found."""
    from sidecar.cli.demo import demo

    return demo


def _init() -> click.Command:
    """Make a new ledger, with a fresh identity key, in a directory that does not exist yet."""
    from sidecar.cli.init import init

    return init


def _serve() -> click.Command:
    """Answer decisions until SIGTERM or SIGINT, then seal the ledger and exit."""
    from sidecar.cli.serve import serve

    return serve


def _opa() -> click.Command:
    """Run an OPA for each policy of a sidecar, until SIGTERM or SIGINT, for a sidecar with opa_room set."""
    from sidecar.cli.opa import opa

    return opa


def _decide() -> click.Command:
    """Ask whether an agent may do something."""
    from sidecar.cli.ask import decide

    return decide


def _doctor() -> click.Command:
    """Look at everything that a sidecar needs, beside one that runs or before its first start."""
    from sidecar.cli.doctor import doctor

    return doctor


def _health() -> click.Command:
    """Ask a sidecar, or by http:// a collector, whether it is ready."""
    from sidecar.cli.health import health

    return health


def _outcome() -> click.Command:
    """Report what became of an allowed action."""
    from sidecar.cli.ask import outcome

    return outcome


def _verify() -> click.Command:
    """Check a ledger directory (also one being written to), a segment file or an evidence bundle."""
    from sidecar.cli.verify import verify

    return verify


def _show() -> click.Command:
    """Print the entries of a ledger directory, a segment file or an evidence bundle."""
    from sidecar.cli.show import show

    return show


def _replay() -> click.Command:
    """Re-run recorded decisions by the policy that made them, and list what comes out otherwise."""
    from sidecar.cli.replay import replay

    return replay


def _timeline() -> click.Command:
    """Tell what an agent attempted in a window, and what came of it."""
    from sidecar.cli.timeline import command

    return command


def _keys() -> click.Command:
    """Make keys for agents, custodians and authorities; hand out keys of single segments."""
    from sidecar.cli.keys import keys

    return keys


def _agents() -> click.Command:
    """Register agents, executors, approvers and users; a sidecar takes changes up within a second."""
    from sidecar.cli.agents import agents

    return agents


def _authority() -> click.Command:
    """Sign what only the authority may allow, as pruning; read what it signed."""
    from sidecar.cli.authority import authority

    return authority


def _approvals() -> click.Command:
    """See what waits for an approval; approve or reject it, signed."""
    from sidecar.cli.approvals import approvals

    return approvals


def _prune() -> click.Command:
    """Take payloads out of a ledger that no sidecar has open; first ask the authority for leave."""
    from sidecar.cli.prune import prune

    return prune


def _loss() -> click.Command:
    """Write a request to accept that entries are lost which the collector holds and this ledger does not."""
    from sidecar.cli.loss import loss

    return loss


def _policy() -> click.Command:
    """Check policies before they are activated, see which decided, and compare them."""
    from sidecar.cli.policy import policy

    return policy


def _collector() -> click.Command:
    """Run a collector: it takes what sidecars record, logs it for all to see, and hands back receipts."""
    from sidecar.cli.collector import collector

    return collector


def _subjects() -> click.Command:
    """See whose personal fields a ledger has sealed; open them; erase them with the authority's leave."""
    from sidecar.cli.subjects import subjects

    return subjects


def _evidence() -> click.Command:
    """Export what happened, so that somebody else can verify it without us."""
    from sidecar.cli.evidence import evidence

    return evidence


def _mcp() -> click.Command:
    """Stand between an MCP client and an MCP server: what the agent may not do does not reach it."""
    from sidecar.cli.mcp import mcp

    return mcp


def _bench() -> click.Command:
    """Measure this sidecar against bare OPA, the disk and openssl, in interleaved rounds."""
    from sidecar.cli.bench import bench

    return bench


COMMANDS: Final[dict[str, Callable[[], click.Command]]] = {
    "demo": _demo,
    "init": _init,
    "serve": _serve,
    "opa": _opa,
    "decide": _decide,
    "doctor": _doctor,
    "health": _health,
    "outcome": _outcome,
    "verify": _verify,
    "show": _show,
    "replay": _replay,
    "timeline": _timeline,
    "keys": _keys,
    "agents": _agents,
    "approvals": _approvals,
    "authority": _authority,
    "loss": _loss,
    "policy": _policy,
    "evidence": _evidence,
    "prune": _prune,
    "subjects": _subjects,
    "mcp": _mcp,
    "bench": _bench,
    "collector": _collector,
}


class Commands(click.Group):
    """A group whose commands are found by name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        load = COMMANDS.get(cmd_name)
        return None if load is None else load()

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of them in `--help`, without importing one."""
        named = click.Group(commands={name: click.Command(name, help=load.__doc__) for name, load in COMMANDS.items()})
        named.format_commands(ctx, formatter)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:  # it knows none of these names, which it could suggest
            raise click.exceptions.NoSuchCommand(error.command_name, possibilities=COMMANDS, ctx=ctx) from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="decision-sidecar", prog_name="sidecar")
def cli() -> None:
    """A policy decision point beside each AI agent that can prove what it answered and why."""


def main() -> None:
    """The program `sidecar`."""
    _end_when_asked()
    _hold_standard_streams()
    os.environ.setdefault(
        "GRPC_VERBOSITY", "NONE"
    )  # before it is imported: its lines are no JSON, and callers cause them
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as asked:  # a command of a group is to be named: here they are
        click.echo(asked.format_message(), err=True)
        sys.exit(2)
    except click.ClickException as error:
        message = error.format_message().replace("\n", " ").rstrip(".")
        click.echo(f"sidecar: {message}{_where_to_look(error)}", err=True)
        sys.exit(2)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except (UsageError, LedgerUnknown) as error:
        click.echo(f"sidecar: {error}", err=True)
        sys.exit(2)
    except SidecarError as error:
        click.echo(f"sidecar: {error}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(141)
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        click.echo(f"sidecar: cannot read or write{where}: {error.strerror or type(error).__name__}", err=True)
        sys.exit(2)
    except Exception as error:
        click.echo(f"sidecar: a defect of this program ({_origin(error)}); please report it", err=True)
        sys.exit(DEFECT)


def _where_to_look(error: click.ClickException) -> str:
    """The mend, where it is not in the message: a wrong value's says what is wrong with it."""
    says_all = isinstance(error, click.BadParameter) and not isinstance(error, click.MissingParameter)
    context = error.ctx if isinstance(error, click.UsageError) and not says_all else None
    return f"; see `{context.command_path} --help`" if context else ""


def _origin(error: Exception) -> str:
    """What was raised where, without its message, which may quote content."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(last.filename).name}, line {last.lineno}"


def _end_when_asked() -> None:
    """On SIGTERM, as by default: the first process of a container is spared that by the kernel, and would be killed
    when the grace is over. What serves sets its own way of ending."""
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))


def _hold_standard_streams() -> None:
    """Fill 0, 1 and 2 where they are closed: else the next file opened, the ledger perhaps, takes such a number and
    whatever a library writes to standard error goes into it."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number: this one
            setattr(sys, name, os.fdopen(number, mode))
