"""How far a group has come: committed by the application, behind it, or ahead of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from riverrun._core.argument_checks import by_partition, topic_partitions
from riverrun._core.committing import Front, Positions, front_of, with_released
from riverrun._core.handing_out import HandingOut
from riverrun._core.records import CommittedOffset, TopicPartition
from riverrun._net.channel import Connections
from riverrun._net.group_commits import CommitSettings, GroupCommits
from riverrun._net.offsets import fetch_group_offsets
from riverrun._net.subscribe_loop import SubscribeLoop
from riverrun._net.subscribe_settings import SubscribeSettings
from riverrun._net.subscribe_stream import Machine
from riverrun.consumer_positions import ConsumerPositions
from riverrun.errors import Reason, RiverrunError, TimedOutError, UsageError
from riverrun.v1 import records_pb2

_log = logging.getLogger("riverrun")

# After an exception in the block, the last commit has so long: as long as a producer's last records.
_HURRIED_COMMIT_S = 5.0


class ConsumerCommits(ConsumerPositions):
    """The part of `Consumer` that is about the offsets of its group."""

    def __init__(
        self,
        connections: Connections,
        settings: SubscribeSettings,
        commits: CommitSettings,
        machine: Machine,
        loop: SubscribeLoop,
        handing_out: HandingOut[records_pb2.RecordBatch, records_pb2.Record],
    ) -> None:
        super().__init__(connections, settings, machine, loop, handing_out)
        self._commit_mode = commits.mode
        self._commit_interval_s = commits.interval_s
        self._commits = GroupCommits(connections, settings.group, self._topic_ids)
        self._asked = asyncio.Event()
        handing_out.on_asked = self._asked.set
        self._releasing: asyncio.Task[None] | None = None

    async def commit(
        self, offsets: Mapping[TopicPartition, int | CommittedOffset] | None = None
    ) -> None:
        """Store how far the group has come: the given offsets, else all positions.

        An offset is that of the next record to read. It may lie before what is stored: then the
        group reads again. With `commit="auto"` a call without offsets says that the application is
        through with what it has, and the consumer's own commits do not go back behind what was
        committed here, unless a `seek` does. With `commit="at_most_once"` a call without offsets takes
        nothing back of what was committed before its delivery; an offset that lies before that makes
        records come twice. Of a partition that the group has given to another member meanwhile nothing is
        stored: a call without offsets leaves it out, and for one that is named it is an error.

        Raises:
            UsageError: the consumer has no group, or an offset is below 0.
            RiverrunError: of the first partition that refused; the others have been stored, and
                count. Or of the call.

        Example:
            async with client.consumer("orders", group="billing", stop_at_end=True) as consumer:
                async for record in consumer:
                    print(record.value)
                    await consumer.commit({record.topic_partition: record.offset + 1})
        """
        self._checked_group()
        if offsets is not None:
            await self._commit_named(offsets)
        elif self._commit_mode == "at_most_once":
            # As it is in its turn: what was released meanwhile must not come again.
            ahead, machine = self._machine.ahead, self._machine
            await self._commits.commit(lambda: with_released(machine.positions(), ahead), own=True)
        else:
            self._handing_out.asked()
            positions = self._handing_out.positions()
            await self._commits.commit(lambda: positions, self._floors.stored, own=True)

    async def committed(
        self, partitions: Iterable[TopicPartition] | None = None
    ) -> dict[TopicPartition, CommittedOffset | None]:
        """Tell how far the group has come, by default in the partitions being read.

        Raises:
            UsageError: the consumer has no group.
            RiverrunError: of the first partition of which nobody can say, or of the call.

        Example:
            for partition, at in (await consumer.committed()).items():
                print(partition, at.offset if at else "nothing yet")
        """
        group = self._checked_group()
        named = None if partitions is None else topic_partitions(partitions)
        asked = await self.assignment() if named is None else named
        if not asked:
            return {}
        return await fetch_group_offsets(self._connections, group, asked, self._topic_ids())

    async def _commit_named(
        self,
        offsets: Mapping[TopicPartition, int | CommittedOffset],
        stored: Callable[[Positions], None] = lambda _: None,
    ) -> None:
        """Store the given offsets; `stored` is called with what is stored of them."""
        self._checked_group()
        places = {
            partition: at if isinstance(at, CommittedOffset) else CommittedOffset(at)
            for partition, at in by_partition("offsets", offsets).items()
        }

        def note(positions: Positions) -> None:
            self._committed(positions)
            stored(positions)

        await self._commits.commit(lambda: places, note)

    def _begin(self) -> None:
        super()._begin()
        if self._commit_mode == "auto":
            self._commits.start(self._commit_interval_s, self._finished)

    def _finished(self) -> Positions:
        """Return up to where the application is through with what it was given."""
        finished = self._machine.finished_positions(self._handing_out.in_hand())
        return self._floors.under(finished)

    def _committed(self, positions: Positions) -> None:
        """Note what the application has committed by name."""
        if self._commit_mode == "auto":
            self._floors.stored(positions)
            self._handing_out.committed(positions)

    async def _finish_with(self, partitions: Sequence[TopicPartition], within_s: float) -> None:
        """Wait until the application is through with what it has of partitions, and commit that."""
        leaving = frozenset(partitions)
        try:
            async with asyncio.timeout(within_s):
                while any(each.partition in leaving for each in self._handing_out.in_hand()):
                    self._asked.clear()
                    await self._asked.wait()
                # Who asks for more by committing what it has is to have that stored.
                await self._commits.settled()
                await self._commit_finished(leaving)
        except RiverrunError as error:
            _log.warning("group %s: what it gives up is not committed: %s", self._group, error)
        except TimeoutError:
            _log.warning(
                "group %s: %s are taken away while the application works on them, longer than the "
                "revocation timeout of %g s",
                self._group, ", ".join(map(str, partitions)), within_s,
            )  # fmt: skip

    async def _commit_finished(self, partitions: frozenset[TopicPartition]) -> None:
        def positions() -> Positions:
            # What was released and not given, is the group's again.
            auto = self._commit_mode == "auto"
            found = self._finished() if auto else self._machine.finished_positions({})
            return {each: at for each, at in found.items() if each in partitions}

        if self._commit_mode != "manual":
            await self._commits.commit_due(positions)

    def _forget(self, partition: TopicPartition) -> None:
        """Have nothing more to do with a partition, which comes back from where it is committed."""
        self._handing_out.forget(partition)
        self._floors.forget(partition)
        self._commits.forget(partition)

    def _begin_release(self, *, wait: bool = True) -> bool:
        """Begin to commit the batches that are next in turn; say whether to wait for that."""
        if self._releasing is None and self._commit_mode == "at_most_once":
            front = front_of(self._machine.ahead)
            if front.batches:
                # A task, for one who waits only so long is to find it done the next time.
                self._releasing = asyncio.create_task(
                    self._commit_ahead(front), name="riverrun consumer: release"
                )
        return self._releasing is not None and (wait or self._releasing.done())

    async def _release(self) -> bool:
        """Commit the batches that are next in turn, then let them be taken; say whether any were.

        Raises:
            RiverrunError: they could not be committed, and have not been released.
        """
        if not self._begin_release():
            return False
        releasing = self._releasing
        assert releasing is not None, "it was begun"
        # Who is cancelled here leaves it, and its error, to the next call.
        if not releasing.done():
            await asyncio.wait([releasing])
        self._releasing = None
        releasing.result()
        return True

    async def _commit_ahead(self, front: Front[records_pb2.RecordBatch]) -> None:
        # Released as soon as it is stored: whatever is committed next must not go behind that.
        def release(stored: Positions) -> None:
            # Those of a topic that is gone were not to be committed, and those that were refused stay.
            self._machine.ahead.release(
                upcoming
                for upcoming in front.batches
                if (of := upcoming.reader.partition) in stored or of not in front.positions
            )

        await self._commits.commit(lambda: front.positions, release)

    async def _end_commits(self, *, through: bool, quiet: bool, timeout_s: float | None) -> None:
        """Commit what is left to commit at the end.

        Args:
            through: the application is through with what it has in hand.
            quiet: something else is being raised already.
            timeout_s: how long that may take; None is as long as the call lasts.

        Raises:
            RiverrunError: it could not be committed; unless `quiet`, where it is logged.
        """
        if through:
            self._handing_out.asked()
        if quiet:
            # Who leaves in trouble is not kept waiting for a broker that may be the trouble.
            timeout_s = _HURRIED_COMMIT_S
        try:
            async with asyncio.timeout(timeout_s):
                await self._last_commit()
        except RiverrunError as error:
            if not quiet:
                raise
            _log.warning("group %s: the last commit failed: %s", self._group, error)
        except TimeoutError:
            text = (
                f"group {self._group}: the last commit was given up, it had no answer within "
                f"{timeout_s:g} s"
            )
            if not quiet:
                raise TimedOutError(text, reason=Reason.TIMED_OUT, outcome_known=False) from None
            _log.warning("%s", text)

    async def _give_up_commits(self) -> None:
        """Cancel what has come to no end."""
        if self._releasing is not None:
            self._releasing.cancel()
        await self._commits.give_up()

    async def _last_commit(self) -> None:
        if self._releasing is not None:
            await asyncio.gather(self._releasing, return_exceptions=True)
        await self._commits.finish()
        if self._commit_mode == "auto":
            await self._commits.commit_due(self._finished)
        elif self._commit_mode == "at_most_once":
            # What was released and not given is the group's again: nobody has seen it.
            await self._commits.commit_due(lambda: self._machine.finished_positions({}))

    def _checked_group(self) -> str:
        if not self._group:
            raise UsageError(
                "the consumer has no group; give it one: client.consumer(topic, group=...)",
                reason=Reason.INVALID_REQUEST,
            )
        return self._group
