"""Taking a broker out of service and back: its registration says that it drains, the controller does the rest.

That belongs to the process: the next one of the same broker begins undrained.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from riverrun_server.core.cluster import keys, partition_changes
from riverrun_server.core.cluster.election import TopicPartition
from riverrun_server.core.cluster.image import ClusterImage, Versioned
from riverrun_server.core.cluster.standing import Leader, Standing, broker_epoch
from riverrun_server.core.cluster.steps import MAX_CHANGES, Step, Write
from riverrun_server.core.cluster.values import BrokerRegistration, PartitionValue
from riverrun_server.core.errors import Reason, Refusal

_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class Cost:
    """What the cluster lacks while a broker drains, and did not before.

    Attributes:
        stranded: partitions that nobody else may lead; those that the broker leads stay with it, and
            have no leader once it ends.
        short: partitions with fewer replicas in sync than they need; nothing can be written to them.
    """

    stranded: tuple[TopicPartition, ...] = ()
    short: tuple[TopicPartition, ...] = ()


@dataclass(frozen=True, slots=True)
class DrainPlan:
    """What makes a broker drain, or serve again.

    Attributes:
        process: the broker epoch that it is about.
        steps: none where it is so already.
        cost: of draining.
    """

    process: int
    steps: tuple[Step, ...]
    cost: Cost = Cost()


def drain(
    image: ClusterImage, broker: int, *, force: bool = False, process: int | None = None
) -> DrainPlan:
    """Plan that a broker hands on what it leads and leaves the ISRs.

    Args:
        image: the metadata.
        broker: its id.
        force: also where partitions would be stranded or short.
        process: the broker epoch that it has to be; None is any.

    Raises:
        Refusal: BROKER_NOT_FOUND, BROKER_FENCED, BROKER_NEEDED, CONFLICT.
    """
    found = _found(image, broker, process)
    if found.value.fenced:
        raise Refusal(
            Reason.BROKER_FENCED,
            f"broker {broker} is fenced, because it is not seen alive: it leads nothing, and can be "
            "stopped as it is",
        )
    cost = cost_of(image, broker)
    epoch = broker_epoch(found)
    if found.value.draining:
        return DrainPlan(epoch, (), cost)
    standing = Standing(image.brokers)
    if not any(standing.stays(each) for each in image.brokers if each != broker):
        raise Refusal(
            Reason.BROKER_NEEDED,
            f"broker {broker} is the last one that serves and does not drain; nobody could take over"
            + _named(" what it leads", cost.stranded)
            + "; start another, or let another serve again",
        )
    if (cost.stranded or cost.short) and not force:
        raise _too_dear(broker, cost)
    # Two that drain at the same time may cost what neither would alone. No cluster of more brokers than
    # a step takes is left without one by that.
    others = [each for each in sorted(image.brokers) if each != broker and standing.stays(each)]
    guards = map(standing.guard, others[: MAX_CHANGES - 1])
    return DrainPlan(epoch, (Step((*guards, _write(found, draining=True))),), cost)


def undrain(image: ClusterImage, broker: int, *, process: int | None = None) -> DrainPlan:
    """Plan that a broker serves again.

    Raises:
        Refusal: BROKER_NOT_FOUND, CONFLICT.
    """
    found = _found(image, broker, process)
    steps = (Step((_write(found, draining=False),)),) if found.value.draining else ()
    return DrainPlan(broker_epoch(found), steps)


def leaving(image: ClusterImage, process: Leader) -> tuple[Step, ...]:
    """Plan that a process says of itself that it is about to end; nothing where that is said, or of another."""
    found = image.brokers.get(process.broker_id)
    if found is None or broker_epoch(found) != process.broker_epoch or found.value.draining:
        return ()
    return (Step((_write(found, draining=True),)),)


def is_needed(image: ClusterImage, process: Leader) -> bool:
    """Return whether others could yet take over what a process leads, or do without it in sync."""
    standing = Standing(image.brokers)
    return any(
        partition_changes.successor(value, standing) is not None
        if _leads(value, process)
        else standing.leads(value) and any(each.broker == process.broker_id for each in value.isr)
        for _, value in _held(image, process.broker_id)
    )


def led_by(image: ClusterImage, process: Leader) -> int:
    """Return how many partitions a process leads."""
    return sum(_leads(value, process) for _, value in _held(image, process.broker_id))


def cost_of(image: ClusterImage, broker: int) -> Cost:
    """Return what the cluster lacks while a broker drains and would not lack otherwise."""
    registration = image.brokers[broker]

    def standing(*, draining: bool) -> Standing:
        value = dataclasses.replace(registration.value, draining=draining)
        return Standing({**image.brokers, broker: Versioned(value, registration.mod_revision)})

    before, after = standing(draining=False), standing(draining=True)
    stranded, short = [], []
    for here, value in _held(image, broker):
        if _is_stranded(value, before, after):
            stranded.append(here)
        elif _in_sync(value, after) < value.min_isr <= _in_sync(value, before):
            short.append(here)
    return Cost(tuple(stranded), tuple(short))


def _held(image: ClusterImage, broker: int) -> Iterator[tuple[TopicPartition, PartitionValue]]:
    """Yield the partitions for which a broker counts."""
    for name, topic in sorted(image.topics.items()):
        partitions = image.partitions.get(topic.value.topic_id, {})
        for number in range(topic.value.partitions):
            found = partitions.get(number)
            if found is None:
                continue
            value = found.value
            if any(each.broker == broker for each in (*value.isr, *value.elr)):
                yield (name, number), value


def _leads(value: PartitionValue, process: Leader) -> bool:
    return (value.leader, value.leader_broker_epoch) == (process.broker_id, process.broker_epoch)


def _is_stranded(value: PartitionValue, before: Standing, after: Standing) -> bool:
    return _may_be_led(value, before) and not _may_be_led(value, after)


def _may_be_led(value: PartitionValue, standing: Standing) -> bool:
    """Return whether there is a leader that is not about to end, or will be."""
    if not standing.leads(value):
        return partition_changes.candidate(value, standing) is not None
    return standing.stays(value.leader) or (
        partition_changes.successor(value, standing) is not None
    )


def _in_sync(value: PartitionValue, standing: Standing) -> int:
    """Count who is left in an ISR once the controller has come to rest."""
    return sum(standing.may_lead(each, value.durability) for each in value.isr)


def _found(image: ClusterImage, broker: int, process: int | None) -> Versioned[BrokerRegistration]:
    found = image.brokers.get(broker)
    if found is None:
        known = ", ".join(map(str, sorted(image.brokers)))
        raise Refusal(
            Reason.BROKER_NOT_FOUND, f"there is no broker {broker}; registered are {known}"
        )
    if process not in (None, broker_epoch(found)):
        raise Refusal(
            Reason.CONFLICT,
            f"broker {broker} was restarted meanwhile, and its new process does not drain; look at "
            "the cluster and decide again",
        )
    return found


def _write(found: Versioned[BrokerRegistration], *, draining: bool) -> Write:
    # The revision moves on with this write, and the process stays the same.
    value = dataclasses.replace(found.value, draining=draining, broker_epoch=broker_epoch(found))
    return Write(keys.broker(value.broker_id), value, found.mod_revision)


def _too_dear(broker: int, cost: Cost) -> Refusal:
    lacks = [
        _named(f"{len(cost.stranded)} without a leader once it ends", cost.stranded),
        _named(f"{len(cost.short)} with too few replicas in sync to be written", cost.short),
    ]
    return Refusal(
        Reason.BROKER_NEEDED,
        f"draining broker {broker} would leave partitions {' and '.join(filter(None, lacks))}; bring "
        "their other replicas back first, or have it with force",
    )


def _named(what: str, partitions: Sequence[TopicPartition]) -> str:
    """Say what is so of partitions, and name some; nothing where there are none."""
    if not partitions:
        return ""
    shown = ", ".join(f"{topic}[{number}]" for topic, number in partitions[:_NAMED])
    more = len(partitions) - _NAMED
    return f"{what} ({shown}{f' and {more} more' if more > 0 else ''})"
