"""`riverrun perf consume`: how fast this client reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import click

from riverrun.cli.arguments import read_place, reading, topic_argument
from riverrun.cli.completion import complete_places
from riverrun.cli.measurement import Measurement, fast_loop
from riverrun.cli.places import Place
from riverrun.cli.running import run
from riverrun.cli.settings import Command
from riverrun.cli.tables import print_json

if TYPE_CHECKING:
    from riverrun import Client


@dataclass(frozen=True, slots=True)
class ConsumeLoad:
    """What to read and how; see the help of each option."""

    topic: str
    records: int
    group: str | None
    mode: Literal["batches", "records"]
    start: Place | None


@click.command(cls=Command, short_help="Measure reading.")
@topic_argument
@click.option(
    "--records", type=click.IntRange(min=1), metavar="N", required=True, help="How many to read."
)
@click.option("--group", metavar="NAME", help="Begin where this group has committed to; commit.")
@click.option(
    "--mode",
    type=click.Choice(["batches", "records"]),
    default="batches",
    show_default=True,
    help="Read batches, or each record by `async for`.",
)
@click.option(
    "--from",
    "start",
    callback=reading(read_place),
    shell_complete=complete_places,
    metavar="PLACE",
    help="Where to begin, as in `riverrun consume`.  [default: earliest]",
)
@click.pass_context
def consume(ctx: click.Context, /, **given: Any) -> None:  # what click has read, by name
    r"""Read records of TOPIC and tell how fast, from the first call to the last record.

    Checksums are verified and every value is looked at. It waits for records that are not there
    yet, and counts the last batch whole. With --group, what was read is committed once at the end,
    within the time that is told.

    latency_ms is how old records are when they are read, of the last one of each batch, or of
    every hundredth in mode records: in a topic that is being written it is the time from writing
    to reading, if the clocks agree, and in an old one its age.

    \b
    riverrun perf consume bench --records 1000000
    riverrun perf consume bench --records 1000000 --group readers --from latest
    """
    load = ConsumeLoad(**given)

    async def work(client: Client) -> Measurement:
        from riverrun.cli.measure_consume import measure_consume  # noqa: PLC0415 - asyncio

        return await measure_consume(client, load)

    print_json(run(ctx, work, loop_factory=fast_loop()).fields())
