"""`riverrun consume`: records of a topic to standard output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from riverrun.cli.arguments import (
    partitions_option,
    read_bound,
    read_place,
    reading,
    topic_argument,
)
from riverrun.cli.completion import complete_places
from riverrun.cli.escapes import EscapeError, unescape
from riverrun.cli.places import AtOffset, AtTime, Bound, Place, write_place
from riverrun.cli.rendering import Renderer, json_renderer, template_renderer, value_renderer
from riverrun.cli.running import run
from riverrun.cli.settings import Command, settings
from riverrun.cli.template import Template, TemplateError

if TYPE_CHECKING:
    from riverrun import Client


@dataclass(frozen=True, slots=True)
class ConsumeOptions:
    """What was asked for; see the help of each option."""

    topic: str
    group: str | None
    start: Place | None
    until: Bound | None
    partitions: tuple[int, ...]
    max_records: int | None
    exit_at_end: bool
    template: str | None
    delimiter: bytes
    null_value: bytes

    @property
    def endless(self) -> bool:
        """Whether only a signal ends it."""
        return self.until is None and self.max_records is None and not self.exit_at_end


@click.command(cls=Command, short_help="Write records to standard output.")
@topic_argument
@click.option(
    "--group",
    metavar="NAME",
    help="Go on where this group has committed to, and commit what was printed.",
)
@click.option(
    "--from",
    "start",
    callback=reading(read_place),
    shell_complete=complete_places,
    metavar="PLACE",
    help="Where to begin: earliest, latest, committed, an OFFSET, a TIME, or -N for the last N "
    "records of each partition. With a group it counts only where nothing is committed.  "
    "[default: earliest]",
)
@click.option(
    "--until",
    callback=reading(read_bound),
    shell_complete=complete_places,
    metavar="OFFSET|TIME",
    help="End each partition before this offset, or at its first record of this time or later.",
)
@partitions_option
@click.option(
    "--max",
    "max_records",
    type=click.IntRange(min=1),
    metavar="N",
    help="End after N records.",
)
@click.option(
    "--exit-at-end",
    is_flag=True,
    help="End at the high watermarks that the partitions have at the start. A partition that cannot "
    "be read for --timeout (30 s by default) has no end: that is an error.",
)
@click.option(
    "--format",
    "template",
    metavar="FORMAT",
    help="What to write of a record: %t topic, %p partition, %o offset, %k key, %s value, "
    "%h headers, %T timestamp in ms, %K and %S length of key and value, %% a percent sign.  "
    "[default: %s]",
)
@click.option(
    "--delimiter",
    callback=reading(unescape),
    metavar="TEXT",
    default=r"\n",
    help=r"What follows each record, such as '\0'; '' is nothing.  [default: \n]",
)
@click.option(
    "--null-value",
    callback=reading(unescape),
    metavar="TEXT",
    default="",
    help="What stands for an absent key or value.  [default: nothing]",
)
@click.pass_context
def consume(ctx: click.Context, /, **given: Any) -> int:  # what click has read, by name
    r"""Write the records of TOPIC to standard output: the value and a newline by default.

    Without an end of its own (--max, --until, --exit-at-end) it goes on for ever. What has come is
    written at once.

    \b
    riverrun consume orders --from 10m-ago
    riverrun consume orders --from -5 --exit-at-end --format '%p:%o %k=%s'
    riverrun consume orders --from 2026-01-31T12:00Z --until 2026-01-31T13:00Z --output json
    riverrun consume blobs --delimiter '' --exit-at-end > image

    A TIME is ISO 8601 (UTC unless it says otherwise), @UNIX_MS, a span such as 10m-ago or
    1h30m-ago, or now, today or yesterday: the midnights of UTC that these days begin with. Formats and delimiters may have \n \t \r \0 \e \\ and \xHH. A format that ends with
    the delimiter gets no second one.

    With --output json each record is an object on a line (`| python3 -m json.tool --json-lines`
    lays them out); bytes that are not UTF-8 stand in base64
    as value_base64 and key_base64.

    A partition that is offline is told of on standard error, with the command that brings it back,
    and waited for; the others are read meanwhile. An offset that a partition does not have is an
    error that names those it has; with --group reading goes on at the earliest, with a warning.

    SIGINT and SIGTERM write what has come, commit it, and end; a second signal ends at once. When
    the reader of a pipe goes away it ends quietly, with exit code 0. Where it fails once records
    were printed, the error says how many, and the exit code is 7.
    """
    options = ConsumeOptions(**given)
    if options.start == "committed" and options.group is None:
        raise click.UsageError("--from committed needs --group: whose offsets?", ctx)
    _check_range(ctx, options)
    renderer = _renderer(ctx, options)

    async def work(client: Client) -> int:
        from riverrun.cli.consuming import consume_output  # noqa: PLC0415 - imports asyncio

        return await consume_output(client, options, renderer)

    return run(ctx, work)


def _check_range(ctx: click.Context, options: ConsumeOptions) -> None:
    """Refuse a range that ends before it begins."""
    match options.start, options.until:
        case (AtOffset(start), AtOffset(end)) | (AtTime(start), AtTime(end)) if start > end:
            assert options.start is not None
            assert options.until is not None
            raise click.UsageError(
                f"--from {write_place(options.start)} lies behind --until "
                f"{write_place(options.until)}, so there is nothing to read: exchange them",
                ctx,
            )


def _renderer(ctx: click.Context, options: ConsumeOptions) -> Renderer:
    """Choose how records are written."""
    if settings(ctx).as_json:
        if options.template is not None:
            raise click.UsageError("--format and --output json exclude each other", ctx)
        return json_renderer(options.delimiter)
    if options.template is None:
        return value_renderer(options.delimiter, options.null_value)
    try:
        template = Template(options.template, null=options.null_value)
    except (TemplateError, EscapeError) as error:
        raise click.UsageError(f"--format: {error}", ctx) from error
    return template_renderer(template, options.delimiter)
