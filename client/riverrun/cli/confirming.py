"""Asking before something that cannot be taken back; where nobody can be asked, --yes has to say it."""

from __future__ import annotations

import sys

import click

from riverrun.cli.exits import Complaint, Exit, write_note
from riverrun.cli.settings import settings

yes_option = click.option(
    "--yes", is_flag=True, help="Do not ask; needed where there is no terminal to ask on."
)


def confirm(ctx: click.Context, deed: str, yes: bool, refused: str) -> None:
    """Ask whether to do a deed.

    Raises:
        click.exceptions.Exit: the answer was no; `refused` has been said, which is no error of anybody.
        Complaint: nobody can be asked: standard input or standard error is no terminal, or a program
            reads the output.
    """
    if yes:
        return
    if settings(ctx).as_json or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Complaint(
            f"{refused}: nobody can be asked here whether to {deed}; give --yes if that is meant",
            Exit.USAGE,
            "NOT_CONFIRMED",
        )
    if not click.confirm(f"{deed}?", err=True):
        write_note(refused)
        raise click.exceptions.Exit(Exit.FAILED)
