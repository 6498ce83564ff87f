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
import zlib
from collections.abc import (
    Callable,
    Coroutine,
    Hashable,
    Iterable,
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
from riverrun_server.core.groups.search import CoordinatorSearch
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.reading.events import CommitOutcome
from riverrun_server.ports.clock import Dice
from riverrun_server.ports.leadership import Leadership
from riverrun_server.ports.partitions import Directory, PartitionAccess
from riverrun_server.ports.threads import Threads
from riverrun_server.runtime.coordination_peers import LedAlone, Peers
from riverrun_server.runtime.coordinator import Coordinator, not_serving
from riverrun_server.runtime.coordinator_calls import CoordinatorCalls, now
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
        self._searching: dict[PartitionId, dict[CoordinatorSearch, asyncio.Event]] = {}

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
            changed=self._changed,
        )
        self.coordinator = Coordinator(
            self._topic.partitions, self._leaderships, services, settings.log
        )
        self._calls = CoordinatorCalls(
            self.coordinator, peers.coordinators, settings.coordinator_wait_s
        )
        self._lanes = GroupLanes(self._try_commits, self._spawn, settings.log.waiting_max)

    async def run(self) -> None:
        """Load and serve until cancelled; the owner of every task that this starts."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                self._tasks.create_task(self._assignable.run(), name="assignable topics")
                self._tasks.create_task(self.coordinator.run(), name="coordinator")
                # Whatever cannot be found yet is looked for again by the first call that needs it.
                with contextlib.suppress(Refusal):
                    self.coordinator.serve()
                await asyncio.Event().wait()
        finally:
            self._tasks = None

    async def commit(self, group_id: str, commits: Sequence[OffsetCommit]) -> list[CommitOutcome]:
        """Store how far a group has come; an outcome for each commit, in order.

        Those that are in order are stored together, or not at all. Returns when they are durable
        and every replica in sync has them. Commits of a group that this broker is given one after the
        other take effect in this order.

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
        search = self._search(group_id, changes=True)
        waiting = GroupCommit(records, self._peers.origin(), search)
        try:
            self._lanes.put(group_id, waiting)
            await waiting.done
        except Refusal as refusal:
            return [
                CommitOutcome(each.topic, each.topic_id, each.partition, each.refusal or refusal)
                for each in outcomes
            ]
        return outcomes

    async def committed(self, group_id: str) -> Mapping[PartitionId, CommittedOffset]:
        """Return everything that a group has committed; what is not in the map it has not.

        Raises:
            Refusal: INVALID_REQUEST for the group's id, COORDINATOR_LOADING.
        """
        check_group_id(group_id)
        origin, search, stir = self._peers.origin(), self._search(group_id), asyncio.Event()
        while True:
            home = await self._known_home(group_id)
            if home is None:
                return {}
            leadership, stand = self._stand(home)
            stir.clear()
            pause_s = search.pause_s(stand, now())
            if pause_s > 0:
                await self._news(home, [search], stir, pause_s)
                continue
            search.asked(stand)
            try:
                return await self._calls.committed(
                    home, leadership, group_id, origin, search.deadline
                )
            except Refusal as refusal:
                search.refused(refusal, now(), alone=leadership.leader is None)

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
            home = await self._made_home(group_id)
        except Refusal as none:
            for commit in commits:
                commit.failed(commit.search.doubt or Refusal(none.reason, none.message))
            return
        leadership, stand = self._stand(home)
        pause_s = _pause_s(commits, stand)
        if pause_s is not None and pause_s > 0:
            await self._news(home, [each.search for each in commits], stir, pause_s)
            return
        # Who pauses goes along: what is older is never sent behind what is newer.
        due = [
            each for each in commits if not each.done.done() and not each.search.needs_other(stand)
        ]
        for commit in due:
            commit.search.asked(stand)
        met = await self._calls.commit(home, leadership, group_id, due)
        for commit, refusal in zip(due, met, strict=True):
            _settle(commit, refusal, alone=leadership.leader is None)

    # Where a group's offsets are kept, and who leads that.

    def _home(self, group_id: str) -> PartitionId | None:
        """Return the partition of a group, or None where no offsets topic is known."""
        if self._tasks is None:
            raise not_serving()
        homes = self._topic.partitions()
        return homes[zlib.crc32(group_id.encode()) % len(homes)] if homes else None

    async def _known_home(self, group_id: str) -> PartitionId | None:
        """Return the partition of a group, or None where there is no offsets topic, for certain."""
        home = self._home(group_id)
        if home is None:
            await self._topic.caught_up()
            home = self._home(group_id)
        return home

    async def _made_home(self, group_id: str) -> PartitionId:
        """Return the partition of a group; the first one who needs it makes the offsets topic."""
        home = self._home(group_id)
        if home is None:
            await self._topic.make()
            home = self._home(group_id)
            assert home is not None, "the offsets topic was made"
        return home

    def _stand(self, home: PartitionId) -> tuple[Leadership, Hashable]:
        """Return who leads a partition, and what tells one leadership from another; None is nobody."""
        leadership = self._leaderships.of(home)
        is_here = leadership.here is not None
        if not is_here and leadership.leader is None:
            return leadership, None
        return leadership, (leadership.leader, leadership.leader_epoch, is_here)

    def _search(self, group_id: str, *, changes: bool = False) -> CoordinatorSearch:
        deadline = now() + self._settings.coordinator_wait_s
        return CoordinatorSearch(group_id, deadline, changes=changes)

    async def _news(
        self,
        home: PartitionId,
        searches: Iterable[CoordinatorSearch],
        stir: asyncio.Event,
        timeout_s: float,
    ) -> None:
        """Wait until something has changed for a partition, `stir` is set, or time has passed."""
        searching = self._searching.setdefault(home, {})
        searching.update(dict.fromkeys(searches, stir))
        try:
            async with asyncio.timeout(timeout_s):
                await stir.wait()
        except TimeoutError:
            pass
        finally:
            for search in searches:
                searching.pop(search, None)

    def _changed(self, home: PartitionId) -> None:
        for search, stir in self._searching.get(home, {}).items():
            search.hurry()
            stir.set()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
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


def _settle(commit: GroupCommit, refusal: Refusal | None, *, alone: bool) -> None:
    """Answer a commit that was tried, unless it is to be tried again."""
    if refusal is None:
        commit.stored()
        return
    try:
        commit.search.refused(refusal, now(), alone=alone)
    except Refusal as final:
        commit.failed(final)
