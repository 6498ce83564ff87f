"""Groups of commands whose modules are imported when one of them runs."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import click

from riverrun.cli.settings import global_options


class Late(NamedTuple):
    """A command that is imported when it runs: `module:name`, and its line in the list."""

    where: str
    short_help: str

    def load(self) -> click.Command:
        """Import the command."""
        module, _, name = self.where.partition(":")
        return cast("click.Command", getattr(importlib.import_module(module), name))


class Group(click.Group):
    """A group that lists its commands without importing them and suggests the nearest name."""

    def __init__(
        self, *args: Any, late: Mapping[str, Late], root: bool = False, **kwargs: Any
    ) -> None:
        """Make a group of commands, named in the order in which they are listed."""
        super().__init__(*args, **kwargs)
        self.late = dict(late)
        self.params.extend(global_options(root=root))

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Name the commands in the order given."""
        return list(self.late)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        cmd_name: str,
    ) -> click.Command | None:
        """Import a command."""
        late = self.late.get(cmd_name)
        return late.load() if late else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that was named, or suggest the nearest one."""
        name = args[0]
        if name == "help" and not ctx.resilient_parsing:
            if len(args) == 1:
                click.echo(ctx.get_help())
                ctx.exit()
            # `riverrun help topic create` is `riverrun topic create --help`.
            args = [*args[1:], "--help"]
            name = args[0]
        command = self.get_command(ctx, name)
        if command is None and not name.startswith("-") and not ctx.resilient_parsing:
            import difflib  # noqa: PLC0415 - for mistakes only

            near = difflib.get_close_matches(name, self.late, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(self.late)}."
            raise click.UsageError(f"no command {name!r}; {hint}", ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        """List the commands with their lines."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, late.short_help) for name, late in self.late.items()])
