"""One member's Subscribe stream: it joins, is told what it has, says what it does, and leaves or comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from functools import partial
from typing import Any

from riverrun.v1.consumer_pb2 import RevocationDone, SubscribeRequest, SubscribeStart
from riverrun_server.core.errors import Refusal
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.reading.control import Broken, Commit, HalfClosed
from riverrun_server.core.reading.subscription import Subscription
from riverrun_server.rpc import call_notes
from riverrun_server.rpc.control_messages import Context, control_of, read
from riverrun_server.rpc.member_plans import MemberPlan, member_plan
from riverrun_server.rpc.reading_requests import check_count, partition_name
from riverrun_server.rpc.sending import send
from riverrun_server.rpc.streams import Streams
from riverrun_server.runtime.delivery_room import CURRENT
from riverrun_server.runtime.member_stream import MemberStream
from riverrun_server.runtime.reader import Reader

# A connection that is cut ends the requests, and then the call: what ends the requests alone is a half-close.
# gRPC tells of both in one go, so the second comes within a round of the loop; this is ample.
_CUT_S = 0.25


async def serve_member(context: Context, streams: Streams, start: SubscribeStart) -> None:
    """Serve a member's stream to its end.

    Raises:
        Refusal: it cannot join, broke the rules of the stream, or is a member no more.
    """
    members = streams.members
    members.check_running()
    plan = member_plan(start, streams.services.limits)
    notes = call_notes.current()
    notes.group_id = plan.group_id
    for topic in start.topics:
        notes.touched(topic)
    address = context.peer().partition(":")[2]
    attachment = await members.coordination.attach(
        plan.group_id, replace(plan.start, address=address)
    )
    stream = MemberStream(
        plan.group_id,
        attachment,
        members.coordination,
        streams.services.directory,
        plan.place,
        members.dice,
        address=address,
        delivers=plan.delivers,
    )
    await _MemberCall(context, streams, plan, stream).run()


class _MemberCall:
    """The call of one member's stream.

    Transitions: running -> left (the member said so, or everything it wanted was delivered) | over (it is a
    member no more, or broke the rules) | cut (the call ended, or the broker goes away): who had half-closed
    leaves with that, anybody else may go on elsewhere.
    """

    def __init__(
        self, context: Context, streams: Streams, plan: MemberPlan, stream: MemberStream
    ) -> None:
        self._context = context
        self._streams = streams
        self._members = streams.members
        self._plan = plan
        self._stream = stream
        self._notes = call_notes.current()
        self._has_left = False
        self._giving_up: set[asyncio.Task[None]] = set()
        self._reader = Reader(
            streams.services,
            Subscription(plan.settings),
            [],
            plan.form,
            partial(send, self._write),
            group_id=plan.group_id,
            commit_on_delivery=plan.commit_on_delivery,
            store=stream.store,
            room=CURRENT.get(None),
        )

    async def run(self) -> None:
        """Serve it to its end.

        Raises:
            Refusal
        """
        reader, stream = self._reader, self._stream
        beside = [
            self._beside(stream.follow(reader), "member: follow"),
            self._beside(self._listen(), "member: control"),
        ]
        self._members.enter(stream)
        is_over = False
        try:
            async with self._streams.draining(reader):
                await reader.run([], joined=stream.joined)
            is_over = not self._streams.is_draining
        except Refusal:
            # It is no member any more, or ends here for what it did: then its partitions wait for it.
            self._has_left = self._has_left or not self._may_come_back(beside[0])
            raise
        finally:
            self._members.leave(stream)
            tasks = [*beside, *self._giving_up]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            stream.close()
            self._part(is_over=is_over)

    def _part(self, *, is_over: bool) -> None:
        """Say what becomes of the member now that its stream has ended."""
        if self._has_left:
            return
        if is_over or self._stream.is_half_closed:
            self._members.spawn(self._leave_behind(), "member: leave")
        else:
            self._stream.detach()

    async def _leave_behind(self) -> None:
        try:
            await self._stream.leave(temporary=False)
        except Refusal:
            return  # it is silent from now on

    @staticmethod
    def _may_come_back(following: asyncio.Task[None]) -> bool:
        """Return whether the member is one still, whatever has ended its stream."""
        return not (following.done() and not following.cancelled() and following.exception())

    def _beside(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run something beside the deliveries; what it fails with ends the stream."""

        def done(task: asyncio.Task[None]) -> None:
            # Who has left is told so by the coordinator, too.
            if task.cancelled() or (error := task.exception()) is None or self._has_left:
                return
            self._reader.fail(_alone(error))

        task = asyncio.create_task(work, name=name)
        task.add_done_callback(done)
        return task

    async def _write(self, message: bytes) -> None:
        self._notes.sent_bytes += len(message)
        self._stream.write_begins()
        await self._context.write(message)
        self._stream.write_ends()

    # What the member says.

    async def _listen(self) -> None:
        while True:
            try:
                message = await read(self._context)
                if message is None:
                    await self._ended_requests()
                    return
                self._stream.heard()
                if await self._hear(message):
                    return
            except Refusal as refusal:
                await self._reader.control.say(Broken(refusal))
                return

    async def _hear(self, message: SubscribeRequest) -> bool:
        """Take what the member says; return whether it was the last word.

        Raises:
            Refusal: it breaks the rules of the stream.
        """
        limits = self._streams.services.limits
        match message.WhichOneof("kind"):
            case "heartbeat":
                self._stream.heartbeat(message.heartbeat.heartbeat_id)
            case "revocation_done":
                self._give_up(message.revocation_done)
            case "leave":
                await self._leave(temporary=message.leave.temporary)
                return True
            case _:
                control = control_of(message, self._plan.group_id, limits)
                if isinstance(control, Commit):
                    self._reader.control.commit(control, limits.member_commits_waiting)
                else:
                    await self._reader.control.say(control)
        return False

    async def _ended_requests(self) -> None:
        """Take the end of what the member says, unless the call ends with it."""
        await asyncio.sleep(_CUT_S)
        self._stream.half_closed()
        await self._reader.control.say(HalfClosed())

    async def _leave(self, *, temporary: bool) -> None:
        """Let the member go, behind the commits that it has made.

        Raises:
            Refusal
        """
        self._reader.assigned.fence()
        await self._reader.control.committed()
        await asyncio.gather(*self._giving_up, return_exceptions=True)
        self._has_left = True
        await self._stream.leave(temporary=temporary)
        self._reader.end()

    def _give_up(self, done: RevocationDone) -> None:
        limits = self._streams.services.limits
        check_count("revocation_done.partitions", len(done.partitions), limits)
        partitions = []
        for named in done.partitions:
            name = partition_name(named)
            if name.topic_id:
                partitions.append(PartitionId(name.topic_id, name.partition))
            else:
                partitions.append(self._streams.services.directory.partition(*name).id)
        task = asyncio.create_task(
            self._stream.given_up(partitions, done.member_epoch), name="member: given up"
        )
        self._giving_up.add(task)
        task.add_done_callback(self._giving_up.discard)


def _alone(error: BaseException) -> BaseException:
    """Return an error without the group that a task's children have put around it."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
