"""`riverrun topic list`, `describe` and `offsets`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from riverrun.cli.arguments import partitions_option, read_time_ms, reading, topic_argument
from riverrun.cli.completion import complete_places
from riverrun.cli.exits import write_note
from riverrun.cli.places import format_time
from riverrun.cli.running import run
from riverrun.cli.settings import Command, settings
from riverrun.cli.tables import (
    Cell,
    Table,
    joined,
    print_fields,
    print_json,
    print_table,
    shown_bytes,
)
from riverrun.cli.topic_json import description_fields, place_fields, topic_fields

if TYPE_CHECKING:
    from riverrun import (
        Client,
        From,
        PartitionDescription,
        PartitionOffset,
        TopicDescription,
        TopicInfo,
    )


@click.command(cls=Command, name="list", short_help="List topics by name.")
@click.option("--internal", is_flag=True, help="Also topics that belong to the brokers.")
@click.pass_context
def list_topics(ctx: click.Context, internal: bool) -> None:
    r"""List topics by name.

    \b
    riverrun topic list
    riverrun topic list --output json | jq -r '.[].topic'
    """

    async def work(client: Client) -> list[TopicInfo]:
        return [found async for found in client.admin().list_topics(include_internal=internal)]

    topics = run(ctx, work)
    if settings(ctx).as_json:
        print_json([topic_fields(topic) for topic in topics])
        return
    rows = [
        (topic.name, topic.partitions, topic.replication_factor, format_time(topic.create_time_ms))
        for topic in topics
    ]
    print_table(Table(("TOPIC", "PARTITIONS", "REPLICAS", "MADE"), rows))


@click.command(cls=Command, short_help="Tell everything about a topic.")
@topic_argument
@click.option("--all-configs", is_flag=True, help="Also settings that nobody has changed.")
@click.pass_context
def describe(ctx: click.Context, topic: str, all_configs: bool) -> None:
    r"""Tell everything about TOPIC: its partitions, where they begin and end, and its settings.

    EPOCHS are those of the leadership and of the partition, which grows with every change of leader and
    replicas in sync. ELR are replicas that are not in sync and may lead all the same. HW is the high
    watermark: what lies below it is committed and can be read. Why a partition cannot be used, and what
    to do about it, stands below the table.

    \b
    riverrun topic describe orders
    riverrun topic describe orders --all-configs
    """

    async def work(client: Client) -> TopicDescription:
        return await client.admin().describe_topic(topic)

    description = run(ctx, work)
    if settings(ctx).as_json:
        print_json(description_fields(description))
        return
    _print_definition(description)
    click.echo()
    _print_partitions(description.partitions)
    configs = [
        (entry.key, entry.value, entry.source, entry.documentation)
        for entry in description.configs
        if all_configs or entry.source == "topic"
    ]
    if configs:
        click.echo()
        print_table(Table(("SETTING", "VALUE", "FROM", "MEANING"), configs))
    else:
        write_note("note: all settings are the defaults (--all-configs shows them)")


@click.command(cls=Command, short_help="Tell where partitions begin and end.")
@topic_argument
@partitions_option
@click.option(
    "--at",
    "at_ms",
    callback=reading(read_time_ms),
    shell_complete=complete_places,
    metavar="TIME",
    help="Find the first record of this time or later instead.",
)
@click.pass_context
def offsets(ctx: click.Context, topic: str, partitions: tuple[int, ...], at_ms: int | None) -> None:
    r"""Tell the earliest and the latest offset of each partition of TOPIC.

    The latest is the high watermark: the offset that the next committed record will have.

    \b
    riverrun topic offsets orders
    riverrun topic offsets orders --at 1h-ago --partition 0
    """

    async def work(client: Client) -> list[PartitionOffset]:
        from riverrun import Time  # noqa: PLC0415 - the client is imported when a command runs

        admin = client.admin()
        place: From = "earliest" if at_ms is None else Time(at_ms)
        if not partitions:
            return list(await admin.list_offsets(topic, place))
        return [
            found
            for partition in dict.fromkeys(partitions)
            for found in await admin.list_offsets(topic, place, partition=partition)
        ]

    found = run(ctx, work)
    if at_ms is not None:
        _print_places(found, as_json=settings(ctx).as_json)
    else:
        _print_ranges(found, as_json=settings(ctx).as_json)


def _print_definition(description: TopicDescription) -> None:
    """Write what defines a topic."""
    topic = description.topic
    needed = {partition.min_in_sync_replicas for partition in description.partitions} - {0}
    print_fields(
        {
            "topic": topic.name,
            "id": topic.topic_id.hex(),
            "partitions": topic.partitions,
            "replicas": topic.replication_factor,
            "min in sync": joined(sorted(needed)),
            "made": format_time(topic.create_time_ms),
        }
    )


def _print_partitions(partitions: Sequence[PartitionDescription]) -> None:
    """Write a row for each partition, and below them why some cannot be used.

    The reasons stand on lines of their own, whole: they hold commands to be copied.
    """
    headings = ["PARTITION", "LEADER", "EPOCHS", "REPLICAS", "IN-SYNC", "ELR"]
    headings += ["START", "HW", "SIZE"]
    rows: list[list[Cell]] = [
        [
            partition.partition,
            partition.leader if partition.leader >= 0 else "none",
            f"{partition.leader_epoch}/{partition.partition_epoch}",
            joined(partition.replicas),
            joined(partition.in_sync_replicas),
            joined(partition.eligible_leader_replicas),
            *(["-", "-", "-"] if partition.error else _extent(partition)),
        ]
        for partition in partitions
    ]
    print_table(Table(headings, rows))
    for partition in partitions:
        if partition.error:
            click.echo(f"\npartition {partition.partition}: {partition.error}")


def _extent(partition: PartitionDescription) -> list[Cell]:
    """Tell where a partition begins and ends."""
    return [
        partition.log_start_offset,
        partition.high_watermark,
        shown_bytes(partition.size_bytes),
    ]


def _print_ranges(found: Sequence[PartitionOffset], *, as_json: bool) -> None:
    """Write where partitions begin and end."""
    ranges = [(one.partition, one.offset or 0, one.high_watermark) for one in found]
    if as_json:
        print_json(
            [
                {"partition": partition, "earliest": earliest, "latest": latest}
                for partition, earliest, latest in ranges
            ]
        )
        return
    rows = [(*bounds, bounds[2] - bounds[1]) for bounds in ranges]
    print_table(Table(("PARTITION", "EARLIEST", "LATEST", "SPAN"), rows))


def _print_places(found: Sequence[PartitionOffset], *, as_json: bool) -> None:
    """Write what was found by time."""
    if as_json:
        print_json([place_fields(one) for one in found])
        return
    rows: list[list[Cell]] = [
        [
            one.partition,
            "none so late" if one.offset is None else one.offset,
            "-" if one.timestamp_ms is None else format_time(one.timestamp_ms),
        ]
        for one in found
    ]
    print_table(Table(("PARTITION", "OFFSET", "TIME"), rows))
