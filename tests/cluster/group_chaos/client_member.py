"""A member of a group by the Python client, in a process of its own, that writes a diary.

It commits by itself what it is through with. The client keeps assignment epochs and leases to itself, so what
is judged is what it hands out: nothing twice and nothing left out for as long as it has a partition.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Sequence

import riverrun
from riverrun import TopicPartition
from tests.cluster.group_chaos.diary import (
    UNTOLD,
    Assigned,
    Ended,
    Left,
    Lost,
    Processed,
    Released,
    Writer,
    Wrong,
    now_s,
)
from tests.cluster.group_chaos.member_options import Options, told

_PATIENCE_S = 30.0
_AGAIN_S = 0.2
# The stream of a process that was killed holds its place for as long as that may be silent.
_IN_THE_WAY = riverrun.Reason.INSTANCE_IN_USE
# The client ends a consumer that has been taken for dead and is not to go on by itself.
_GONE = {riverrun.Reason.UNKNOWN_MEMBER, riverrun.Reason.MEMBER_TAKEN_OVER}


class Member:
    """One member."""

    def __init__(self, options: Options, diary: Writer) -> None:
        self._options = options
        self._diary = diary
        self.stop = asyncio.Event()

    async def run(self) -> None:
        """Be a member until it is told to stop."""
        async with riverrun.Client(
            self._options.bootstrap, connect_timeout_s=_PATIENCE_S
        ) as client:
            while not self.stop.is_set():
                await self._once(client)

    async def _once(self, client: riverrun.Client) -> None:
        options = self._options
        consumer = client.consumer(
            options.topic,
            group=options.group,
            commit="auto",
            commit_interval_s=0.1,
            instance_id=options.instance or None,
            session_timeout_s=options.session_ms / 1000,
            # Either way of reading in turn, also where the same member is started again.
            direct=os.getpid() % 2 == 0,
            on_assigned=self._assigned,
            on_revoked=self._released,
            on_lost=self._lost,
        )
        try:
            async with consumer:
                stopping = asyncio.create_task(self._stop(consumer), name="stop")
                try:
                    async for record in consumer:
                        self._work_on(record)
                finally:
                    stopping.cancel()
                    await asyncio.gather(stopping, return_exceptions=True)
            self._diary.note(Left(now_s()))
        except riverrun.RiverrunError as error:
            self._diary.note(Ended(now_s(), str(error)))
            if self.stop.is_set() and isinstance(error, riverrun.ClosedError):
                return
            if error.reason not in _GONE | {_IN_THE_WAY}:
                self._diary.note(Wrong(now_s(), f"the consumer has failed: {error}"))
            await asyncio.sleep(_AGAIN_S)

    async def _stop(self, consumer: riverrun.Consumer) -> None:
        await self.stop.wait()
        await consumer.close()

    def _work_on(self, record: riverrun.Record) -> None:
        number = int(record.value or b"-1") if self._options.is_numbered else 0
        self._diary.note(
            Processed(now_s(), record.partition, UNTOLD, record.offset, record.offset + 1, [number])
        )

    def _assigned(self, partitions: Sequence[TopicPartition]) -> None:
        given = [[each.partition, UNTOLD, UNTOLD] for each in partitions]
        self._diary.note(Assigned(now_s(), UNTOLD, given, [], False))

    def _released(self, partitions: Sequence[TopicPartition]) -> None:
        self._diary.note(Released(now_s(), [each.partition for each in partitions]))

    def _lost(self, partitions: Sequence[TopicPartition]) -> None:
        self._diary.note(Lost(now_s(), [each.partition for each in partitions]))


async def _main(options: Options, diary: Writer) -> None:
    member = Member(options, diary)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, member.stop.set)
    await member.run()


def main() -> None:
    """Be a member until SIGTERM."""
    # The client says that connections break; that is what this is about.
    logging.getLogger("riverrun").setLevel(logging.ERROR)
    options = told()
    with contextlib.closing(Writer(options.diary)) as diary:
        asyncio.run(_main(options, diary))


if __name__ == "__main__":
    main()
