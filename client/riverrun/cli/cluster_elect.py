"""`riverrun cluster elect-leaders`: give partitions back to their preferred leaders, at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from riverrun.cli.completion import complete_topics
from riverrun.cli.counts import counted
from riverrun.cli.exits import Complaint, exit_for, write_note
from riverrun.cli.running import run
from riverrun.cli.settings import Command, settings
from riverrun.cli.tables import Cell, Table, print_json, print_table

if TYPE_CHECKING:
    from riverrun import Client, ElectionResult, TopicPartition

ERRORS_TOLD = 3
"""The table has all of them."""

Target = tuple[str, int | None]


def read_target(text: str) -> Target:
    """Read a topic, or a partition behind its topic and a colon, which no topic's name has.

    >>> read_target("orders"), read_target("orders:3")
    (('orders', None), ('orders', 3))

    Raises:
        ValueError: what stands behind the colon is no partition, or nothing before it.
    """
    topic, colon, partition = text.partition(":")
    if not topic or (colon and not (partition.isascii() and partition.isdigit())):
        raise ValueError(f"{text!r} is neither TOPIC nor TOPIC:PARTITION")
    return topic, int(partition) if colon else None


def _read_targets(
    _: click.Context, param: click.Parameter, given: Sequence[str]
) -> tuple[Target, ...]:
    try:
        return tuple(map(read_target, given))
    except ValueError as error:
        raise click.BadParameter(str(error), param=param) from error


@click.command(
    cls=Command, name="elect-leaders", short_help="Give partitions their preferred leaders."
)
@click.argument(
    "targets",
    metavar="[TOPIC[:PARTITION]]...",
    nargs=-1,
    callback=_read_targets,
    shell_complete=complete_topics,
)
@click.option("--all", "everything", is_flag=True, help="For every partition of every topic.")
@click.pass_context
def elect_leaders(ctx: click.Context, targets: tuple[Target, ...], everything: bool) -> None:
    r"""Give partitions their preferred leaders, which are their first replicas.

    Brokers do that by themselves, a few partitions a second, once a broker is back and in sync; this
    does it at once, and says why where it cannot be done. A producer of a partition that moves waits
    for a moment. With --all the table has no partitions whose preferred leader led them already.
    The exit code is 7 where some were elected and others could not be.

    \b
    riverrun cluster elect-leaders --all
    riverrun cluster elect-leaders orders clicks:3
    """
    if everything == bool(targets):
        raise click.UsageError("give topics or partitions, or --all for everything", ctx)

    async def work(client: Client) -> tuple[ElectionResult, ...]:
        return await client.admin().elect_leaders(_targets(targets))

    results = run(ctx, work)
    elected = sum(result.outcome == "elected" for result in results)
    failed = any(result.outcome == "failed" for result in results)
    if settings(ctx).as_json:
        print_json([_fields(result) for result in results])
    else:
        if results:
            _print(results)
        if elected:
            write_note(f"elected preferred leaders of {counted(elected, 'partition')}")
        elif not failed:
            write_note("nothing to elect: preferred leaders lead already")
    if failed:
        raise complaint_of(results)


def complaint_of(results: Sequence[ElectionResult]) -> Complaint:
    """Say which partitions did not get their preferred leaders, and how many others did."""
    failed = [result for result in results if result.outcome == "failed"]
    elected = sum(result.outcome == "elected" for result in results)
    told = "; ".join(result.error for result in failed[:ERRORS_TOLD])
    more = f"; and {len(failed) - ERRORS_TOLD:,} more" if len(failed) > ERRORS_TOLD else ""
    known = all(result.outcome_known for result in failed)
    reasons = {str(result.reason) for result in failed}
    # Several reasons have no exit code in common.
    reason = reasons.pop() if len(reasons) == 1 else "ELECTION_FAILED"
    complaint = Complaint(
        f"{counted(len(failed), 'partition')} without the preferred leader: {told}{more}",
        exit_for(reason, outcome_known=known, retriable=False),
        reason,
        {"elected": elected},
    )
    if elected:
        complaint.partly()
    return complaint


def _targets(targets: Sequence[Target]) -> list[str | TopicPartition]:
    from riverrun import TopicPartition  # noqa: PLC0415 - the client is imported when a command runs

    return [
        topic if partition is None else TopicPartition(topic, partition)
        for topic, partition in targets
    ]


def _print(results: Sequence[ElectionResult]) -> None:
    rows: list[list[Cell]] = [
        [
            result.topic,
            "-" if result.partition is None else result.partition,
            result.outcome,
            result.leader if result.leader >= 0 else "none",
            result.leader_epoch,
            result.error,
        ]
        for result in results
    ]
    headings = ("TOPIC", "PARTITION", "RESULT", "LEADER", "EPOCH", "WHY")
    print_table(Table(headings, rows, states="RESULT"))


def _fields(result: ElectionResult) -> dict[str, object]:
    """Tell one partition for programs."""
    fields: dict[str, object] = {
        "topic": result.topic,
        "partition": result.partition,
        "outcome": result.outcome,
        "leader": result.leader,
        "leader_epoch": result.leader_epoch,
    }
    if result.error:
        fields |= {"error": result.error, "reason": str(result.reason)}
    return fields
