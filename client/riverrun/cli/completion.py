"""`riverrun completion`: print the script that makes a shell complete commands and topics."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem, get_completion_class

from riverrun.cli.places import TIME_WORDS
from riverrun.cli.settings import Command, Settings

if TYPE_CHECKING:
    from riverrun import Client

ANSWER_TIMEOUT_S = 1.0

_PLACES = ("earliest", "latest", "committed")
_SPANS = ("10m-ago", "1h-ago", "1d-ago", "7d-ago")
TOPIC_SETTINGS = (
    "fsync",
    "max.batch.bytes",
    "min.insync.replicas",
    "retention.bytes",
    "retention.ms",
    "unclean.recovery",
)
"""The keys of topics' configurations."""


@click.command(cls=Command, short_help="Print completion for a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    r"""Print the script that completes commands, options and topics in SHELL.

    \b
    bash  eval "$(riverrun completion bash)"      in ~/.bashrc (bash 4.4 or newer)
    zsh   eval "$(riverrun completion zsh)"       in ~/.zshrc
    fish  riverrun completion fish > ~/.config/fish/completions/riverrun.fish
    """
    from riverrun.cli.app import COMPLETION_VARIABLE, PROGRAM, cli  # noqa: PLC0415 - the root imports this module

    if shell == "bash":
        from riverrun.cli.bash_completion import bash_script  # noqa: PLC0415 - for this shell only

        click.echo(bash_script(PROGRAM, COMPLETION_VARIABLE), nl=False)
        return
    kind = get_completion_class(shell)
    assert kind is not None, f"click completes {shell}"
    click.echo(kind(cli, {}, PROGRAM, COMPLETION_VARIABLE).source())


def complete_places(
    _: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer the words for places and times; only times where the option takes no other words."""
    metavar = param.metavar or ""
    places = _PLACES if metavar == "PLACE" else tuple(p for p in _PLACES if p in metavar)
    return _offered((*places, *TIME_WORDS, *_SPANS), incomplete)


def complete_settings(
    _: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer the keys of topics' configurations, to be followed by a value where the option takes one."""
    behind = "=" if "=" in (param.metavar or "") else ""
    return _offered(tuple(f"{key}{behind}" for key in TOPIC_SETTINGS), incomplete)


def _offered(texts: tuple[str, ...], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(text) for text in texts if text.startswith(incomplete)]


def complete_topics(
    ctx: click.Context, _: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer the topics of the cluster, or nothing where it does not answer at once."""

    async def names(client: Client) -> list[str]:
        return [topic.name async for topic in client.admin().list_topics()]

    return _asked(ctx, names, incomplete)


def complete_brokers(
    ctx: click.Context, _: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer the ids of the cluster's brokers, or nothing where it does not answer at once."""

    async def ids(client: Client) -> list[str]:
        return [str(broker.broker_id) for broker in (await client.admin().cluster()).brokers]

    return _asked(ctx, ids, incomplete)


def _asked(
    ctx: click.Context, work: Callable[[Client], Awaitable[list[str]]], incomplete: str
) -> list[CompletionItem]:
    """Offer what the cluster answers."""
    import asyncio  # noqa: PLC0415 - 50 ms that no help text needs

    from riverrun.cli.session import new_client  # noqa: PLC0415 - imports grpc
    from riverrun.errors import RiverrunError  # noqa: PLC0415

    root = ctx.find_root().obj
    chosen = root if isinstance(root, Settings) else Settings()

    async def ask() -> list[str]:
        async with asyncio.timeout(ANSWER_TIMEOUT_S), new_client(chosen) as client:
            return await work(client)

    with suppress(RiverrunError, TimeoutError):
        return _offered(tuple(asyncio.run(ask())), incomplete)
    return []
