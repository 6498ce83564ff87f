"""`riverrun group reset-offsets`: move a group to another place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from riverrun.cli.arguments import partitions_option, read_place, reading, topics_option
from riverrun.cli.completion import complete_places
from riverrun.cli.confirming import confirm, yes_option
from riverrun.cli.counts import counted
from riverrun.cli.exits import Complaint, Exit, write_note
from riverrun.cli.group_moves import Move, as_done, bounded_note, shown_moves, target_offset
from riverrun.cli.places import AtTime, Place, write_place
from riverrun.cli.running import run
from riverrun.cli.settings import Command, settings
from riverrun.cli.tables import Cell, Table, print_json, print_table

if TYPE_CHECKING:
    from riverrun import Admin, Client, OffsetMove, TopicPartition
    from riverrun.cli.group_progress import Standing


MOVED_TOLD = 8
"""Programs are told of all."""


@click.command(cls=Command, name="reset-offsets", short_help="Move a group to another place.")
@click.argument("group")
@click.option(
    "--to",
    callback=reading(read_place),
    shell_complete=complete_places,
    metavar="PLACE",
    required=True,
    help="Where to: earliest, latest, an OFFSET, a TIME, or -N for the last N records of each "
    "partition. An offset that a partition does not have becomes the nearest that it has.",
)
@topics_option
@partitions_option
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
@yes_option
@click.pass_context
def reset_offsets(
    ctx: click.Context,
    group: str,
    to: Place,
    topics: tuple[str, ...],
    partitions: tuple[int, ...],
    dry_run: bool,
    yes: bool,
) -> None:
    r"""Move GROUP to another place, in each partition where it has committed.

    With --topic it is moved in all partitions of that topic, also where it has not committed yet.
    Members go on there by themselves: a partition is taken back from its member, which finishes with
    what it has, and is given again. Where one does not give it up within 30 s nothing is changed.
    It asks first; where there is no terminal to ask on, --yes is needed.

    \b
    riverrun group reset-offsets billing --to earliest --dry-run
    riverrun group reset-offsets billing --to 2h-ago --topic orders
    riverrun group reset-offsets billing --to 1200 --topic orders --partition 3
    """
    if to == "committed":
        raise click.UsageError("--to committed changes nothing; see the places in --help", ctx)

    async def plan(client: Client) -> list[Move]:
        from riverrun.cli.group_progress import standings  # noqa: PLC0415 - imports grpc

        admin = client.admin()
        found = await standings(admin, group, topics)
        return await _moves(admin, found, partitions, to)

    moves = run(ctx, plan)
    changes = [move for move in moves if move.before != move.offset]
    note = bounded_note(moves, to)
    if note:
        write_note(note)
    if dry_run or not changes:
        _show(ctx, moves)
        there = f"nothing to change: group {group} stands there already"
        write_note("nothing was changed: this was a dry run" if changes else there)
        return
    count = f"{len(changes)} of {counted(len(moves), 'partition')}"
    confirm(
        ctx,
        f"move group {group} to {write_place(to)} in {count} ({shown_moves(changes)})",
        yes,
        "nothing was changed",
    )
    offsets = {move.standing.where: move.offset for move in changes}
    done = run(ctx, lambda client: _store(client.admin(), group, offsets))
    _show(ctx, as_done(moves, done))
    if not settings(ctx).as_json:
        write_note(f"moved group {group} in {count}")


async def _store(
    admin: Admin, group: str, changes: Mapping[TopicPartition, int]
) -> tuple[OffsetMove, ...]:
    """Move the group, whose members may work on meanwhile.

    Raises:
        Complaint: it was not moved; or nobody knows, then it says what has been.
    """
    from riverrun.cli.session import complaint_of  # noqa: PLC0415 - imports grpc
    from riverrun.errors import RiverrunError  # noqa: PLC0415 - for the work only

    try:
        return await admin.reset_group(group, changes)
    except RiverrunError as error:
        raise await _not_all_moved(admin, group, changes, complaint_of(error)) from error


async def _not_all_moved(
    admin: Admin, group: str, changes: Mapping[TopicPartition, int], complaint: Complaint
) -> Complaint:
    """Look which partitions were moved although one refused, and say so."""
    from riverrun.errors import RiverrunError  # noqa: PLC0415 - for the work only

    text = complaint.message.rstrip(". ")
    try:
        now = await admin.group_offsets(group, changes)
    except RiverrunError:
        complaint.code = Exit.UNKNOWN_OUTCOME
        complaint.message = (
            f"{text}; others may have been moved: see `riverrun group describe {group}`"
        )
        return complaint
    moved = [
        where
        for where, offset in changes.items()
        if (known := now.get(where)) is not None and known.offset == offset
    ]
    complaint.message = f"{text}; {len(moved)} of {counted(len(changes), 'partition')} were moved"
    if moved:
        complaint.message += f": {', '.join(map(str, moved[:MOVED_TOLD]))}"
        complaint.message += ", …" if len(moved) > MOVED_TOLD else ""
        complaint.partly()
    complaint.more["moved"] = [where._asdict() for where in moved]
    return complaint


async def _moves(
    admin: Admin, standings: Sequence[Standing], partitions: Sequence[int], to: Place
) -> list[Move]:
    """Find the new offset of each partition that was chosen.

    Raises:
        Complaint: one that was chosen is not among them, or is offline.
    """
    there = {standing.where.partition for standing in standings}
    missing = sorted(set(partitions) - there)
    if missing:
        await _refuse_partition(admin, standings, missing[0])
    chosen = [one for one in standings if not partitions or one.where.partition in partitions]
    offline = [standing for standing in chosen if standing.error]
    if offline:
        raise Complaint(
            f"{offline[0].where} is offline, so its offsets are not known; nothing was changed. "
            f"Choose others with --partition, or see to it: {offline[0].error}",
            Exit.UNAVAILABLE,
            "PARTITION_OFFLINE",
        )
    times = await _times(admin, chosen, to.time_ms) if isinstance(to, AtTime) else {}
    return [Move(standing, target_offset(standing, to, times)) for standing in chosen]


async def _refuse_partition(admin: Admin, standings: Sequence[Standing], missing: int) -> None:
    """Say why a partition is not among those to move: no topic has it, or the group is not there.

    Raises:
        Complaint: in any case.
    """
    from riverrun.cli.topics import check_partitions, partition_count  # noqa: PLC0415 - imports grpc

    topics = dict.fromkeys(standing.where.topic for standing in standings)
    counts = {topic: await partition_count(admin, topic) for topic in topics}
    largest = max(counts, key=lambda topic: counts[topic])
    check_partitions(largest, [missing], counts[largest])
    there = ", ".join(str(standing.where) for standing in standings)
    raise Complaint(
        f"the group has committed nothing in partition {missing}, only in {there}; name the topic with "
        "--topic to place it there",
        Exit.NOT_FOUND,
        "PARTITION_NOT_FOUND",
    )


async def _times(
    admin: Admin, standings: Sequence[Standing], time_ms: int
) -> dict[tuple[str, int], int | None]:
    """Find the first record of a time or later in each partition."""
    from riverrun import Time  # noqa: PLC0415 - the client is imported when a command runs

    return {
        (topic, found.partition): found.offset
        for topic in dict.fromkeys(standing.where.topic for standing in standings)
        for found in await admin.list_offsets(topic, Time(time_ms))
    }


def _show(ctx: click.Context, moves: Sequence[Move]) -> None:
    """Tell where each partition stood, and where it is to go on."""
    if settings(ctx).as_json:
        print_json([_fields(move) for move in moves])
        return
    rows: list[list[Cell]] = [
        [
            move.standing.where.topic,
            move.standing.where.partition,
            "-" if move.before is None else move.before,
            move.offset,
            (move.standing.latest or 0) - move.offset,
        ]
        for move in moves
    ]
    print_table(Table(("TOPIC", "PARTITION", "FROM", "TO", "LAG THEN"), rows))


def _fields(move: Move) -> dict[str, object]:
    """Tell one partition for programs."""
    return {
        "topic": move.standing.where.topic,
        "partition": move.standing.where.partition,
        "from": move.before,
        "to": move.offset,
        "latest": move.standing.latest,
    }
