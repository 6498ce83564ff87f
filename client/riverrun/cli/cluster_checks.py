"""What `doctor` thinks of the brokers of a cluster, and of partitions whose replicas are not in sync."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from riverrun import (
    Admin,
    BrokerDescription,
    ClusterDescription,
    LackingPartition,
    RiverrunError,
)
from riverrun.cli.counts import counted
from riverrun.cli.finding import Finding

NAMED = 5
"""So many partitions are named; `cluster describe` lists more."""


async def check_cluster(admin: Admin) -> list[Finding]:
    """Look at the brokers and at the replicas of partitions."""
    try:
        found = await admin.describe_cluster()
    except RiverrunError as error:
        advice = "see the broker's log, and run this again"
        return [Finding("brokers", "failed", error.message, advice)]
    return [*judge_brokers(found), *judge_replicas(found)]


def judge_brokers(found: ClusterDescription) -> list[Finding]:
    """Tell of each broker that does not serve, or that all do, and whether somebody controls."""
    findings = [each for broker in found.brokers if (each := _judge_broker(broker))]
    if found.controller < 0 and len(found.brokers) > 1:
        findings.append(
            Finding(
                "controller",
                "failed",
                "no broker controls the cluster: leaders that end are not replaced",
                "wait some seconds and run this again; if it stays so, see whether etcd answers",
            )
        )
    if findings:
        return findings
    role = f", broker {found.controller} controls" if found.controller >= 0 else ""
    return [Finding("brokers", "ok", f"{len(found.brokers)}, none fenced or draining{role}")]


def _judge_broker(broker: BrokerDescription) -> Finding | None:
    name = f"broker {broker.broker_id}"
    if broker.fenced:
        where = f" on {broker.host}" if broker.host else ""
        advice = f"start it{where}, or see its log: it cannot reach the metadata store"
        return Finding("broker", "failed", f"{name} is fenced: it is not seen alive", advice)
    if not broker.alive:
        advice = "it is fenced within seconds unless it comes back; run this again"
        return Finding("broker", "warning", f"{name} is not seen alive", advice)
    if not broker.draining:
        return None
    advice = f"or let it serve again: riverrun cluster drain {broker.broker_id} --undo"
    if broker.leaders:
        found = f"{name} drains, and leads {counted(broker.leaders, 'partition')}"
        return Finding("broker", "warning", found, f"wait until it leads nothing, {advice}")
    found = f"{name} drains, and leads nothing"
    return Finding("broker", "warning", found, f"stop or restart it, {advice}")


def judge_replicas(found: ClusterDescription) -> list[Finding]:
    """Tell which partitions have replicas that are not in sync, and which brokers hold those.

    Partitions that are offline are told of one by one elsewhere.
    """
    led = [each for each in found.lacking if not each.offline]
    short = [each for each in led if each.under_min_isr]
    behind = [each for each in led if not each.under_min_isr]
    findings = []
    if short:
        findings.append(
            Finding(
                "replicas",
                "failed",
                f"{_named(short)} cannot be written with acks=all: fewer replicas are in sync than "
                "min.insync.replicas",
                _bring_back(short),
            )
        )
    if behind:
        text = f"{_named(behind)} with replicas that are not in sync"
        findings.append(Finding("replicas", "warning", text, _bring_back(behind)))
    if not findings and found.partitions:
        findings.append(Finding("replicas", "ok", f"{found.partitions} partitions, all in sync"))
    return findings


def _bring_back(partitions: Sequence[LackingPartition]) -> str:
    """Say which brokers have to come back, the one that holds most first."""
    out = Counter(
        broker for each in partitions for broker in set(each.replicas) - set(each.in_sync_replicas)
    )
    names = ", ".join(str(broker) for broker, _ in out.most_common())
    if not names:
        return "lower min.insync.replicas: there are fewer replicas than that"
    plural = "s" if len(out) > 1 else ""
    return (
        f"start broker{plural} {names}, or wait until caught up; `riverrun cluster describe` lists the "
        "partitions"
    )


def _named(partitions: Sequence[LackingPartition]) -> str:
    shown = ", ".join(f"{each.topic}[{each.partition}]" for each in partitions[:NAMED])
    more = f" and {len(partitions) - NAMED:,} more" if len(partitions) > NAMED else ""
    return f"{counted(len(partitions), 'partition')} ({shown}{more})"
