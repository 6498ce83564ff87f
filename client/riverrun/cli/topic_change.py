"""`riverrun topic create`, `alter` and `add-partitions`."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING

import click

from riverrun.cli.arguments import configs_option, topic_argument
from riverrun.cli.completion import complete_settings
from riverrun.cli.counts import counted
from riverrun.cli.exits import write_note
from riverrun.cli.running import run
from riverrun.cli.settings import Command, settings
from riverrun.cli.tables import print_json
from riverrun.cli.topic_json import topic_fields

if TYPE_CHECKING:
    from riverrun import Client, TopicInfo

_ADVICE = {
    "with if_not_exists it": "with --if-not-exists it",
    "a smaller replication_factor": "a smaller --replication-factor",
}
"""What the broker advises, and how it is said here."""

validate_option = click.option(
    "--validate-only", is_flag=True, help="Only check the request; change nothing."
)


@click.command(cls=Command, short_help="Make a topic.")
@topic_argument
@click.option(
    "--partitions",
    type=click.IntRange(min=1),
    help="How many partitions.  [default: the broker's, 1 unless configured]",
)
@click.option(
    "--replication-factor",
    type=click.IntRange(min=1),
    help="How many replicas of each partition.  [default: the broker's]",
)
@configs_option
@click.option("--if-not-exists", is_flag=True, help="Leave a topic of this name as it is.")
@validate_option
@click.pass_context
def create(
    ctx: click.Context,
    topic: str,
    partitions: int | None,
    replication_factor: int | None,
    configs: Mapping[str, str],
    if_not_exists: bool,
    validate_only: bool,
) -> None:
    r"""Make TOPIC: 1 to 249 of the characters A-Z a-z 0-9 . _ - and not beginning with two _.

    \b
    riverrun topic create orders
    riverrun topic create clicks --partitions 12 --config retention.ms=7d
    riverrun topic create ledger --config retention.ms=-1 --config fsync=true
    riverrun topic create orders --if-not-exists
    """

    async def work(client: Client) -> TopicInfo:
        return await client.admin().create_topic(
            topic,
            partitions=partitions or 0,
            replication_factor=replication_factor or 0,
            configs=configs,
            if_not_exists=if_not_exists,
            validate_only=validate_only,
        )

    made = run(ctx, lambda client: _in_options(work(client)))
    if validate_only:
        _tell(ctx, made, f"topic {topic} can be made, with {_count(made)}")
    elif made.created:
        _tell(ctx, made, f"made topic {topic} with {_count(made)}")
    else:
        _tell(ctx, made, f"topic {topic} is there already, with {_count(made)}")


@click.command(cls=Command, short_help="Change a topic's configuration.")
@topic_argument
@configs_option
@click.option(
    "--unset",
    metavar="KEY",
    shell_complete=complete_settings,
    multiple=True,
    help="Give a setting back to the broker's default; may be repeated.",
)
@validate_option
@click.pass_context
def alter(
    ctx: click.Context,
    topic: str,
    configs: Mapping[str, str],
    unset: tuple[str, ...],
    validate_only: bool,
) -> None:
    r"""Change the configuration of TOPIC; `riverrun topic describe --all-configs` lists the settings.

    \b
    riverrun topic alter clicks --config retention.ms=12h --config retention.bytes=1073741824
    riverrun topic alter clicks --unset retention.bytes
    """
    if not configs and not unset:
        raise click.UsageError("nothing to change: give --config KEY=VALUE or --unset KEY", ctx)
    both = sorted(set(unset) & configs.keys())
    if both:
        raise click.UsageError(f"{both[0]!r} stands in --config and in --unset; give one", ctx)

    async def work(client: Client) -> TopicInfo:
        return await client.admin().alter_topic(
            topic, set=configs, unset=unset, validate_only=validate_only
        )

    altered = run(ctx, work)
    verb = "can be changed" if validate_only else "changed"
    _tell(ctx, altered, f"topic {topic} {verb}: {', '.join([*configs, *unset])}")


@click.command(cls=Command, short_help="Give a topic more partitions.")
@topic_argument
@click.option(
    "--partitions",
    type=click.IntRange(min=1),
    required=True,
    help="How many it shall have in all.",
)
@validate_option
@click.pass_context
def add_partitions(ctx: click.Context, topic: str, partitions: int, validate_only: bool) -> None:
    r"""Give TOPIC more partitions. New records of a key may go to another partition by that.

    \b
    riverrun topic add-partitions clicks --partitions 24
    """

    async def work(client: Client) -> TopicInfo:
        return await client.admin().add_partitions(topic, partitions, validate_only=validate_only)

    grown = run(ctx, work)
    verb = "can have" if validate_only else "has"
    _tell(ctx, grown, f"topic {topic} {verb} {_count(grown)}")


async def _in_options(work: Awaitable[TopicInfo]) -> TopicInfo:
    """Do it; what the broker advises of its fields is told in the words of the command line.

    Raises:
        RiverrunError: of `work`.
    """
    from riverrun.errors import RiverrunError  # noqa: PLC0415 - for the work only

    try:
        return await work
    except RiverrunError as error:
        for advice, here in _ADVICE.items():
            error.message = error.message.replace(advice, here)
        raise


def _tell(ctx: click.Context, topic: TopicInfo, note: str) -> None:
    """Write the topic for programs, or a note for people."""
    if settings(ctx).as_json:
        print_json({**topic_fields(topic), "created": topic.created})
    else:
        write_note(note)


def _count(topic: TopicInfo) -> str:
    """Say how many partitions and replicas a topic has."""
    partitions = counted(topic.partitions, "partition")
    if topic.replication_factor <= 1:
        return partitions
    return f"{partitions}, {topic.replication_factor} replicas of each"
