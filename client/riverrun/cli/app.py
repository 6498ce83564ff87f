"""The root command, and what becomes of errors, interrupts and broken pipes."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from riverrun.cli.exits import Complaint, Exit, tell
from riverrun.cli.groups import Group, Late
from riverrun.cli.settings import Settings

PROGRAM = "riverrun"


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
        "cluster": Late("riverrun.cli.cluster:cluster", "Look at the brokers."),
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

    Standard output carries data only; notes and errors go to standard error. Global options may
    stand before or after the command. Try `riverrun COMMAND --help`.""",
)


def run(args: list[str] | None = None) -> int:
    """Run the command line; return its exit code, having told any error in one line."""
    settings = Settings()
    try:
        outcome: Any = cli.main(args, prog_name=PROGRAM, standalone_mode=False, obj=settings)
        sys.stdout.flush()
    except Complaint as complaint:
        tell(complaint, as_json=settings.as_json)
        return complaint.code
    except click.UsageError as error:
        tell(_misuse(error), as_json=settings.as_json)
        return Exit.USAGE
    except click.ClickException as error:
        tell(Complaint(error.format_message()), as_json=settings.as_json)
        return Exit.FAILED
    except (KeyboardInterrupt, click.Abort):
        return Exit.INTERRUPTED
    except BrokenPipeError:
        silence_stdout()
        return Exit.OK
    return outcome if isinstance(outcome, int) else Exit.OK


def silence_stdout() -> None:
    """Let the interpreter's last flush of a broken standard output go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _misuse(error: click.UsageError) -> Complaint:
    """Turn click's complaint about the command line into one line that says where help is."""
    path = error.ctx.command_path if error.ctx else PROGRAM
    text = error.format_message().rstrip(".")
    return Complaint(f"{text} (see `{path} --help`)", Exit.USAGE, "USAGE")
