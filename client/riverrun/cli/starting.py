"""Where `consume` begins: the consumer for what was asked, and what its partitions end at."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from riverrun import Consumer, From, Last, Offset, RiverrunError, Time, TopicPartition
from riverrun.cli.exits import write_note
from riverrun.cli.places import AtOffset, AtTime, LastRecords, Place, write_place

if TYPE_CHECKING:
    from riverrun import Client
    from riverrun.cli.consume import ConsumeOptions


async def make_consumer(client: Client, options: ConsumeOptions) -> Consumer:
    """Make a consumer of what was asked for, which is there.

    With a group and chosen partitions, each begins where the group has committed to, else at
    `--from`, as all partitions do without a choice.
    """
    start = library_place(options.start)
    # With --until the end of each partition is found here: a partition that is done before its
    # high watermark is paused, and the library would wait for it.
    stop_at_end = options.exit_at_end and options.until is None
    if not options.partitions:
        return client.consumer(
            options.topic, group=options.group, from_=start, stop_at_end=stop_at_end
        )
    partitions: Mapping[TopicPartition, From] = {
        TopicPartition(options.topic, number): start for number in options.partitions
    }
    if options.group is not None:
        committed = await client.admin().group_offsets(options.group, partitions)
        partitions = {
            partition: start
            if (known := committed.get(partition)) is None
            else Offset(known.offset)
            for partition in partitions
        }
    return client.consumer(group=options.group, partitions=partitions, stop_at_end=stop_at_end)


async def tell_committed(
    client: Client, options: ConsumeOptions, partitions: Iterable[TopicPartition]
) -> None:
    """Say so where `--from` does not count, for the group goes on where it has committed."""
    start, group = options.start, options.group
    if group is None or start is None or start == "committed":
        return
    try:
        committed = await client.admin().group_offsets(group, partitions)
    except RiverrunError:
        return  # reading tells what is the matter
    known = sum(at is not None for at in committed.values())
    if known:
        place = write_place(start)
        where = "" if known == len(committed) else f" in {known} of {len(committed)} partitions"
        write_note(
            f"note: group {shlex.quote(group)} goes on where it has committed{where}, and --from "
            f"{place} does not count there; to move it: riverrun group reset-offsets "
            f"{shlex.quote(group)} --to {place} --topic {shlex.quote(options.topic)}"
        )


async def find_ends(
    consumer: Consumer, partitions: Iterable[TopicPartition], options: ConsumeOptions
) -> dict[TopicPartition, int]:
    """Find the first offset that is not wanted in each partition, as far as it is known by now."""
    ends: dict[TopicPartition, int] = {}
    if options.exit_at_end:
        ends = await consumer.end_offsets(partitions)
    if isinstance(options.until, AtOffset):
        for partition in partitions:
            ends[partition] = min(options.until.offset, ends.get(partition, options.until.offset))
    return ends


async def find_time(
    consumer: Consumer, partitions: Iterable[TopicPartition], time_ms: int
) -> dict[TopicPartition, int]:
    """Find where each partition ends for a time that has passed.

    That is its first record of the time or later; where there is none its high watermark, for
    what is written from now on is later.
    """
    found = await consumer.offsets_for_times(dict.fromkeys(partitions, time_ms))
    ends = await consumer.end_offsets(partitions)
    for partition, record in found.items():
        if record is not None:
            ends[partition] = record.offset
    return ends


def library_place(place: Place | None) -> From:
    """Say a place in the library's words."""
    match place:
        case None:
            return "earliest"
        case AtOffset(offset):
            return Offset(offset)
        case AtTime(time_ms):
            return Time(time_ms)
        case LastRecords(count):
            return Last(count)
        case _:
            return place
