"""`riverrun cluster describe`: the brokers, and what they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from riverrun.cli.groups import Group, Late
from riverrun.cli.running import run
from riverrun.cli.settings import Command, settings
from riverrun.cli.tables import Cell, Table, print_fields, print_json, print_table

if TYPE_CHECKING:
    from riverrun import Client, ClusterInfo, ServerInfo

cluster = Group(
    name="cluster",
    short_help="Look at the brokers.",
    help="Look at the brokers.",
    late={
        "describe": Late("riverrun.cli.cluster:describe", "Tell the brokers and what they lead.")
    },
)


@click.command(cls=Command, short_help="Tell the brokers and what they lead.")
@click.pass_context
def describe(ctx: click.Context) -> None:
    r"""Tell the cluster's brokers, where clients reach them, and how much each leads.

    \b
    riverrun cluster describe
    riverrun cluster describe --output json | jq .brokers
    """

    async def work(client: Client) -> tuple[ClusterInfo, ServerInfo]:
        return await client.admin().cluster(), await client.server_info()

    info, server = run(ctx, work)
    leads: dict[int, int] = {broker.broker_id: 0 for broker in info.brokers}
    for topic in info.topics:
        for partition in topic.partitions:
            leads[partition.leader] = leads.get(partition.leader, 0) + 1
    if settings(ctx).as_json:
        print_json(_fields(info, server, leads))
        return
    print_fields(
        {
            "cluster": info.cluster_id,
            "version": server.version,
            "metadata revision": info.revision,
            "topics": len(info.topics),
            "partitions": sum(leads.values()),
            "without a leader": leads.get(-1, 0),
            "answered by": f"broker {info.served_by}",
        }
    )
    click.echo()
    rows: list[list[Cell]] = [
        [
            broker.broker_id,
            broker.endpoint,
            broker.rack or "-",
            broker.host or "-",
            leads[broker.broker_id],
        ]
        for broker in info.brokers
    ]
    print_table(Table(("BROKER", "ENDPOINT", "RACK", "HOST", "LEADS"), rows))


def _fields(info: ClusterInfo, server: ServerInfo, leads: dict[int, int]) -> dict[str, object]:
    """Tell the cluster for programs."""
    return {
        "cluster_id": info.cluster_id,
        "version": server.version,
        "features": list(server.features),
        "revision": info.revision,
        "served_by": info.served_by,
        "topics": len(info.topics),
        "partitions": sum(leads.values()),
        "partitions_without_leader": leads.get(-1, 0),
        "brokers": [
            {
                "broker_id": broker.broker_id,
                "endpoint": broker.endpoint,
                "rack": broker.rack,
                "host": broker.host,
                "leads": leads[broker.broker_id],
            }
            for broker in info.brokers
        ],
    }
