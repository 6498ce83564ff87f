"""`riverrun topic trim` and `delete`: what cannot be taken back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from riverrun.cli.arguments import partitions_option, read_place, reading, topic_argument
from riverrun.cli.completion import complete_places
from riverrun.cli.confirming import confirm, yes_option
from riverrun.cli.counts import counted
from riverrun.cli.exits import Complaint, Exit, write_note
from riverrun.cli.places import AtOffset, AtTime, Place, write_place
from riverrun.cli.running import run
from riverrun.cli.settings import Command, settings
from riverrun.cli.tables import Table, joined, print_json, print_table

if TYPE_CHECKING:
    from riverrun import Admin, Client, From, TrimResult

EVERYTHING = -1
"""As an offset to trim before: all that is committed."""
NOTHING_DELETED = "nothing was deleted"
ERRORS_TOLD = 3
"""The table has all of them."""


@click.command(cls=Command, short_help="Delete the records before a place.")
@topic_argument
@click.option(
    "--before",
    callback=reading(read_place),
    shell_complete=complete_places,
    metavar="OFFSET|TIME|latest",
    required=True,
    help="Delete the records before this; latest deletes everything that is committed.",
)
@partitions_option
@yes_option
@click.pass_context
def trim(
    ctx: click.Context, topic: str, before: Place, partitions: tuple[int, ...], yes: bool
) -> None:
    r"""Delete the records of TOPIC before a place in each partition, for good.

    It asks first; where there is no terminal to ask on, --yes is needed. Partitions are trimmed
    each for itself: where some refuse, the others are trimmed all the same, and the exit code is 7.

    \b
    riverrun topic trim orders --before 30d-ago
    riverrun topic trim orders --before 1200 --partition 3
    riverrun topic trim scratch --before latest --yes
    """
    if not isinstance(before, AtOffset | AtTime) and before != "latest":
        raise click.UsageError(
            "--before takes an offset, a time or latest, which deletes everything", ctx
        )
    where = "everything" if before == "latest" else f"everything before {write_place(before)}"
    confirm(ctx, f"delete {where} in topic {topic}", yes, NOTHING_DELETED)

    async def work(client: Client) -> tuple[TrimResult, ...]:
        admin = client.admin()
        points = await _trim_points(admin, topic, before, partitions)
        return await admin.trim_topic(topic, points) if points else ()

    results = [_in_options(result) for result in run(ctx, work)]
    if settings(ctx).as_json:
        print_json([_result_fields(result) for result in results])
    else:
        rows = [
            (one.partition, "-" if one.error else one.log_start_offset, one.error)
            for one in results
        ]
        print_table(Table(("PARTITION", "BEGINS AT", "ERROR"), rows))
    if any(result.error for result in results):
        raise _not_trimmed(topic, results)


@click.command(cls=Command, short_help="Delete a topic and its records.")
@topic_argument
@click.option("--if-exists", is_flag=True, help="Do not fail where there is none of this name.")
@yes_option
@click.pass_context
def delete(ctx: click.Context, topic: str, if_exists: bool, yes: bool) -> None:
    r"""Delete TOPIC and all its records, for good.

    It asks first; where there is no terminal to ask on, --yes is needed.

    \b
    riverrun topic delete scratch
    riverrun topic delete scratch --if-exists --yes
    """
    confirm(ctx, f"delete topic {topic} and all its records", yes, NOTHING_DELETED)

    async def work(client: Client) -> None:
        await client.admin().delete_topic(topic)

    deleted = True
    try:
        run(ctx, work)
    except Complaint as complaint:
        if not (if_exists and complaint.code is Exit.NOT_FOUND):
            raise
        deleted = False
    if settings(ctx).as_json:
        print_json({"topic": topic, "deleted": deleted})
    else:
        write_note(f"deleted topic {topic}" if deleted else f"there is no topic {topic}")


def _not_trimmed(topic: str, results: Sequence[TrimResult]) -> Complaint:
    """Say which partitions were trimmed and which were not, and whether that is known of all."""
    failed = [result for result in results if result.error]
    done = [result.partition for result in results if not result.error]
    text = f"topic {topic}: {len(failed)} of {counted(len(results), 'partition')} not trimmed"
    if done:
        text += f" (trimmed: {joined(done)})"
    told = "; ".join(f"partition {one.partition}: {one.error}" for one in failed[:ERRORS_TOLD])
    complaint = Complaint(f"{text}; {told}", Exit.FAILED, "TRIM_FAILED", {"trimmed": done})
    if done:
        complaint.partly()
    if not all(result.outcome_known for result in failed):
        complaint.code = Exit.UNKNOWN_OUTCOME
    return complaint


async def _trim_points(
    admin: Admin, topic: str, before: AtOffset | AtTime | str, partitions: tuple[int, ...]
) -> dict[int, int]:
    """Find the offset to trim before in each partition.

    A partition without a record of the time or later has only older ones: all of them go.
    """
    from riverrun import Time  # noqa: PLC0415 - the client is imported when a command runs
    from riverrun.cli.topics import check_partitions  # noqa: PLC0415

    place: From = Time(before.time_ms) if isinstance(before, AtTime) else "earliest"
    found = {one.partition: one.offset for one in await admin.list_offsets(topic, place)}
    check_partitions(topic, partitions, len(found))
    chosen = sorted(set(partitions)) or sorted(found)
    match before:
        case AtOffset(offset):
            return dict.fromkeys(chosen, offset)
        case AtTime():
            times = {partition: found[partition] for partition in chosen}
            return {where: EVERYTHING if at is None else at for where, at in times.items()}
        case _:
            return dict.fromkeys(chosen, EVERYTHING)


def _in_options(result: TrimResult) -> TrimResult:
    """Say in the words of the command line what the broker says of its field."""
    return replace(result, error=result.error.replace("-1 for all", "latest for all"))


def _result_fields(result: TrimResult) -> dict[str, object]:
    """Tell where a partition begins now."""
    fields: dict[str, object] = {
        "partition": result.partition,
        "log_start_offset": None if result.error else result.log_start_offset,
    }
    return {**fields, "error": result.error} if result.error else fields
