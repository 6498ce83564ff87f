"""The root command, and what becomes of errors, interrupts and broken pipes."""

from __future__ import annotations

import os
import sys

import click

from riverrun.cli.exits import Complaint, Exit, tell, write_note
from riverrun.cli.groups import Group, Late
from riverrun.cli.settings import Settings, asks_for_json

PROGRAM = "riverrun"
COMPLETION_VARIABLE = "_RIVERRUN_COMPLETE"


def _show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    """Print the version and stop."""
    if not wanted or ctx.resilient_parsing:
        return
    from importlib.metadata import version  # noqa: PLC0415 - costs 30 ms

    click.echo(f"{PROGRAM} {version('riverrun')}")
    ctx.exit()


cli = Group(
    name=PROGRAM,
    root=True,
    late={
        "topic": Late("riverrun.cli.topic:topic", "Make, look at, change and delete topics."),
        "produce": Late("riverrun.cli.produce:produce", "Write records from standard input."),
        "consume": Late("riverrun.cli.consume:consume", "Write records to standard output."),
        "group": Late(
            "riverrun.cli.group:group", "Look at groups and their committed offsets, and move them."
        ),
        "cluster": Late(
            "riverrun.cli.cluster:cluster", "Look at the brokers, elect leaders, drain a broker."
        ),
        "perf": Late("riverrun.cli.perf:perf", "Measure throughput and latency."),
        "doctor": Late("riverrun.cli.doctor:doctor", "Check what clients need from a broker."),
        "completion": Late("riverrun.cli.completion:completion", "Print completion for a shell."),
    },
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_show_version,
            help="Print the version.",
        )
    ],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="""Event streaming from the shell.

    \b
    riverrun topic create orders --partitions 3
    echo 'hello' | riverrun produce orders
    riverrun consume orders --from -10     # the last 10 of each partition

    Standard output carries data only; notes and errors go to standard error. Global options may
    stand before or after the command. Try `riverrun COMMAND --help`.""",
)


def run(args: list[str] | None = None) -> int:
    """Run the command line; return its exit code, having told any error in one line."""
    settings = Settings()
    given = sys.argv[1:] if args is None else args
    # grpc's own log would stand between the lines of standard error.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        outcome = _invoke(given, settings)
        sys.stdout.flush()
    except (KeyboardInterrupt, EOFError, click.Abort):
        return Exit.INTERRUPTED
    except BrokenPipeError:
        silence_stdout()
        return Exit.OK
    except click.exceptions.NoArgsIsHelpError as bare:
        write_note(bare.format_message())
        return Exit.USAGE
    except Complaint as complaint:
        tell(complaint, as_json=settings.as_json)
        return complaint.code
    except click.ClickException as error:
        # Where reading the command line has stopped at a mistake, what stands behind it counts too.
        misuse = _misuse(error)
        tell(misuse, as_json=settings.as_json or asks_for_json(given))
        return misuse.code
    return outcome if isinstance(outcome, int) else Exit.OK


def _invoke(args: list[str], settings: Settings) -> object:
    """Read the command line and run what it says; return what the command returns."""
    if COMPLETION_VARIABLE in os.environ:
        return cli.main(args, PROGRAM, COMPLETION_VARIABLE, obj=settings)
    # Not cli.main(), which turns a broken pipe into exit code 1.
    try:
        with cli.make_context(PROGRAM, list(args), obj=settings) as context:
            return cli.invoke(context)
    except click.exceptions.Exit as done:
        return done.exit_code


def silence_stdout() -> None:
    """Let the interpreter's last flush of a broken standard output go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _misuse(error: click.ClickException) -> Complaint:
    """Turn click's complaint into one line; one about the command line says where help is."""
    text = error.format_message().rstrip(".")
    if not isinstance(error, click.UsageError):
        return Complaint(text)
    path = error.ctx.command_path if error.ctx else PROGRAM
    return Complaint(f"{text} (see `{path} --help`)", Exit.USAGE, "USAGE")
