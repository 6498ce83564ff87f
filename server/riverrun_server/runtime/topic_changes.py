"""Makes and changes topics, one change after the other, and waits until each has taken effect.

What a crash leaves half done is finished or taken back by the next start.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from riverrun_server.core.cluster import changes, deletions, topic_rules
from riverrun_server.core.cluster.changes import NewTopic, TopicPlan, TopicPolicy
from riverrun_server.core.cluster.image import ClusterImage
from riverrun_server.core.cluster.naming import quoted
from riverrun_server.core.cluster.standing import Leader
from riverrun_server.core.cluster.values import Id, TopicValue
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.ports.clock import Clock, Dice
from riverrun_server.runtime.metadata_changes import ATTEMPTS, MetadataChanges
from riverrun_server.runtime.metadata_feed import Applied
from riverrun_server.runtime.metadata_writer import MetadataWriter, PlanOutdated
from riverrun_server.runtime.topic_deletions import TopicDeletions

T = TypeVar("T")

_LOOK_AT: Final = "the topic"


@dataclass(frozen=True, slots=True)
class Created:
    """A topic as it is, and whether this request made it."""

    topic: TopicValue
    created: bool


class TopicChanges:
    """The one writer of topics in this process.

    Attributes:
        metadata: where changes of other things wait for their turn, too.
        leader: this process, from when it is registered; no topic changes before.

    Args:
        image: the metadata as applied.
        applied: moves on once what the image shows has taken effect.
        writer: of metadata.
        policy: defaults and limits.
        clock: stamps what is made.
        dice: makes topic ids.
        deletions: leaves alone what is being made, and deletes what was given up.
    """

    def __init__(
        self,
        image: ClusterImage,
        applied: Applied,
        writer: MetadataWriter,
        policy: TopicPolicy,
        clock: Clock,
        dice: Dice,
        deletions: TopicDeletions,
    ) -> None:
        self.metadata = MetadataChanges(image, applied, writer, policy.limits)
        self._image = image
        self._policy = policy
        self._clock = clock
        self._dice = dice
        self._deletions = deletions
        self.leader: Leader | None = None

    # --- what is asked for -----------------------------------------------------------------------

    async def create(
        self, new: NewTopic, *, validate_only: bool = False, if_not_exists: bool = False
    ) -> Created:
        """Make a topic for a client; return once it can be used.

        Raises:
            Refusal: as core.cluster.changes.create; TOPIC_RESERVED, OVERLOADED, CONFLICT,
                NOT_READY, SHUTTING_DOWN, REQUEST_TIMED_OUT; storage reasons.
        """
        topic_rules.check_name(new.topic)
        self._admit(new.topic)
        if validate_only:
            return self._existing(new, if_not_exists) or Created(
                self._plan_creation(new, self._new_id()).topic, created=False
            )
        return await self._in_turn(
            f"creating topic {quoted(new.topic)}", lambda: self._create(new, if_not_exists)
        )

    async def ensure_internal(self, new: NewTopic) -> None:
        """Make a topic of the brokers where there is none; return once it can be used.

        Raises:
            Refusal: as `create`.
        """
        assert topic_rules.is_internal(new.topic), new
        self._leader()
        await self._in_turn(f"creating topic {new.topic}", lambda: self._create(new, True))

    async def alter(
        self,
        name: str,
        to_set: Mapping[str, str],
        to_unset: Sequence[str],
        *,
        validate_only: bool = False,
    ) -> TopicValue:
        """Change a topic's configuration; return once every partition that is led follows it.

        A partition may go on for a while as if it were to be durable after it is not to be any more.

        Raises:
            Refusal: as core.cluster.changes.alter, and as `create`.
        """
        self._admit(name)

        def plan() -> TopicPlan:
            return changes.alter(self._image, name, to_set, to_unset, self._policy)

        if validate_only:
            return plan().topic

        async def run() -> TopicValue:
            topic = await self._carry_out(plan)
            await self._follow(name)
            return topic

        what = f"altering topic {quoted(name)}"
        altered = await self._in_turn(what, run)
        # The controller does this part; it does not hold up the changes of other topics.
        await self.metadata.limited(what, self._counted(what, name), _LOOK_AT)
        return altered

    async def add_partitions(
        self, name: str, partitions: int, *, validate_only: bool = False
    ) -> TopicValue:
        """Give a topic more partitions; return once they can be used.

        Raises:
            Refusal: as core.cluster.changes.add_partitions, and as `create`.
        """
        self._admit(name)

        def plan() -> TopicPlan:
            return changes.add_partitions(
                self._image, name, partitions, self._policy, self._leader()
            )

        if validate_only:
            return plan().topic
        return await self._in_turn(
            f"adding partitions to topic {quoted(name)}", lambda: self._carry_out(plan)
        )

    async def delete(self, name: str, topic_id: bytes = b"") -> None:
        """Delete a topic; return once no broker that is there stores anything of it any more.

        One that is away deletes its replicas when it is back.

        Raises:
            Refusal: as core.cluster.deletions.delete, and as `create`.
        """
        self._admit(name)
        what = f"deleting topic {quoted(name)}"
        deleted = await self._in_turn(
            what, lambda: self._carry_out(lambda: deletions.delete(self._image, name, topic_id))
        )
        # The deletion of its data does not hold up the changes of other topics.
        await self.metadata.limited(what, self._gone(what, deleted.topic_id), _LOOK_AT)

    # --- how it is done --------------------------------------------------------------------------

    async def run(self) -> None:
        """Carry out changes until cancelled."""
        await self.metadata.run()

    def stop(self) -> None:
        """Refuse what waits and what comes."""
        self.metadata.stop()

    async def _in_turn(self, what: str, run: Callable[[], Awaitable[T]]) -> T:
        return await self.metadata.in_turn(what, run, _LOOK_AT)

    async def _create(self, new: NewTopic, if_not_exists: bool) -> Created:
        for _ in range(ATTEMPTS):
            if existing := self._existing(new, if_not_exists):
                await self.metadata.wait_for(self._image.revision)
                return existing
            plan = self._plan_creation(new, self._new_id())
            # What a failure leaves of it stands under this id and nothing else ever will.
            with self._deletions.holding(plan.topic.topic_id):
                try:
                    await self.metadata.wait_for(await self.metadata.commit(plan.steps))
                except PlanOutdated as outdated:
                    await self.metadata.wait_for(outdated.revision)
                else:
                    return Created(plan.topic, created=True)
        raise PlanOutdated(self._image.revision)

    def _existing(self, new: NewTopic, if_not_exists: bool) -> Created | None:
        found = self._image.topics.get(new.topic)
        return Created(found.value, created=False) if found and if_not_exists else None

    def _plan_creation(self, new: NewTopic, topic_id: Id) -> TopicPlan:
        now_ms = self._clock.wall_ms()
        return changes.create(self._image, new, self._policy, self._leader(), topic_id, now_ms)

    async def _carry_out(self, plan: Callable[[], TopicPlan]) -> TopicValue:
        return (await self.metadata.carry_out(plan)).topic

    async def _follow(self, name: str) -> None:
        """Have a topic's partitions follow its configuration, which has taken effect already.

        In this order a partition that becomes durable syncs before its state says so.
        """
        for _ in range(ATTEMPTS):
            steps = changes.follow_config(self._image, name, self._policy)
            if not steps:
                return
            try:
                await self.metadata.wait_for(await self.metadata.commit(steps))
            except PlanOutdated as outdated:
                await self.metadata.wait_for(outdated.revision)
        raise PlanOutdated(self._image.revision)

    async def _counted(self, what: str, name: str) -> None:
        while not changes.counts_as_configured(self._image, name, self._policy):
            await self.metadata.moved(what)

    async def _gone(self, what: str, topic_id: Id) -> None:
        while deletions.is_being_deleted(self._image, topic_id):
            await self.metadata.moved(what)

    def _admit(self, name: str) -> None:
        topic_rules.check_not_reserved(name)
        self._leader()

    def _leader(self) -> Leader:
        if self.leader is None:
            raise Refusal(
                Reason.NOT_READY, "the broker is starting and changes no topics yet; ask again"
            )
        return self.leader

    def _new_id(self) -> Id:
        return Id(self._dice.token(Id.SIZE))
