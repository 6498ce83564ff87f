"""Options that every command takes, before or after its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from riverrun.cli.places import PlaceError, parse_span_ms

DEFAULT_BOOTSTRAP = "127.0.0.1:7171"
Value = TypeVar("Value")


@dataclass(slots=True)
class Settings:
    """What the global options say; the last one given counts."""

    bootstrap: str = DEFAULT_BOOTSTRAP
    output: str = "table"
    timeout_s: float = 30.0

    @property
    def as_json(self) -> bool:
        """Whether programs read the output."""
        return self.output == "json"


class SpanType(click.ParamType):
    """A length of time: seconds, or a number with a unit such as 500ms or 2m."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return seconds, above 0."""
        if isinstance(value, float | int):
            return float(value)
        try:
            seconds = float(value)
        except ValueError:
            try:
                seconds = parse_span_ms(value) / 1000
            except PlaceError:
                self.fail(f"{value!r} is no time: give seconds, or 500ms, 30s, 2m, 1h.", param, ctx)
        if not 0 < seconds <= 86_400:
            self.fail(f"{value!r} is out of range: more than 0, at most a day.", param, ctx)
        return seconds


def _store(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    """Make a callback that keeps a given value in the settings of the whole command line."""

    def store(ctx: click.Context, _: click.Parameter, value: Any) -> None:
        if value is not None:
            setattr(settings(ctx), name, value)

    return store


def settings(ctx: click.Context) -> Settings:
    """Return the settings of the command line that a context belongs to."""
    root = ctx.find_root()
    if root.obj is None:
        root.obj = Settings()
    assert isinstance(root.obj, Settings)
    return root.obj


def global_options(*, root: bool = False) -> list[click.Parameter]:
    """Make the global options anew: a parameter belongs to one command.

    The environment is read at the root only; read again for the subcommand it would win over what
    was typed before its name.
    """
    return [
        click.Option(
            ["--bootstrap"],
            metavar="H:P[,H:P...]",
            envvar="RIVERRUN_BOOTSTRAP" if root else None,
            show_envvar=root,
            expose_value=False,
            callback=_store("bootstrap"),
            help=f"Brokers to ask; any of a cluster will do.  [default: {DEFAULT_BOOTSTRAP}]",
        ),
        click.Option(
            ["--output"],
            type=click.Choice(["table", "json"]),
            expose_value=False,
            callback=_store("output"),
            help="How data is written to standard output.  [default: table]",
        ),
        click.Option(
            ["--timeout"],
            type=SpanType(),
            metavar="TIME",
            expose_value=False,
            callback=_store("timeout_s"),
            help="How long to wait for a broker, in seconds or as 500ms, 2m.  [default: 30s]",
        ),
    ]


class Command(click.Command):
    """A command that takes the global options too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Make a command as click does, with the global options behind its own."""
        super().__init__(*args, **kwargs)
        self.params.extend(global_options())
