"""`riverrun perf produce`: how fast this client writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import click

from riverrun.cli.arguments import topic_argument
from riverrun.cli.framing import RECORD_BYTES_MAX
from riverrun.cli.measurement import Measurement, fast_loop
from riverrun.cli.running import run
from riverrun.cli.settings import Command
from riverrun.cli.tables import print_json

if TYPE_CHECKING:
    from riverrun import Client


@dataclass(frozen=True, slots=True)
class ProduceLoad:
    """What to write and how; see the help of each option."""

    topic: str
    records: int
    record_size: int
    key_size: int
    mode: Literal["many", "send"]
    batch_bytes: int | None
    acks: Literal["all", "leader", "none"]
    compression: Literal["none", "gzip", "zstd"]
    partitions: int | None


@click.command(cls=Command, short_help="Measure writing.")
@topic_argument
@click.option(
    "--records", type=click.IntRange(min=1), metavar="N", required=True, help="How many to write."
)
@click.option(
    "--record-size",
    type=click.IntRange(1, RECORD_BYTES_MAX),
    metavar="BYTES",
    default=100,
    show_default=True,
    help="How long values are.",
)
@click.option(
    "--key-size",
    type=click.IntRange(0, 65_536),
    metavar="BYTES",
    default=8,
    show_default=True,
    help="How long keys are; 0 is none.",
)
@click.option(
    "--mode",
    type=click.Choice(["many", "send"]),
    default="many",
    show_default=True,
    help="Write all with one send_many, or each with a send_nowait of its own.",
)
@click.option(
    "--batch-bytes",
    type=click.IntRange(min=1),
    metavar="BYTES",
    help="How large batches may grow.  [default: the library's]",
)
@click.option(
    "--acks",
    type=click.Choice(["all", "leader", "none"]),
    default="all",
    show_default=True,
    help="Who must have a record on disk before it counts.",
)
@click.option(
    "--compression",
    type=click.Choice(["none", "gzip", "zstd"]),
    default="none",
    show_default=True,
    help="How batches are compressed.",
)
@click.option(
    "--partitions",
    type=click.IntRange(min=1),
    metavar="N",
    help="Make the topic with so many partitions where there is none of its name.",
)
@click.pass_context
def produce(ctx: click.Context, /, **given: Any) -> None:  # what click has read, by name
    r"""Write records to TOPIC and tell how fast, from the first call to the last acknowledgement.

    Each record is a new pair of one of 10,000 random keys and one of 64 random values, encoded by
    the library as any other: idempotent, with checksums.

    latency_ms is from the call to the acknowledgement: of every record in mode send. In mode many,
    of single records sent beside the others, 50 a second, which count among --records; each is
    measured from the moment when it was due.

    \b
    riverrun perf produce bench --records 1000000 --partitions 16
    riverrun perf produce bench --records 100000 --record-size 1000 --mode send --acks leader
    """
    load = ProduceLoad(**given)

    async def work(client: Client) -> Measurement:
        from riverrun.cli.measure_produce import measure_produce  # noqa: PLC0415 - asyncio

        return await measure_produce(client, load)

    print_json(run(ctx, work, loop_factory=fast_loop()).fields())
