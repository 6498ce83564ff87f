"""One consumer's commits: one after the other, those that it is told to make and those of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

from riverrun._core.argument_checks import check_seconds
from riverrun._core.committing import Ledger, Positions
from riverrun._core.episodes import Episodes
from riverrun._core.records import CommitMode, TopicPartition
from riverrun._net.channel import Connections
from riverrun._net.offsets import TopicIds, try_group_offsets
from riverrun.errors import Reason, RiverrunError, UsageError

_log = logging.getLogger("riverrun")

# A partition that the member has lost meanwhile is nothing that its own commits are to fail for.
_NOT_ITS_OWN = frozenset(
    {Reason.PARTITION_NOT_ASSIGNED, Reason.FENCED_MEMBER_EPOCH, Reason.UNKNOWN_MEMBER}
)


@dataclass(frozen=True, slots=True)
class CommitSettings:
    """Who commits for a group, and how often it is done in the background.

    Raises:
        UsageError: there is no such mode, it needs a group, or the interval is none.
    """

    mode: CommitMode = "manual"
    interval_s: float = 5.0
    group: str = ""

    def __post_init__(self) -> None:
        """Check."""
        if self.mode not in get_args(CommitMode):
            wrong = f'commit is {self.mode!r}; use "manual", "auto" or "at_most_once"'
        elif self.mode != "manual" and not self.group:
            wrong = f'commit "{self.mode}" needs a group: client.consumer(topic, group=...)'
        else:
            check_seconds("commit_interval_s", self.interval_s, above=True)
            return
        raise UsageError(wrong, reason=Reason.INVALID_REQUEST)


class GroupCommits:
    """Commits for one group. Transitions: idle -> periodic (`start`) -> ended (`finish`).

    Owns the commits under way and the task that makes them in the background; `finish` ends both.

    Args:
        connections: finds brokers.
        group: whose commits.
        topic_ids: tells the ids of the topics that are being read.

    Attributes:
        count: how many commits were stored.
        committer: tells the member that commits, and the newest epoch that it was told; None is nobody.
    """

    def __init__(
        self,
        connections: Connections,
        group: str,
        topic_ids: Callable[[], TopicIds],
    ) -> None:
        self._connections = connections
        self.committer: Callable[[], tuple[str, int] | None] = _nobody
        self._group = group
        self._topic_ids = topic_ids
        self._ledger = Ledger()
        self._one_at_a_time = asyncio.Lock()
        self._episodes: Episodes[str] = Episodes()
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._under_way: set[asyncio.Task[None]] = set()
        self.count = 0

    async def commit(
        self,
        positions: Callable[[], Positions],
        stored: Callable[[Positions], None] = lambda _: None,
        *,
        own: bool = False,
    ) -> None:
        """Store positions, as they are when it is this commit's turn.

        Args:
            positions: what to store.
            stored: called with what is stored of that, before the next commit's turn.
            own: they are whatever the consumer has come to: what it has lost meanwhile is left out.

        Raises:
            RiverrunError: of the first partition that refused; the others have been stored. Or of the
                call, and nobody may know.
        """
        await self._in_turn(positions, stored, own=own)

    async def settled(self) -> None:
        """Wait until the commits that have been begun are over."""
        if self._under_way:
            await asyncio.wait([*self._under_way])

    async def commit_due(self, positions: Callable[[], Positions]) -> None:
        """Store those positions that are not stored yet, as they are when it is this commit's turn.

        Raises:
            RiverrunError: as `commit` does.
        """
        await self._in_turn(lambda: self._ledger.due(positions()), own=True)

    def forget(self, partition: TopicPartition) -> None:
        """Reckon no more with what was stored for a partition: others may commit for it."""
        self._ledger.sending((partition,))

    def start(self, interval_s: float, positions: Callable[[], Positions]) -> None:
        """Begin to commit in the background, if that has not begun."""
        if self._task is None and not self._stop.is_set():
            self._task = asyncio.create_task(
                self._run(interval_s, positions), name="riverrun consumer: commits"
            )

    async def finish(self) -> None:
        """End the commits in the background; what is under way comes to its end first."""
        self._stop.set()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        if self._task is not None:
            try:
                await asyncio.shield(self._task)
            except asyncio.CancelledError:
                self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)
                raise

    async def give_up(self) -> None:
        """Cancel what is still under way, and what goes on in the background."""
        left = [*self._under_way, *([] if self._task is None else [self._task])]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _run(self, interval_s: float, positions: Callable[[], Positions]) -> None:
        while not await self._stopped_within(interval_s):
            try:
                await self.commit_due(positions)
            except RiverrunError as error:
                now_s = asyncio.get_running_loop().time()
                if self._episodes.failed(self._group, error, now_s, at_once=True):
                    _log.warning(
                        "group %s: committing failed and is tried again: %s", self._group, error
                    )
            else:
                if self._episodes.worked(self._group):
                    _log.info("group %s: committing works again", self._group)

    async def _stopped_within(self, interval_s: float) -> bool:
        try:
            async with asyncio.timeout(interval_s):
                return await self._stop.wait()
        except TimeoutError:
            return False

    async def _in_turn(
        self,
        positions: Callable[[], Positions],
        stored: Callable[[Positions], None] = lambda _: None,
        *,
        own: bool = False,
    ) -> None:
        """Store positions behind all commits that were begun before.

        Who is cancelled no longer waits for it, and later ones still do: a request that may be on its
        way must not overtake them.
        """
        task = asyncio.create_task(
            self._store(positions, stored, own=own), name="riverrun consumer: commit"
        )
        self._under_way.add(task)
        task.add_done_callback(self._stored)
        await asyncio.shield(task)

    async def _store(
        self,
        positions: Callable[[], Positions],
        stored: Callable[[Positions], None],
        *,
        own: bool,
    ) -> None:
        async with self._one_at_a_time:
            due = positions()
            if due:
                ids = self._topic_ids()
                self._ledger.sending(due)
                refused = await try_group_offsets(
                    self._connections, self._group, due, ids, self.committer()
                )
                due = {partition: at for partition, at in due.items() if partition not in refused}
                self._ledger.stored(due)
                self.count += bool(due)
                # What the others hold is so, whatever one of them refuses.
                stored(due)
                for partition, error in refused.items():
                    if own and error.reason in _NOT_ITS_OWN:
                        # Whoever has it now goes on where it was committed last.
                        _log.info(
                            "group %s: %s is not committed: %s", self._group, partition, error
                        )
                        continue
                    raise error
            else:
                stored(due)

    def _stored(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        # Where nobody waits any more, nobody is to be told of an error that nobody retrieved.
        if not task.cancelled():
            task.exception()


def _nobody() -> None:
    return None
