"""The broker's command line: riverrun-server run, print-config, recover, move-metadata and version.

What a person can put right is one line on standard error and an exit code, never a traceback.
Heavy imports happen inside the commands, so that help and configuration come at once.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

import click

from riverrun_server.config.kinds import Switch
from riverrun_server.config.load import ConfigError, Loaded, all_settings, load
from riverrun_server.config.setting import Setting

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2

_EXAMPLES: Final = """\b
Examples:
  riverrun-server run
  riverrun-server run --data-dir /var/lib/riverrun --listen 127.0.0.1:7171
  riverrun-server run --listen 0.0.0.0:7171 --advertise broker-1.example:7171 --insecure
  riverrun-server run --config broker.toml --set storage.hot_tail_bytes=256MiB
  RIVERRUN_DATA_DIR=/data riverrun-server print-config
"""

Command = Callable[..., None]


class _SettingsCommand(click.Command):
    """A command that says how to give a setting that has no flag of its own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as click does, with a better word about some flags that are not there."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            by_flag = {one.flag: one.key for one in all_settings()}
            key = by_flag.get(error.option_name)
            if key is None or error.possibilities:
                raise
            message = f"No such option {error.option_name!r}; write --set {key}=VALUE"
            raise click.UsageError(message, ctx) from error


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_EXAMPLES,
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda ctx, _, wanted: _show_version(ctx) if wanted else None,
    help="Show the version.",
)
def main() -> None:
    """Run a Riverrun broker."""


def takes_settings(*only: str) -> Callable[[Command], Command]:
    """Give a command an option for each setting that has a flag, or for a few, and the rest's."""
    options: list[Callable[[Command], Command]] = [
        click.option(
            "--config",
            type=click.Path(path_type=Path),
            envvar="RIVERRUN_CONFIG",
            metavar="FILE",
            help="A TOML file with settings.  [env: RIVERRUN_CONFIG]",
        ),
        *(_option(one) for one in all_settings() if one.has_flag and (not only or one.key in only)),
        click.option(
            "--set",
            "assignments",
            multiple=True,
            metavar="KEY=VALUE",
            help="Any other setting by its name in the file; docs/configuration.md has them all.",
        ),
    ]

    def add_all(command: Command) -> Command:
        for add in reversed(options):
            command = add(command)
        return command

    return add_all


def _option(one: Setting) -> Callable[[Command], Command]:
    default = one.shown(one.default) if one.default not in (None, "") else ""
    facts = f"env: {one.variable}" + (f"; default: {default}" if default else "")
    help_text = f"{one.doc}  [{facts}]".replace("`", "")
    if isinstance(one.kind, Switch):
        return click.option(one.flag, flag_value="true", default=None, help=help_text)
    metavar = "HOST:PORT" if one.key.endswith(("listen", "advertise")) else "VALUE"
    return click.option(one.flag, metavar=metavar, help=help_text)


@main.command(epilog=_EXAMPLES, cls=_SettingsCommand)
@takes_settings()
def run(**given: Any) -> None:
    """Run one broker in the foreground until SIGTERM or SIGINT.

    Once it serves, one line that begins with "ready" and has its addresses goes to standard output;
    the log goes to standard error. The first signal lets clients go and closes the store, within
    drain_timeout_s; further ones are ignored meanwhile.
    """
    settings = _loaded(given).settings
    with _server_extra():
        from riverrun_server.app import serve  # noqa: PLC0415 - help must not wait for it
        from riverrun_server.observe import logs  # noqa: PLC0415

        logs.configure(settings.log.format, settings.log.level)
        with _one_line():
            sys.exit(serve(settings))


@main.command("print-config", cls=_SettingsCommand)
@takes_settings()
@click.option("--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def print_config(output: str, **given: Any) -> None:
    """Show every setting, its value and its origin.

    Secrets are redacted. The options are those of run, so that it shows what run would use.
    """
    from riverrun_server.config import show  # noqa: PLC0415 - only needed here

    loaded = _loaded(given)
    click.echo(show.as_json(loaded) if output == "json" else show.as_table(loaded))


@main.command()
@takes_settings("data_dir", "metadata", "insecure", "log.format", "log.level")
@click.option("--topic", required=True, help="The topic's name.")
@click.option("--partition", required=True, type=click.IntRange(0), help="The partition.")
@click.option(
    "--accept-loss",
    is_flag=True,
    required=True,
    help="Confirm that records may be lost for good; without it nothing is done.",
)
def recover(topic: str, partition: int, accept_loss: bool, **given: Any) -> None:
    """Bring a damaged partition back, accepting a loss.

    The broker must not be running on the data directory. What is kept is the longest beginning of
    the log whose checksums hold; readers beyond it are told that the log was truncated.
    """
    assert accept_loss  # click refuses without it
    settings = _loaded(given).settings
    with _server_extra():
        from riverrun_server.observe import logs  # noqa: PLC0415
        from riverrun_server.recover import accept_loss as accept  # noqa: PLC0415 - help must not wait for it

        logs.configure(settings.log.format, settings.log.level)
        with _one_line():
            told = accept(settings, topic, partition)
    if told:
        click.echo(told)


@main.command("move-metadata")
@takes_settings("data_dir", "metadata", "insecure", "log.format", "log.level")
def move_metadata(**given: Any) -> None:
    r"""Move a broker's metadata from its own store into etcd.

    The broker must not be running on the data directory. Topics, their ids, configurations and
    records stay as they are; from then on the broker is started with the same --metadata. Where it
    was interrupted, do it again.

    \b
    Example:
      riverrun-server move-metadata --data-dir data --metadata etcd://127.0.0.1:2379/orders
    """
    settings = _loaded(given).settings
    with _server_extra():
        from riverrun_server.move_metadata import move_metadata as move  # noqa: PLC0415 - as above
        from riverrun_server.observe import logs  # noqa: PLC0415

        logs.configure(settings.log.format, settings.log.level)
        with _one_line():
            told = move(settings)
    click.echo(told)


@main.command()
def version() -> None:
    """Show the version."""
    _show_version(click.get_current_context())


def _show_version(ctx: click.Context) -> None:
    from importlib.metadata import version as installed  # noqa: PLC0415 - slow, only needed here

    click.echo(f"riverrun-server {installed('riverrun')}")
    ctx.exit()


def _loaded(given: dict[str, Any]) -> Loaded:
    file = given.pop("config")
    assignments: dict[str, str] = {}
    for assignment in given.pop("assignments"):
        key, equals, value = assignment.partition("=")
        if not equals:
            _fail(EXIT_USAGE, f"--set {assignment}: expected KEY=VALUE")
        assignments[key] = value
    # click turned the dots of the keys into underscores for Python's sake.
    keys = {one.key.replace(".", "_"): one.key for one in all_settings()}
    flags = {keys[name]: value for name, value in given.items() if value is not None}
    try:
        return load(file, os.environ, flags, assignments)
    except ConfigError as error:
        _fail(EXIT_USAGE, *error.problems)


@contextlib.contextmanager
def _server_extra() -> Iterator[None]:
    """Say what to install where the broker's own dependencies are missing."""
    # gRPC's C core logs by itself, in a form of its own; what matters comes as exceptions.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0].startswith("riverrun"):
            raise
        _fail(
            EXIT_FAILED,
            f"{error.name} is not installed: the broker needs the server extra; in a clone of "
            "Riverrun's repository: pip install '.[server]'",
        )


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    """Turn what a person can put right into one line; everything else stays a traceback."""
    from riverrun_server.core.errors import Refusal  # noqa: PLC0415 - help must not wait for it
    from riverrun_server.ports.log import StorageError  # noqa: PLC0415
    from riverrun_server.runtime.supervisor import CannotStart  # noqa: PLC0415

    try:
        yield
    except (CannotStart, StorageError, Refusal) as error:
        _fail(EXIT_FAILED, str(error))


def _fail(code: int, *lines: str) -> NoReturn:
    for line in lines:
        click.echo(f"riverrun-server: {line}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
