"""Options that every command takes, before or after its name."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from riverrun._net.addresses import DEFAULT_PORT, with_port
from riverrun.cli.places import parse_span_ms

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

BOOTSTRAP_VARIABLE = "RIVERRUN_BOOTSTRAP"
DEFAULT_BOOTSTRAP = f"127.0.0.1:{DEFAULT_PORT}"


@dataclass(slots=True)
class Settings:
    """What the global options say; the last one given counts."""

    bootstrap: str = DEFAULT_BOOTSTRAP
    output: str = "table"
    timeout_s: float | None = None

    @property
    def as_json(self) -> bool:
        """Whether programs read the output."""
        return self.output == "json"


def asks_for_json(args: Sequence[str]) -> bool:
    """Whether a command line that cannot be read says that programs read its output.

    >>> asks_for_json(["consume", "orders", "--from", "nonsense", "--output", "json"])
    True
    """
    options = args[: args.index("--")] if "--" in args else args
    chosen = ""
    for text, behind in zip(options, [*options[1:], ""], strict=True):
        if text == "--output":
            chosen = behind
        elif text.startswith("--output="):
            chosen = text.removeprefix("--output=")
    return chosen == "json"


def with_ports(bootstrap: str) -> str:
    """Add the default port to each address that is a host alone."""
    return ",".join(with_port(part.strip()) for part in bootstrap.split(","))


def complete_addresses(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer the addresses of the environment and the default one, also behind others and a comma."""
    from click.shell_completion import CompletionItem  # noqa: PLC0415 - for completion only

    known = f"{os.environ.get(BOOTSTRAP_VARIABLE, '')},{DEFAULT_BOOTSTRAP}".split(",")
    before, comma, begun = incomplete.rpartition(",")
    given = set(before.split(","))
    return [
        CompletionItem(f"{before}{comma}{address}")
        for address in dict.fromkeys(map(str.strip, known))
        if address and address.startswith(begun) and address not in given
    ]


def read_seconds(text: str) -> float:
    """Read a length of time: seconds, or numbers with units such as 500ms or 2m.

    Raises:
        ValueError: it is neither, or not above 0 and at most a day.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = parse_span_ms(text) / 1000
    if not 0 < seconds <= 86_400:
        raise ValueError(f"{text!r} is out of range: more than 0, at most a day")
    return seconds


def _store(
    name: str, read: Callable[[str], object] = str
) -> Callable[[click.Context, click.Parameter, str | None], None]:
    """Make a callback that keeps what is given in the settings of the whole command line."""

    def store(ctx: click.Context, param: click.Parameter, given: str | None) -> None:
        if given is None:
            return
        try:
            setattr(settings(ctx), name, read(given))
        except ValueError as error:
            raise click.BadParameter(str(error), param=param) from error

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
            envvar=BOOTSTRAP_VARIABLE if root else None,
            show_envvar=root,
            expose_value=False,
            callback=_store("bootstrap", with_ports),
            shell_complete=complete_addresses,
            help=f"Brokers to ask; the port is {DEFAULT_PORT} where none is given.  [default: "
            f"{DEFAULT_BOOTSTRAP}]",
        ),
        click.Option(
            ["--output"],
            type=click.Choice(["table", "json"]),
            expose_value=False,
            callback=_store("output"),
            help="How data is written.  [default: table]",
        ),
        click.Option(
            ["--timeout"],
            metavar="TIME",
            expose_value=False,
            callback=_store("timeout_s", read_seconds),
            help="How long to wait for brokers, such as 500ms or 2m; a bare number is seconds.",
        ),
    ]


class Command(click.Command):
    """A command that takes the global options too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # click's own
        r"""Make a command as click does, with the global options behind its own.

        A `\b` in the help keeps the paragraph's lines, also out of a raw docstring.
        """
        super().__init__(*args, **kwargs)
        self.help = self.help and self.help.replace("\\b\n", "\b\n")
        self.params.extend(global_options())
