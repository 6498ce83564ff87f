"""`riverrun perf latency`: how long records take from being due to being read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import click

from riverrun.cli.arguments import topic_argument
from riverrun.cli.framing import RECORD_BYTES_MAX
from riverrun.cli.measurement import Measurement, fast_loop
from riverrun.cli.running import run
from riverrun.cli.settings import Command, read_seconds
from riverrun.cli.tables import print_json

if TYPE_CHECKING:
    from riverrun import Client

STAMP_BYTES = 24
"""What a value needs for the run's number, the record's own, and its time."""


@dataclass(frozen=True, slots=True)
class LatencyLoad:
    """What to write and how often; see the help of each option."""

    topic: str
    rate: int
    seconds: float
    warm_up: float
    record_size: int
    acks: Literal["all", "leader", "none"]

    @property
    def records(self) -> int:
        """How many records are measured."""
        return max(1, round(self.rate * self.seconds))

    @property
    def uncounted(self) -> int:
        """How many are written before those."""
        return round(self.rate * self.warm_up)


def _seconds(_ctx: click.Context, param: click.Parameter, given: str | None) -> float:
    """Read a length of time; what is not given is none."""
    try:
        return 0.0 if given is None else read_seconds(given)
    except ValueError as error:
        raise click.BadParameter(str(error), param=param) from error


@click.command(cls=Command, short_help="Measure from writing to reading.")
@topic_argument
@click.option(
    "--rate",
    type=click.IntRange(1, 1_000_000),
    metavar="N",
    default=1000,
    show_default=True,
    help="Records a second.",
)
@click.option(
    "--seconds",
    callback=_seconds,
    metavar="TIME",
    default="10",
    show_default=True,
    help="How long to write.",
)
@click.option(
    "--warm-up",
    callback=_seconds,
    metavar="TIME",
    help="How long to write before that, without measuring.  [default: not at all]",
)
@click.option(
    "--record-size",
    type=click.IntRange(STAMP_BYTES, RECORD_BYTES_MAX),
    metavar="BYTES",
    default=100,
    show_default=True,
    help="How long values are.",
)
@click.option(
    "--acks",
    type=click.Choice(["all", "leader", "none"]),
    default="all",
    show_default=True,
    help="Who must have a record on disk before it counts.",
)
@click.pass_context
def latency(ctx: click.Context, /, **given: Any) -> int:  # what click has read, by name
    r"""Write records to TOPIC at a fixed rate and read them here, and tell how long each took.

    latency_ms is from the moment when a record was due until it was read; ack_latency_ms until it
    was acknowledged. Records are due by the clock, every millisecond at most, whether or not
    earlier ones are done: a stall counts for every record that it delays.

    SIGINT and SIGTERM end it with what was measured so far, marked by "partial": true.

    \b
    riverrun perf latency bench --rate 10000 --seconds 30
    riverrun perf latency bench --rate 1000 --acks leader --output json | jq .latency_ms.p999
    """
    load = LatencyLoad(**given)

    async def work(client: Client) -> Measurement:
        from riverrun.cli.measure_latency import measure_latency  # noqa: PLC0415 - asyncio

        return await measure_latency(client, load)

    measured = run(ctx, work, loop_factory=fast_loop())
    print_json(measured.fields())
    return measured.exit_code
