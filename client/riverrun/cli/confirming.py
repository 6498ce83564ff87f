"""Asking on a terminal before something that cannot be taken back; a script has said what it wants."""

from __future__ import annotations

import sys

import click

from riverrun.cli.exits import Exit, write_note
from riverrun.cli.settings import settings

yes_option = click.option("--yes", is_flag=True, help="Do not ask, also on a terminal.")


def confirm(ctx: click.Context, deed: str, yes: bool, refused: str) -> None:
    """Ask whether to do a deed.

    Raises:
        click.exceptions.Exit: the answer was no; `refused` has been said, which is no error of anybody.
    """
    if yes or not sys.stdin.isatty() or settings(ctx).as_json:
        return
    if not click.confirm(f"{deed}?", err=True):
        write_note(refused)
        raise click.exceptions.Exit(Exit.FAILED)
