"""`riverrun cluster drain`: take a broker out of service, and wait until nothing depends on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from riverrun.cli.cluster_show import broker_fields
from riverrun.cli.completion import complete_brokers
from riverrun.cli.counts import counted
from riverrun.cli.exits import write_note
from riverrun.cli.running import run
from riverrun.cli.settings import Command, settings
from riverrun.cli.tables import print_json

if TYPE_CHECKING:
    from riverrun import Admin, BrokerDescription, Client, DrainResult

TIMEOUT_S = 300.0
"""How long it waits where --timeout does not say."""


@click.command(cls=Command, short_help="Take a broker out of service.")
@click.argument("broker", type=click.IntRange(min=0), shell_complete=complete_brokers)
@click.option("--undo", is_flag=True, help="Let it serve again.")
@click.option(
    "--force",
    is_flag=True,
    help="Drain it although partitions would be left that nobody else may lead, or that could not be "
    "written.",
)
@click.pass_context
def drain(ctx: click.Context, broker: int, undo: bool, force: bool) -> None:
    r"""Take BROKER out of service: it hands on what it leads and leaves the replicas in sync.

    It waits until nothing depends on the broker, which can be stopped then, for --timeout or 5 minutes.
    Where that is too short the exit code is 7, and the broker goes on draining, as it does where this
    command is interrupted. It gets no new replicas meanwhile. It serves again with --undo, and whenever
    it is started anew. It is refused where partitions would have no leader once the broker ends, or too
    few replicas in sync to be written, unless --force is given; the last broker never drains.

    \b
    riverrun cluster drain 3
    riverrun cluster drain 3 --timeout 30s && systemctl restart riverrun
    riverrun cluster drain 3 --undo
    """
    if undo and force:
        raise click.UsageError("--undo needs no --force; give one of them", ctx)
    chosen = settings(ctx)

    async def work(client: Client) -> tuple[DrainResult, BrokerDescription]:
        from riverrun.cli.draining import wait_drained  # noqa: PLC0415 - imports asyncio

        admin = client.admin()
        result = await _asked(admin, broker, undo, force)
        if undo:
            return result, result.broker
        return result, await wait_drained(admin, result, chosen.timeout_s or TIMEOUT_S)

    result, now = run(ctx, work)
    if chosen.as_json:
        print_json(
            {
                **broker_fields(now),
                "changed": result.changed,
                "stranded_partitions": result.stranded_partitions,
                "short_partitions": result.short_partitions,
            }
        )
    elif undo:
        write_note(f"broker {broker} {'serves again' if result.changed else 'did not drain'}")
    else:
        write_note(_drained(now, result.short_partitions))


async def _asked(admin: Admin, broker: int, undo: bool, force: bool) -> DrainResult:
    """Ask for it; what the broker says of its fields is told in the words of the command line.

    Raises:
        RiverrunError: it is refused.
    """
    from riverrun.errors import RiverrunError  # noqa: PLC0415 - for the work only

    try:
        return await admin.drain_broker(broker, undo=undo, force=force)
    except RiverrunError as error:
        error.message = error.message.replace("with force", "with --force")
        raise


def _drained(broker: BrokerDescription, short: int) -> str:
    """Say how a drain has ended."""
    text = f"broker {broker.broker_id} "
    if broker.fenced:
        text += "has ended"
    elif broker.leaders:
        text += (
            f"is drained but for {counted(broker.leaders, 'partition')} that nobody else may lead, and "
            "that have no leader once it ends"
        )
    else:
        text += "is drained: it leads nothing, and can be stopped"
    if short:
        text += f"; {counted(short, 'partition')} cannot be written until more replicas are in sync"
    return text
