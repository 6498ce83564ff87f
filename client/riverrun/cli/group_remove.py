"""`riverrun group remove-member` and `delete`: who is to go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from riverrun.cli.confirming import confirm, yes_option
from riverrun.cli.exits import Complaint, Exit, write_note
from riverrun.cli.running import run
from riverrun.cli.settings import Command, settings
from riverrun.cli.tables import print_json

if TYPE_CHECKING:
    from riverrun import Client


@click.command(cls=Command, name="remove-member", short_help="Throw a member out of a group.")
@click.argument("group")
@click.argument("member", required=False)
@click.option(
    "--instance", metavar="ID", help="The member that has this place, by its instance id."
)
@click.pass_context
def remove_member(ctx: click.Context, group: str, member: str | None, instance: str | None) -> None:
    r"""Throw MEMBER out of GROUP; its partitions go to the others at once.

    `riverrun group describe` tells the members' ids. A client that still runs joins again.

    \b
    riverrun group remove-member billing 3bcda33fcde52f57e1e4945059d0c47e
    riverrun group remove-member billing --instance worker-3
    """
    if (member is None) == (instance is None):
        raise click.UsageError("name one member, by its id or with --instance", ctx)

    async def work(client: Client) -> str:
        return await client.admin().remove_member(group, member_id=member, instance_id=instance)

    removed = run(ctx, work)
    if settings(ctx).as_json:
        print_json({"group": group, "member_id": removed})
    else:
        write_note(f"removed member {removed} of group {group}")


@click.command(cls=Command, short_help="Delete a group and its committed offsets.")
@click.argument("group")
@click.option("--if-exists", is_flag=True, help="Do not fail where there is none of this name.")
@yes_option
@click.pass_context
def delete(ctx: click.Context, group: str, if_exists: bool, yes: bool) -> None:
    r"""Delete GROUP, which has no members, with everything that it has committed.

    It asks first; where there is no terminal to ask on, --yes is needed.

    \b
    riverrun group delete billing
    riverrun group delete billing --if-exists --yes
    """
    confirm(ctx, f"delete group {group} and all that it has committed", yes, "nothing was deleted")

    async def work(client: Client) -> None:
        await client.admin().delete_group(group)

    deleted = True
    try:
        run(ctx, work)
    except Complaint as complaint:
        if not (if_exists and complaint.code is Exit.NOT_FOUND):
            raise
        deleted = False
    if settings(ctx).as_json:
        print_json({"group": group, "deleted": deleted})
    else:
        write_note(f"deleted group {group}" if deleted else f"there is no group {group}")
