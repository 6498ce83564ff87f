"""Write docs/cli.md from the help texts of the command line, or check that it is fresh."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from riverrun.cli.app import PROGRAM, cli
from riverrun.cli.exits import MEANINGS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "cli.md"
WIDTH = 96

INTRODUCTION = """\
# The command line

This page is made of the help texts by `tools/cli_docs.py`; change them, not it.

Standard output carries data only; notes, progress and errors go to standard error. An error is one
line that says what was wrong, what was expected and what to do; with `--output json`, wherever that
stands, it is one object `{"error": {"reason", "message", "outcome", "exit_code"}}` on standard
error, and everything on standard output is JSON. `outcome` is `nothing happened`, `partly happened`
or `unknown`; beside it stand the numbers of what was done: of `produce` those that its help names,
`printed_records` of `consume`, `trimmed` (partitions) of `topic trim`, `moved` of
`group reset-offsets`, `elected` of `cluster elect-leaders`; of `cluster drain` what is left, `leads`
and `in_sync_replicas`. Tables fit a terminal, with colours where `rich` is installed
(`pip install rich`); in a pipe they are plain text with nothing cut.

`topic delete`, `topic trim` and `group reset-offsets` ask before they do what cannot be taken back.
Where nobody can be asked, because standard input or standard error is no terminal or with
`--output json`, they need `--yes`: without it they do nothing, and the exit code is 2.

Global options (`--bootstrap`, `--output`, `--timeout`) may stand before or after a command's name;
the last one counts. `RIVERRUN_BOOTSTRAP` stands in for `--bootstrap`.

A command that finds no broker says so at once on standard error, with the time for which it waits,
and when one is back; with `--output json` only on a terminal.
"""


def page() -> str:
    """Make the whole page."""
    parts = [INTRODUCTION, "## Exit codes\n", "| code | meaning |\n|---|---|"]
    parts += [f"| {int(code)} | {meaning} |" for code, meaning in MEANINGS.items()]
    for name, text in help_texts(
        cli, click.Context(cli, info_name=PROGRAM, **cli.context_settings)
    ):
        parts.append(f"\n## {name}\n\n```text\n{text}\n```")
    return "\n".join(parts) + "\n"


def help_texts(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    """Give each command's full name and help text, groups before what is in them."""
    context.terminal_width = WIDTH
    help_text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    yield context.command_path, help_text
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None, f"{name} is listed, so it can be loaded"
            yield from help_texts(inner, click.Context(inner, info_name=name, parent=context))


def main() -> None:
    """Write the page, or with --check fail when the one that is there differs."""
    fresh = page()
    if "--check" not in sys.argv[1:]:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(fresh)
    elif not PAGE.exists() or PAGE.read_text() != fresh:
        sys.exit(f"docs/{PAGE.name} is stale: run `python tools/cli_docs.py`")


if __name__ == "__main__":
    main()
