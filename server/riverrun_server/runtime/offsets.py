"""Committed offsets of all groups: which partition of the offsets topic keeps a group's, and who leads it.

The offsets topic is made when the first offset is committed. A group belongs to the partition that
the CRC-32 of its id names, and the leader of that partition is the group's coordinator: this broker,
or another one that is asked. Offsets are kept under the topic's id, so a topic made anew under the same
name starts without any.

A commit may be tried again while the coordinator moves, without doing harm: it says the same each
time, and nothing of the same group that this broker takes later gets in front of it (runtime/group_lane);
what an earlier try may have left in the log stands before whatever is written later (core/groups/search).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import (
    Callable,
    Collection,
    Coroutine,
    Hashable,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field
from typing import Any

from riverrun_server.core.errors import Refusal
from riverrun_server.core.groups.commits import (
    OffsetCommit,
    check_commit,
    check_group_id,
    check_within,
)
from riverrun_server.core.groups.offsets import CommittedOffset, OffsetRecord
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.reading.events import CommitOutcome
from riverrun_server.ports.clock import Dice
from riverrun_server.ports.coordination import OffsetRefusals
from riverrun_server.ports.membership import Committer
from riverrun_server.ports.partitions import Directory, PartitionAccess
from riverrun_server.ports.threads import Threads
from riverrun_server.runtime.coordination_peers import LedAlone, Peers
from riverrun_server.runtime.coordinator import Coordinator
from riverrun_server.runtime.coordinator_calls import CoordinatorCalls
from riverrun_server.runtime.coordinator_finder import CoordinatorFinder, not_serving, now
from riverrun_server.runtime.coordinator_services import AssignableTopics, CoordinatorServices
from riverrun_server.runtime.group_lane import GroupCommit, GroupLanes
from riverrun_server.runtime.offsets_log import OffsetsLogSettings
from riverrun_server.runtime.offsets_topic import (
    OFFSETS_TOPIC,
    OFFSETS_TOPIC_CONFIGS,
    InternalTopics,
    OffsetsTopic,
)
from riverrun_server.runtime.topic_patterns import compile_pattern

__all__ = ["OFFSETS_TOPIC", "OFFSETS_TOPIC_CONFIGS", "GroupOffsets", "GroupOffsetsSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupOffsetsSettings:
    """How committed offsets are kept.

    Attributes:
        partitions: of the offsets topic, when it is made; it keeps them for good.
        coordinator_wait_s: how long a call waits for its coordinator to be elected, to load and to
            answer; longer than a lease and an election take.
        log: how each partition is driven.
    """

    partitions: int = 16
    coordinator_wait_s: float = 10.0
    log: OffsetsLogSettings = field(default_factory=OffsetsLogSettings)


class GroupOffsets:
    """The committed offsets of all groups.

    Transitions: made -> joined (`join`, in a cluster) -> running (`run`) -> closed (run is cancelled).
    Before `run` and behind it, everything is refused with NOT_READY.

    Args:
        directory: finds partitions, those of the offsets topic too.
        topics: makes the offsets topic.
        assignable: the topics whose partitions members can be given.
        now_ms: the broker's clock.
        threads: where batches are taken apart.
        dice: spreads what is tried again.
        settings: how offsets are kept.
        peers: the other brokers.

    Attributes:
        coordinator: of the groups whose offsets are kept here; serves other brokers too.
    """

    def __init__(
        self,
        directory: Directory,
        topics: InternalTopics,
        assignable: AssignableTopics,
        now_ms: Callable[[], int],
        threads: Threads,
        dice: Dice,
        settings: GroupOffsetsSettings | None = None,
        peers: Peers | None = None,
    ) -> None:
        self._directory = directory
        self._topics = topics
        self._assignable = assignable
        self._now_ms = now_ms
        self._threads = threads
        self._dice = dice
        self._settings = settings or GroupOffsetsSettings()
        self._tasks: asyncio.TaskGroup | None = None
        self.join(peers or Peers())

    def join(self, peers: Peers) -> None:
        """Learn who the other brokers are, before `run`: a process knows them once it has registered."""
        assert self._tasks is None, "it runs already"
        settings = self._settings
        self._peers = peers
        self._leaderships = peers.leaderships or LedAlone(self._directory)
        self._topic = OffsetsTopic(
            self._directory,
            self._topics,
            settings.partitions,
            peers.caught_up,
            settings.coordinator_wait_s,
        )
        self.finder = CoordinatorFinder(self._topic, self._leaderships, settings.coordinator_wait_s)
        services = CoordinatorServices(
            broker_id=peers.broker_id,
            now_ms=self._now_ms,
            threads=self._threads,
            exists=self._topic.has,
            caught_up=peers.caught_up,
            topics=self._assignable,
            dice=self._dice,
            groups=settings.log.groups,
            compile_pattern=compile_pattern,
            changed=self.finder.changed,
        )
        self.coordinator = Coordinator(
            self._topic.partitions, self._leaderships, services, settings.log
        )
        self.calls = CoordinatorCalls(
            self.coordinator, peers.coordinators, peers.broker_id, settings.coordinator_wait_s
        )
        self._lanes = GroupLanes(self._try_commits, self.spawn, settings.log.waiting_max)

    async def run(self) -> None:
        """Load and serve until cancelled; the owner of every task that this starts."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                self.finder.open()
                tasks.create_task(self._assignable.run(), name="assignable topics")
                tasks.create_task(self.coordinator.run(), name="coordinator")
                # Whatever cannot be found yet is looked for again by the first call that needs it.
                with contextlib.suppress(Refusal):
                    self.coordinator.serve()
                await asyncio.Event().wait()
            finally:
                # At once: a group that is ending takes tasks only as long as it has some.
                self._tasks = None
                self.finder.close()

    async def commit(
        self,
        group_id: str,
        commits: Sequence[OffsetCommit],
        committer: Committer | None = None,
    ) -> list[CommitOutcome]:
        """Store how far a group has come; an outcome for each commit, in order.

        Those that are in order, and that the committer may commit, are stored together, or not at all.
        Returns when they are durable and every replica in sync has them. Commits of a group that this
        broker is given one after the other take effect in this order.

        Args:
            group_id: the group.
            commits: what to store.
            committer: the member that commits; None is nobody in particular.

        Raises:
            Refusal: INVALID_REQUEST for the group's id; else outcomes have the refusals.
        """
        check_group_id(group_id)
        outcomes: list[CommitOutcome] = []
        records: list[OffsetRecord] = []
        now_ms = self._now_ms()
        for commit in commits:
            try:
                access = await self._check(commit)
            except Refusal as refusal:
                outcomes.append(
                    CommitOutcome(commit.topic, commit.topic_id, commit.partition, refusal)
                )
                continue
            outcomes.append(CommitOutcome(access.topic, *access.id))
            value = CommittedOffset(commit.offset, commit.leader_epoch, commit.metadata, now_ms)
            records.append(OffsetRecord(group_id, access.id, value))
        if not records:
            return outcomes
        search = self.finder.search(group_id, changes=True)
        waiting = GroupCommit(records, self._peers.origin(), search, committer)
        try:
            self._lanes.put(group_id, waiting)
            refused = await waiting.done
        except Refusal as refusal:
            return [_unless_refused(each, refusal) for each in outcomes]
        return [
            _unless_refused(each, refused.get(PartitionId(each.topic_id, each.partition)))
            for each in outcomes
        ]

    async def committed(
        self, group_id: str, partitions: Collection[PartitionId] | None = None
    ) -> Mapping[PartitionId, CommittedOffset]:
        """Return what a group has committed; what is not in the map it has not.

        Args:
            group_id: the group.
            partitions: only these; None is all.

        Raises:
            Refusal: INVALID_REQUEST for the group's id, COORDINATOR_LOADING.
        """
        check_group_id(group_id)
        finder, origin = self.finder, self._peers.origin()
        search, stir = finder.search(group_id, changes=False), asyncio.Event()
        while True:
            home = await finder.known_home(group_id)
            if home is None:
                return {}
            found, stand = finder.stand(home)
            stir.clear()
            pause_s = search.pause_s(stand, now())
            if pause_s > 0:
                await finder.news(home, [search], stir, pause_s)
                continue
            search.asked(stand)
            try:
                return await self.calls.committed(
                    found, group_id, origin, search.deadline, partitions
                )
            except Refusal as refusal:
                search.refused(refusal, now(), alone=found.leadership.leader is None)

    # Commits.

    async def _check(self, commit: OffsetCommit) -> PartitionAccess:
        check_commit(commit)
        access = self._directory.partition(commit.topic, commit.topic_id, commit.partition)
        # Asking other brokers would cost each commit a call for each of its partitions.
        here = self._leaderships.of(access.id).here
        if here is None:
            return access
        try:
            marks = await here.watermarks()
        except Refusal:
            # A partition that cannot answer just now must not keep a group from its offsets.
            return access
        check_within(commit, marks.log_start_offset, marks.log_end_offset)
        return access

    async def _try_commits(
        self, group_id: str, commits: Sequence[GroupCommit], stir: asyncio.Event
    ) -> None:
        """Try commits of a group once, in order, or wait where none is due."""
        try:
            home = await self.finder.made_home(group_id)
        except Refusal as none:
            for commit in commits:
                commit.failed(commit.search.doubt or Refusal(none.reason, none.message))
            return
        found, stand = self.finder.stand(home)
        pause_s = _pause_s(commits, stand)
        if pause_s is not None and pause_s > 0:
            await self.finder.news(home, [each.search for each in commits], stir, pause_s)
            return
        # Who pauses goes along: what is older is never sent behind what is newer.
        due = [
            each for each in commits if not each.done.done() and not each.search.needs_other(stand)
        ]
        for commit in due:
            commit.search.asked(stand)
        met = await self.calls.commit(found, group_id, due)
        for commit, outcome in zip(due, met, strict=True):
            _settle(commit, outcome, alone=found.leadership.leader is None)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run a task for as long as this runs.

        Raises:
            Refusal: NOT_READY.
        """
        if self._tasks is None:
            work.close()
            raise not_serving()
        self._tasks.create_task(work, name=name)


def _pause_s(commits: Sequence[GroupCommit], stand: Hashable) -> float | None:
    """Return how long until one of some commits is due; None where none is left to be tried."""
    pauses = []
    for commit in commits:
        try:
            if not commit.done.done():
                pauses.append(commit.search.pause_s(stand, now()))
        except Refusal as given_up:
            commit.failed(given_up)
    return min(pauses, default=None)


def _settle(commit: GroupCommit, met: OffsetRefusals | Refusal, *, alone: bool) -> None:
    """Answer a commit that was tried, unless it is to be tried again."""
    if not isinstance(met, Refusal):
        commit.stored(met)
        return
    try:
        commit.search.refused(met, now(), alone=alone)
    except Refusal as final:
        commit.failed(final)


def _unless_refused(outcome: CommitOutcome, refusal: Refusal | None) -> CommitOutcome:
    """Return what became of an offset that was refused already, or meets this."""
    if outcome.refusal is not None or refusal is None:
        return outcome
    return CommitOutcome(outcome.topic, outcome.topic_id, outcome.partition, refusal)
