"""The controller: fences brokers, then gives every partition the leader and the ISR that it should have.

It acts through the metadata store alone. Every step insists on the controller's term, on the
registrations that it was planned on and on the partition as it was, so what is planned on an old
image does nothing. What a controller leaves undone, the next one finds in the metadata.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from riverrun_server.core.cluster import placement
from riverrun_server.core.cluster.changes import NewTopic, TopicPolicy
from riverrun_server.core.cluster.controller_election import term
from riverrun_server.core.cluster.duties import Due, Duty, due_with_loss, next_due
from riverrun_server.core.cluster.election import TopicPartition
from riverrun_server.core.cluster.fencing import Fencing, fencing_steps
from riverrun_server.core.cluster.guarded_partitions import guarded_partition
from riverrun_server.core.cluster.image import ClusterImage, Versioned
from riverrun_server.core.cluster.partition_changes import is_lost
from riverrun_server.core.cluster.standing import Standing
from riverrun_server.core.cluster.steps import Piece, Step, packed
from riverrun_server.core.cluster.topic_config import TopicConfig, UncleanRecovery
from riverrun_server.core.cluster.values import Id, PartitionValue, TopicValue

# A step that does not apply holds up all partitions in it, and is planned again with them.
_PARTITIONS_IN_STEP: Final = 32
# A round is short, so that news of the brokers soon counts.
_PARTITIONS_IN_ROUND: Final = 512
# Leaders go back to where they are preferred in small parts: each move interrupts its producers.
_PREFERRED_IN_ROUND: Final = 16
_PREFERRED_EVERY_S: Final = 1.0
# For so long a partition waits for a replica that had all data, where its topic accepts a loss: a
# broker that is merely away comes back with everything (KIP-966).
_UNCLEAN_WAIT_S: Final = 30.0

_PartitionId = tuple[Id, int]


@dataclass(slots=True)
class Plan:
    """What the controller does next, and what it can do nothing about.

    Attributes:
        steps: to be carried out in order; none where nothing is to be done now.
        fenced: brokers that are fenced by it.
        let_back: brokers that are fenced no longer.
        elected: partitions that get a leader.
        unclean: those of them that lost data, as their topics accept.
        offline: partitions that have no leader and nobody who may be one; their values stay.
        missing: topics of the brokers that are not there and could be made now.
        again_at: when to plan again though nothing changes; None is never.
    """

    steps: list[Step] = field(default_factory=list)
    fenced: list[int] = field(default_factory=list)
    let_back: list[int] = field(default_factory=list)
    elected: list[TopicPartition] = field(default_factory=list)
    unclean: list[TopicPartition] = field(default_factory=list)
    offline: list[TopicPartition] = field(default_factory=list)
    missing: list[NewTopic] = field(default_factory=list)
    again_at: float | None = None

    def look_again(self, at: float | None) -> None:
        """Take note of one more reason to plan again at a time."""
        if at is not None:
            self.again_at = at if self.again_at is None else min(self.again_at, at)


@dataclass(frozen=True, slots=True)
class _Change:
    """One partition that is to change."""

    here: TopicPartition
    due: Due
    piece: Piece


class _Round:
    """One look at all partitions."""

    def __init__(
        self, standing: Standing, now: float, plan: Plan, leaderless: dict[_PartitionId, float]
    ) -> None:
        self.standing = standing
        self._now = now
        self._plan = plan
        self._before = leaderless
        # Since when those have had nobody who may lead that still have nobody.
        self.leaderless: dict[_PartitionId, float] = {}

    def due(
        self,
        topic: TopicValue,
        number: int,
        found: Versioned[PartitionValue],
        config: TopicConfig,
    ) -> Due | None:
        partition = found.value
        min_isr = config.effective_min_isr(topic.replication_factor)
        due = next_due(partition, self.standing, min_isr, fsync=config.fsync)
        if due is not None or self.standing.leads(partition):
            return due
        at = (topic.topic_id, number)
        since = self.leaderless[at] = self._before.get(at, self._now)
        if config.unclean_recovery is not UncleanRecovery.ACCEPT:
            return None
        if self._now < since + _UNCLEAN_WAIT_S and not is_lost(partition, self.standing):
            self._plan.look_again(since + _UNCLEAN_WAIT_S)
            return None
        return due_with_loss(partition, self.standing)


class Controller:
    """The duties of the controller, for the life of one process.

    It is told of nothing: each plan compares what the image shows with what should be. Planned on its
    own result it plans nothing. A driver plans whenever the image has changed, also outside of a term, for
    what is seen then tells whether liveness keys are to be believed. It carries out `steps`, waits until
    the image shows them, or shows what came between, and plans again.

    Args:
        broker_id: of this broker.
        broker_epoch: of this process; it plans only in its own term.
        policy: what holds for topics.
        fencing: judges who is alive; it outlives terms, as what it knows does.
        internal: the topics that the brokers need.
    """

    def __init__(
        self,
        broker_id: int,
        broker_epoch: int,
        policy: TopicPolicy,
        fencing: Fencing,
        internal: Sequence[NewTopic] = (),
    ) -> None:
        self._broker_id = broker_id
        self._broker_epoch = broker_epoch
        self._policy = policy
        self._fencing = fencing
        self._internal = internal
        self._leaderless_since: dict[_PartitionId, float] = {}
        self._prefer_at = float("-inf")

    def plan(self, image: ClusterImage, now: float, *, alone: bool = False) -> Plan:
        """Plan one round.

        Who is fenced or let back comes alone: elections are planned once the image shows it.

        Args:
            image: the metadata.
            now: the monotonic clock.
            alone: give each partition a step of its own, after a step did not apply: others that
                write to one partition then hold up no other.
        """
        self._fencing.look(image, now)
        in_term = term(image, self._broker_id, self._broker_epoch)
        if in_term is None:
            self._leaderless_since.clear()
            return Plan()
        plan = Plan()
        verdict = self._fencing.judge(image, now)
        plan.look_again(verdict.again_at)
        plan.steps.extend(fencing_steps(image, verdict, in_term))
        if plan.steps:
            plan.fenced += (*verdict.fence, *verdict.fence_early)
            plan.let_back += verdict.let_back
            return plan
        changes = sorted(self._changes(image, now, plan), key=lambda each: each.due.duty)
        chosen = self._chosen(changes, now, plan)
        plan.elected += (each.here for each in chosen if each.due.duty.elects)
        plan.unclean += (each.here for each in chosen if each.due.duty is Duty.ACCEPT_LOSS)
        in_step = 1 if alone else _PARTITIONS_IN_STEP
        plan.steps += packed((each.piece for each in chosen), (in_term,), in_step)
        plan.missing += self._missing(image)
        return plan

    def _chosen(self, changes: list[_Change], now: float, plan: Plan) -> list[_Change]:
        """Return what fits into a round; preferred leaders only where nothing else is due."""
        urgent = [each for each in changes if each.due.duty is not Duty.PREFER]
        if urgent or not changes:
            return urgent[:_PARTITIONS_IN_ROUND]
        if now < self._prefer_at:
            plan.look_again(self._prefer_at)
            return []
        self._prefer_at = now + _PREFERRED_EVERY_S
        if len(changes) > _PREFERRED_IN_ROUND:
            plan.look_again(self._prefer_at)
        return changes[:_PREFERRED_IN_ROUND]

    def _changes(self, image: ClusterImage, now: float, plan: Plan) -> Iterator[_Change]:
        a_round = _Round(Standing(image.brokers), now, plan, self._leaderless_since)
        for name, topic in sorted(image.topics.items()):
            config = self._policy.config_of(topic.value)
            partitions = image.partitions.get(topic.value.topic_id, {})
            for number in range(topic.value.partitions):
                found = partitions.get(number)
                due = None if found is None else a_round.due(topic.value, number, found, config)
                if found is not None and due is not None:
                    piece = guarded_partition(
                        topic,
                        number,
                        found,
                        due.value,
                        a_round.standing,
                        by_topic=due.duty in (Duty.ACCEPT_LOSS, Duty.MIN_ISR, Duty.CLASS),
                    )
                    yield _Change((name, number), due, piece)
                elif found is None or not a_round.standing.leads(found.value):
                    plan.offline.append((name, number))
        self._leaderless_since = a_round.leaderless

    def _missing(self, image: ClusterImage) -> Iterator[NewTopic]:
        usable = len(placement.sites(image.brokers))
        for each in self._internal:
            replicas = each.replication_factor or self._policy.default_replication_factor
            if each.topic not in image.topics and replicas <= usable:
                yield each
