"""One worker: a member of the group that takes orders off the log and puts their effects on the shelf.

python -m examples.orders.worker BOOTSTRAP DATABASE
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import riverrun
from examples.orders.events import TOPIC, event_of
from examples.orders.shelf import Shelf

GROUP = "stock"
_SESSION_TIMEOUT_S = 2.0


async def work(bootstrap: str, shelf: Shelf) -> None:
    """Work until killed.

    Where a partition goes on stands on the shelf, beside what was done, and not in the group's offsets: a
    worker that is given a partition goes there first.
    """
    async with riverrun.Client(bootstrap) as client:

        async def assigned(partitions: Sequence[riverrun.TopicPartition]) -> None:
            places = shelf.places()
            await consumer.seek_many({each: places.get(each.partition, 0) for each in partitions})

        consumer = client.consumer(
            TOPIC, group=GROUP, session_timeout_s=_SESSION_TIMEOUT_S, on_assigned=assigned
        )
        async with consumer:
            while True:
                records = await consumer.getmany(200)
                for partition, some in itertools.groupby(records, lambda each: each.partition):
                    events = [(each.offset, event_of(each.value)) for each in some if each.value]
                    # SQLite waits for other workers: not on the loop, which tells that this one lives.
                    await asyncio.to_thread(shelf.apply, partition, events)
                # For those who look at the group's lag; nothing depends on it.
                await consumer.commit()


if __name__ == "__main__":
    # The client tells its log that connections break, which they do here all the time.
    logging.getLogger("riverrun").addHandler(logging.NullHandler())
    asyncio.run(work(sys.argv[1], Shelf(Path(sys.argv[2]))))
