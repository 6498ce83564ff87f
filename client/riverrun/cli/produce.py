"""`riverrun produce`: records from standard input into a topic."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import click

from riverrun.cli.arguments import parse_headers, reading, topic_argument
from riverrun.cli.escapes import unescape
from riverrun.cli.exits import write_note
from riverrun.cli.framing import RECORD_BYTES_MAX
from riverrun.cli.inputs import InputFormat
from riverrun.cli.running import run
from riverrun.cli.settings import Command, settings
from riverrun.cli.tables import print_json

if TYPE_CHECKING:
    from riverrun import Client
    from riverrun.cli.producing import Outcome


@dataclass(frozen=True, slots=True)
class ProduceOptions:
    """What was asked for; see the help of each option."""

    topic: str
    key_separator: bytes | None
    delimiter: bytes
    record_size: int | None
    form: InputFormat
    null_value: bytes | None
    headers: Sequence[tuple[str, bytes]]
    partition: int | None
    partitioner: Literal["crc32", "murmur2", "round-robin", "sticky"]
    acks: Literal["all", "leader", "none"]
    compression: Literal["none", "gzip", "zstd"]
    create: bool
    timeout_s: float | None


@click.command(cls=Command, short_help="Write records from standard input.")
@topic_argument
@click.option("--create", is_flag=True, help="Make the topic where there is none.")
@click.option(
    "--key-separator",
    callback=reading(unescape),
    metavar="TEXT",
    help=r"Cut each record at the first TEXT into key and value; escapes such as \t count.",
)
@click.option(
    "--partition",
    type=click.IntRange(min=0),
    help="Where to, whatever the keys say.  [default: as --partitioner chooses]",
)
@click.option(
    "--partitioner",
    type=click.Choice(["crc32", "murmur2", "round-robin", "sticky"]),
    default="crc32",
    show_default=True,
    help="How partitions are chosen: by a hash of the key (murmur2 is that of Kafka's Java clients) "
    "and without one in turn, a batch each; or whatever the keys, in turn, a record (round-robin) or "
    "a batch (sticky) each.",
)
@click.option(
    "--header",
    "headers",
    metavar="NAME=VALUE",
    multiple=True,
    callback=parse_headers,
    help="A header of every record; may be repeated.",
)
@click.option(
    "--delimiter",
    callback=reading(unescape),
    metavar="TEXT",
    default=r"\n",
    help=r"What ends a record, such as '\0' or '\r\n'.  [default: \n]",
)
@click.option(
    "--record-size",
    type=click.IntRange(1, RECORD_BYTES_MAX),
    metavar="BYTES",
    help="Cut the input every so many bytes instead, for binary data.",
)
@click.option(
    "--null-value",
    callback=reading(unescape),
    metavar="TEXT",
    help="A value (a tombstone) or key of exactly TEXT is absent.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["raw", "json", "hex", "base64"]),
    default="raw",
    show_default=True,
    help="What a record is written as.",
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
@click.pass_context
def produce(ctx: click.Context, /, **given: Any) -> int:  # what click has read, by name
    r"""Write records from standard input to TOPIC: one a line, whatever bytes it holds.

    A record is sent as soon as it is read; many are sent together when there are many. An empty
    line is an empty value. What stands behind the last delimiter is a record too, unless it is
    empty.

    \b
    seq 1000000 | riverrun produce numbers --create
    riverrun produce orders --key-separator : <<< 'customer-7:2 apples'
    riverrun produce events --format json <<< '{"key": "k", "value": "v", "headers": {"h": "x"}}'
    riverrun produce blobs --record-size 4096 < image

    JSON records have value, key, headers, timestamp (ms since 1970, or ISO 8601) and partition;
    value_base64 and key_base64 hold bytes that are no text. `consume --output json` writes the
    same. Records of a partition that they name themselves keep their order, and so do the others
    among themselves.

    A partition that is offline is told of on standard error, with the command that brings it back,
    and so is a broker that goes away on the way; after --timeout (2 minutes by default) without an
    acknowledgement it is an error. Where no broker answers at the start, it is one after 10 seconds,
    or after --timeout where that is less.

    At the first line that is no record, or that the topic does not take, reading stops: those before
    it are written, nothing from it on is sent, and the error names it, so that a script can go on
    behind it (`tail -n +N`). Where a broker refuses or does not answer, reading stops too, what is
    under way is finished, and the error says how many records were acknowledged and from which line
    on nothing was sent; of a topic of one partition also which line is the first that is not
    acknowledged. With --output json these are line, acknowledged_records, acknowledged_to_line and
    unsent_from_line; lines count from 1, and are records where --delimiter or --record-size cuts
    them. The exit code is 7 where records were acknowledged (repeating all would write them twice),
    and 6 where nobody knows of some. A topic that --create has made stays.

    SIGINT and SIGTERM end reading; what was read is sent and waited for as long as acknowledgements
    come, and then it is told how many there were, and which line comes next. A second signal ends
    at once.
    """
    options = _check(ctx, ProduceOptions(timeout_s=settings(ctx).timeout_s, **given))

    async def work(client: Client) -> Outcome:
        from riverrun.cli.producing import produce_input  # noqa: PLC0415 - imports asyncio

        return await produce_input(client, options)

    began = time.monotonic()
    outcome = run(ctx, work)
    seconds = time.monotonic() - began
    if settings(ctx).as_json:
        print_json(outcome.fields(seconds))
    elif outcome.stopped_by is not None or sys.stderr.isatty():
        write_note(outcome.note(seconds))
    return outcome.exit_code


def _check(ctx: click.Context, options: ProduceOptions) -> ProduceOptions:
    """Refuse what contradicts itself."""
    source = ctx.get_parameter_source("delimiter")
    if options.record_size is not None:
        if source is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError("--record-size and --delimiter exclude each other", ctx)
        if options.key_separator is not None or options.form != "raw":
            raise click.UsageError(
                "--record-size cuts raw values: it goes with neither --key-separator nor --format",
                ctx,
            )
    if not options.delimiter:
        raise click.UsageError(
            "an empty --delimiter ends nothing: cut binary data with --record-size", ctx
        )
    if options.key_separator == b"":
        raise click.UsageError("an empty --key-separator separates nothing", ctx)
    if options.form == "json" and (options.key_separator or options.null_value is not None):
        raise click.UsageError(
            "JSON records say their keys and nulls themselves: --format json goes with neither "
            "--key-separator nor --null-value",
            ctx,
        )
    return options
