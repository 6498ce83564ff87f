"""`riverrun group list` and `describe`: members, committed offsets and lag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from riverrun.cli.arguments import topics_option
from riverrun.cli.counts import counted
from riverrun.cli.places import format_time
from riverrun.cli.running import run
from riverrun.cli.settings import Command, settings
from riverrun.cli.tables import Cell, Table, print_json, print_table

if TYPE_CHECKING:
    from riverrun import Client, GroupDescription, GroupInfo, GroupMember
    from riverrun.cli.group_progress import Described, Standing


STATES = ("empty", "reconciling", "stable")


@click.command(cls=Command, name="list", short_help="List groups by name.")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(STATES),
    help="Only groups in this state; may be given several times.",
)
@click.pass_context
def list_groups(ctx: click.Context, states: tuple[str, ...]) -> None:
    r"""List the groups that have members or committed offsets, by name.

    An empty group has no members, a reconciling one moves partitions between them, and in a stable one
    each has what it should have.

    \b
    riverrun group list
    riverrun group list --state empty
    riverrun group list --output json | jq -r '.[].group'
    """

    async def work(client: Client) -> list[GroupInfo]:
        return [found async for found in client.admin().list_groups(states=states)]

    groups = run(ctx, work)
    if settings(ctx).as_json:
        print_json([asdict(group) for group in groups])
        return
    rows = [(one.group, one.state, one.members, one.assignor or "-") for one in groups]
    print_table(Table(("GROUP", "STATE", "MEMBERS", "ASSIGNOR"), rows))


@click.command(cls=Command, short_help="Tell who is in a group, and how far it has come.")
@click.argument("group")
@topics_option
@click.pass_context
def describe(ctx: click.Context, group: str, topics: tuple[str, ...]) -> None:
    r"""Tell who is in GROUP, how far it has come and how much is left, in each partition that it reads.

    COMMITTED is the next offset that the group reads. LAG counts offsets from there to LATEST, the
    high watermark; where nothing is committed, from EARLIEST, where a group begins. BEHIND is how old
    the oldest of them is.

    \b
    riverrun group describe billing
    riverrun group describe billing --topic orders
    riverrun group describe billing --output json
    """

    async def work(client: Client) -> Described:
        from riverrun.cli.group_progress import described  # noqa: PLC0415 - imports grpc

        return await described(client.admin(), group, topics)

    told = run(ctx, work)
    if settings(ctx).as_json:
        print_json(_group_fields(group, told))
        return
    if told.group is not None and told.group.members:
        _print_members(told.group)
    headings = ("TOPIC", "PARTITION", "COMMITTED", "EARLIEST", "LATEST", "LAG", "COMMITTED AT")
    rows = [_row(standing, told) for standing in told.standings]
    print_table(Table((*headings, "BEHIND", "MEMBER"), rows))
    for standing in told.standings:
        if standing.error:
            click.echo(f"\n{standing.where}: {standing.error}")
        elif standing.unread:
            click.echo(
                f"\n{standing.where}: {standing.unread:,} offsets behind the committed one were "
                "deleted before the group read them"
            )


def _print_members(group: GroupDescription) -> None:
    click.echo(
        f"{group.state}, {counted(len(group.members), 'member')}, {group.assignor} assignor, "
        f"coordinated by broker {'-' if group.coordinator is None else group.coordinator}\n"
    )
    rows: list[list[Cell]] = [
        [
            member.member_id,
            member.instance_id or "-",
            member.client_id or "-",
            member.address,
            member.state,
            len(member.owned),
            len(member.revoking),
            len(member.coming),
        ]
        for member in group.members
    ]
    headings = ("MEMBER", "INSTANCE", "CLIENT", "ADDRESS", "STATE", "HAS", "GIVES UP", "AWAITS")
    print_table(Table(headings, rows))
    click.echo()


def _group_fields(group: str, told: Described) -> dict[str, object]:
    """Tell a group for programs."""
    found = told.group
    return {
        "group": group,
        "state": found.state if found else "empty",
        "assignor": found.assignor if found else "",
        "coordinator": found.coordinator if found else None,
        "lag": total_lag([standing.lag for standing in told.standings]),
        "members": [_member_fields(member) for member in found.members] if found else [],
        "offsets": [_fields(one, told) for one in told.standings],
    }


def _member_fields(member: GroupMember) -> dict[str, object]:
    fields = asdict(member)
    for key in ("owned", "revoking", "coming"):
        fields[key] = [where._asdict() for where in getattr(member, key)]
    return fields


def total_lag(lags: Sequence[int | None]) -> int | None:
    """Add lags up; None where one is not known, for the rest would look like all there is."""
    known = [lag for lag in lags if lag is not None]
    return sum(known) if len(known) == len(lags) else None


def _row(standing: Standing, told: Described) -> list[Cell]:
    """Tell one partition for people."""
    known = standing.committed
    found = told.partitions.get(standing.where)
    return [
        standing.where.topic,
        standing.where.partition,
        *("-" if at is None else at for at in (known and known.offset, standing.earliest)),
        *("-" if at is None else at for at in (standing.latest, standing.lag)),
        format_time(known.commit_time_ms) if known else "-",
        "-" if found is None or found.lag_s is None else f"{found.lag_s:.1f} s",
        "-" if found is None else found.member_id or "-",
    ]


def _fields(standing: Standing, told: Described) -> dict[str, object]:
    """Tell one partition for programs."""
    known = standing.committed
    found = told.partitions.get(standing.where)
    fields: dict[str, object] = {
        "topic": standing.where.topic,
        "partition": standing.where.partition,
        "committed": known.offset if known else None,
        "earliest": standing.earliest,
        "latest": standing.latest,
        "lag": standing.lag,
        "lag_s": found.lag_s if found else None,
        "member": found.member_id if found and found.member_id else None,
        "commit_time": format_time(known.commit_time_ms) if known else None,
        "metadata": known.metadata if known else "",
    }
    return {**fields, "error": standing.error} if standing.error else fields
