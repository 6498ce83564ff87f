"""What Subscribe, Read and Tail share: a plan becomes a reader, which runs until its stream ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

from riverrun_server.core.reading.control import HalfClosed
from riverrun_server.core.reading.subscription import Subscription
from riverrun_server.rpc import call_notes
from riverrun_server.rpc.reading_plans import ReadingPlan, places_of
from riverrun_server.rpc.sending import send
from riverrun_server.runtime.delivery_room import CURRENT
from riverrun_server.runtime.members import Members
from riverrun_server.runtime.reader import Reader, ReadingServices

_LEAVING = "the broker is shutting down; go on behind the last delivery, here or elsewhere"


class Streams:
    """Runs the reading streams of a broker.

    Args:
        services: what all readers share.
        members: those whose streams this broker holds.
        draining: set when the broker shuts down; streams then end in order.
    """

    def __init__(
        self, services: ReadingServices, members: Members, draining: asyncio.Event
    ) -> None:
        self.services = services
        self.members = members
        self._draining = draining

    @property
    def is_draining(self) -> bool:
        """Whether streams end because the broker does."""
        return self._draining.is_set()

    @contextlib.asynccontextmanager
    async def draining(self, reader: Reader) -> AsyncIterator[None]:
        """End a reader's stream in order when the broker shuts down."""
        drain = asyncio.create_task(self._draining.wait(), name="reading stream: drain")
        drain.add_done_callback(lambda task: None if task.cancelled() else reader.leave(_LEAVING))
        try:
            yield
        finally:
            drain.cancel()
            await asyncio.gather(drain, return_exceptions=True)

    async def deliver(
        self,
        plan: ReadingPlan,
        write: Callable[[bytes], Awaitable[None]],
        opened: Callable[[Reader], None] | None = None,
    ) -> None:
        """Run a stream to its end.

        Args:
            plan: what it reads.
            write: sends one message.
            opened: is given the reader, for its control; without, there is none.

        Raises:
            Refusal: the stream could not do what was asked.
        """
        services = self.services
        notes = call_notes.current()
        notes.group_id = plan.group_id
        for each in plan.wanted:
            notes.touched(each.access.topic)

        async def counted(message: bytes) -> None:
            notes.sent_bytes += len(message)
            await write(message)

        positions = await places_of(plan.wanted, services.offsets, plan.group_id)
        reader = Reader(
            services,
            Subscription(plan.settings),
            [each.access for each in plan.wanted],
            plan.form,
            partial(send, counted),
            group_id=plan.group_id,
            commit_on_delivery=plan.commit_on_delivery,
            room=CURRENT.get(None),
        )
        async with self.draining(reader):
            if opened is None:
                await reader.control.say(HalfClosed())
            else:
                opened(reader)
            await reader.run(positions, plan.missing)
