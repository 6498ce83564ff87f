"""`riverrun group describe`: committed offsets and lag."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from riverrun.cli.arguments import topics_option
from riverrun.cli.places import format_time
from riverrun.cli.running import run
from riverrun.cli.settings import Command, settings
from riverrun.cli.tables import Cell, Table, print_json, print_table

if TYPE_CHECKING:
    from riverrun import Client
    from riverrun.cli.group_progress import Standing


@click.command(cls=Command, short_help="Tell how far a group has come.")
@click.argument("group")
@topics_option
@click.pass_context
def describe(ctx: click.Context, group: str, topics: tuple[str, ...]) -> None:
    r"""Tell how far GROUP has come, and how much is left, in each partition where it has committed.

    COMMITTED is the next offset that the group reads. LAG counts offsets from there to LATEST, the
    high watermark; where nothing is committed, from EARLIEST, where a group begins.

    \b
    riverrun group describe billing
    riverrun group describe billing --topic orders
    riverrun group describe billing --output json
    """

    async def work(client: Client) -> list[Standing]:
        from riverrun.cli.group_progress import standings  # noqa: PLC0415 - imports grpc

        return await standings(client.admin(), group, topics)

    found = run(ctx, work)
    if settings(ctx).as_json:
        lag = total_lag([standing.lag for standing in found])
        print_json({"group": group, "lag": lag, "offsets": [_fields(one) for one in found]})
        return
    headings = ("TOPIC", "PARTITION", "COMMITTED", "EARLIEST", "LATEST", "LAG", "COMMITTED AT")
    print_table(Table(headings, [_row(standing) for standing in found]))
    for standing in found:
        if standing.error:
            click.echo(f"\n{standing.where}: {standing.error}")
        elif standing.unread:
            click.echo(
                f"\n{standing.where}: {standing.unread:,} offsets behind the committed one were "
                "deleted before the group read them"
            )


def total_lag(lags: Sequence[int | None]) -> int | None:
    """Add lags up; None where one is not known, for the rest would look like all there is."""
    known = [lag for lag in lags if lag is not None]
    return sum(known) if len(known) == len(lags) else None


def _row(standing: Standing) -> list[Cell]:
    """Tell one partition for people."""
    known = standing.committed
    return [
        standing.where.topic,
        standing.where.partition,
        *("-" if at is None else at for at in (known and known.offset, standing.earliest)),
        *("-" if at is None else at for at in (standing.latest, standing.lag)),
        format_time(known.commit_time_ms) if known else "-",
    ]


def _fields(standing: Standing) -> dict[str, object]:
    """Tell one partition for programs."""
    known = standing.committed
    fields: dict[str, object] = {
        "topic": standing.where.topic,
        "partition": standing.where.partition,
        "committed": known.offset if known else None,
        "earliest": standing.earliest,
        "latest": standing.latest,
        "lag": standing.lag,
        "commit_time": format_time(known.commit_time_ms) if known else None,
        "metadata": known.metadata if known else "",
    }
    return {**fields, "error": standing.error} if standing.error else fields
