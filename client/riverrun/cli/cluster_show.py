"""`riverrun cluster describe`: the brokers, and which partitions lack a leader or replicas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from riverrun.cli.places import format_time
from riverrun.cli.running import run
from riverrun.cli.settings import Command, settings
from riverrun.cli.tables import Cell, Table, joined, print_fields, print_json, print_table

if TYPE_CHECKING:
    from riverrun import (
        BrokerDescription,
        Client,
        ClusterDescription,
        LackingPartition,
        ServerInfo,
    )

SHOWN = 20
"""So many partitions that lack something are listed; programs are told of all that the broker tells."""


@click.command(cls=Command, short_help="Tell the brokers and how partitions are.")
@click.pass_context
def describe(ctx: click.Context) -> None:
    r"""Tell the cluster's brokers, what each leads and holds, and which partitions lack something.

    A partition is offline where nobody leads it, under min ISR where too few replicas are in sync
    for it to be written, and under-replicated where a replica is not in sync. ELR are replicas that
    are not in sync and may lead all the same. LAG is how many offsets the replica lacks that is
    furthest behind, where the leader knows. Topics of the brokers are counted, too.

    \b
    riverrun cluster describe
    riverrun cluster describe --output json | jq '.brokers[] | select(.state != "ok")'
    """

    async def work(client: Client) -> tuple[ClusterDescription, ServerInfo]:
        return await client.admin().describe_cluster(), await client.server_info()

    found, server = run(ctx, work)
    if settings(ctx).as_json:
        print_json(_fields(found, server))
        return
    _print_summary(found, server)
    click.echo()
    _print_brokers(found.brokers)
    if found.lacking:
        click.echo()
        _print_lacking(found)


def broker_state(broker: BrokerDescription) -> str:
    """Say how a broker is, in a word."""
    if broker.fenced:
        return "fenced"
    if not broker.alive:
        return "unseen"
    return "draining" if broker.draining else "ok"


def partition_state(partition: LackingPartition) -> str:
    """Say what a partition lacks most."""
    if partition.offline:
        return "offline"
    return "under min ISR" if partition.under_min_isr else "under-replicated"


def _print_summary(found: ClusterDescription, server: ServerInfo) -> None:
    print_fields(
        {
            "cluster": found.cluster_id,
            "version": server.version,
            "controller": f"broker {found.controller}" if found.controller >= 0 else "none",
            "metadata revision": found.revision,
            "topics": found.topics,
            "partitions": found.partitions,
            "offline": found.offline_partitions,
            "under min ISR": found.under_min_isr_partitions,
            "under-replicated": found.under_replicated_partitions,
            "answered by": f"broker {found.served_by}",
        }
    )


def _print_brokers(brokers: Sequence[BrokerDescription]) -> None:
    headings = ("BROKER", "STATE", "ROLE", "ENDPOINT", "RACK", "HOST")
    rows: list[list[Cell]] = [
        [
            broker.broker_id,
            broker_state(broker),
            "controller" if broker.controller else "-",
            broker.endpoint or "-",
            broker.rack or "-",
            broker.host or "-",
            broker.leaders,
            broker.replicas,
            broker.in_sync_replicas,
        ]
        for broker in brokers
    ]
    print_table(Table((*headings, "LEADS", "HOLDS", "IN-SYNC"), rows, states="STATE"))


def _print_lacking(found: ClusterDescription) -> None:
    headings = ("TOPIC", "PARTITION", "STATE", "LEADER", "REPLICAS", "IN-SYNC", "ELR", "MIN", "LAG")
    rows: list[list[Cell]] = [
        [
            partition.topic,
            partition.partition,
            partition_state(partition),
            "none" if partition.offline else partition.leader,
            joined(partition.replicas),
            joined(partition.in_sync_replicas),
            joined(partition.eligible_leader_replicas),
            partition.min_in_sync_replicas,
            _lag(partition),
        ]
        for partition in found.lacking[:SHOWN]
    ]
    print_table(Table(headings, rows, states="STATE"))
    if len(found.lacking) > SHOWN:
        click.echo(f"and {len(found.lacking) - SHOWN:,} more; --output json tells of them")


def _lag(partition: LackingPartition) -> Cell:
    """Tell how far the replica that is furthest behind is behind, where all are known."""
    behind = len(partition.replicas) - len(partition.in_sync_replicas)
    return max(partition.lags.values()) if behind and len(partition.lags) == behind else "-"


def _fields(found: ClusterDescription, server: ServerInfo) -> dict[str, object]:
    """Tell the cluster for programs."""
    return {
        "cluster_id": found.cluster_id,
        "version": server.version,
        "features": list(server.features),
        "revision": found.revision,
        "served_by": found.served_by,
        "controller": found.controller if found.controller >= 0 else None,
        "topics": found.topics,
        "partitions": found.partitions,
        "partitions_without_leader": found.offline_partitions,
        "partitions_under_min_isr": found.under_min_isr_partitions,
        "partitions_under_replicated": found.under_replicated_partitions,
        "brokers": [broker_fields(broker) for broker in found.brokers],
        "lacking": [_lacking_fields(partition) for partition in found.lacking],
    }


def broker_fields(broker: BrokerDescription) -> dict[str, object]:
    """Tell one broker for programs."""
    return {
        "broker_id": broker.broker_id,
        "state": broker_state(broker),
        "controller": broker.controller,
        "alive": broker.alive,
        "fenced": broker.fenced,
        "draining": broker.draining,
        "endpoint": broker.endpoint,
        "endpoints": dict(broker.endpoints),
        "peer_endpoint": broker.peer_endpoint,
        "rack": broker.rack,
        "host": broker.host,
        "broker_epoch": broker.broker_epoch,
        "start_time": format_time(broker.start_time_ms),
        "leads": broker.leaders,
        "preferred_leaders": broker.preferred_leaders,
        "replicas": broker.replicas,
        "in_sync_replicas": broker.in_sync_replicas,
    }


def _lacking_fields(partition: LackingPartition) -> dict[str, object]:
    return {
        "topic": partition.topic,
        "partition": partition.partition,
        "offline": partition.offline,
        "under_min_isr": partition.under_min_isr,
        "under_replicated": partition.under_replicated,
        "leader": partition.leader,
        "leader_epoch": partition.leader_epoch,
        "partition_epoch": partition.partition_epoch,
        "replicas": list(partition.replicas),
        "in_sync_replicas": list(partition.in_sync_replicas),
        "eligible_leader_replicas": list(partition.eligible_leader_replicas),
        "min_in_sync_replicas": partition.min_in_sync_replicas,
        "lags": {str(broker): lag for broker, lag in partition.lags.items()},
    }
