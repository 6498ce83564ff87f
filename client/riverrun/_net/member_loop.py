"""Drives one consumer that is a member of a group: one stream, to whichever broker answers, which gathers its share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, ClassVar

from riverrun._core.leader_map import ANY
from riverrun._core.membership import Membership
from riverrun._core.records import TopicPartition
from riverrun._core.retiring import drop, retire
from riverrun._net.channel import Connection
from riverrun._net.cluster import Cluster
from riverrun._net.member_outlet import MemberOutlet
from riverrun._net.member_settings import MemberSettings, OnPartitions
from riverrun._net.member_stream import MemberStream
from riverrun._net.subscribe_loop import SubscribeLoop
from riverrun._net.subscribe_outlet import SubscribeOutlet
from riverrun._net.subscribe_settings import SubscribeSettings
from riverrun._net.subscribe_stream import Machine, SubscribeStream
from riverrun.errors import Reason, RiverrunError
from riverrun.v1 import consumer_pb2 as pb

_LEAVE_S = 5.0

_log = logging.getLogger("riverrun")


class MemberLoop(SubscribeLoop):
    """Drives one member's machine; see `SubscribeLoop`, of which it has one outlet, at `_MEMBER_AT`.

    Implements `_net.member_stream.Rebalances`. Owns the tasks that give partitions up; `close` ends them.

    Args:
        cluster: finds brokers.
        machine: takes what comes.
        settings: what is asked of each stream.
        uniform: returns a random number in [0, 1), for delays.
        member: what the member says of itself.
    """

    # Under which key its own stream is, and what kind of stream that is.
    _MEMBER_AT: ClassVar[int] = ANY
    _STREAM: ClassVar[type[MemberStream]] = MemberStream

    def __init__(
        self,
        cluster: Cluster,
        machine: Machine,
        settings: SubscribeSettings,
        uniform: Callable[[], float],
        member: MemberSettings,
    ) -> None:
        super().__init__(cluster, machine, settings, uniform)
        self.membership = Membership()
        # Lets what is in hand of partitions come to its end, and commits it.
        self.finish: Callable[[Sequence[TopicPartition], float], Awaitable[None]]
        self.forget: Callable[[TopicPartition], object]
        self._member = member
        self._telling: asyncio.Task[None] | None = None
        self._to_tell: list[tuple[OnPartitions, Sequence[TopicPartition]]] = []
        self._doing: set[asyncio.Task[None]] = set()

    @property
    def holds_back(self) -> bool:
        """Whether the application is still being told of what it has, or others may have that by now."""
        if self._telling is not None and not self._telling.done():
            return True
        return self.membership.lease.is_over(asyncio.get_running_loop().time())

    async def close(self) -> None:
        """End the stream and all that belongs to it; the member stays one until it has left."""
        await super().close()
        tasks = [*self._doing, *([] if self._telling is None else [self._telling])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def leave(self) -> None:
        """Leave the group; as an instance for a moment, so that nobody else gets its partitions.

        Raises:
            RiverrunError: others get them after the session timeout.
        """
        member = self.membership.member
        if member is None:
            return
        self.membership.expired()
        request = pb.LeaveGroupRequest(
            group_id=self._settings.group,
            member_id=member.member_id,
            token=member.token,
            temporary=self._member.instance_id is not None,
        )
        try:
            await self._connections.call(
                lambda connection, timeout_s: connection.consumer.LeaveGroup(
                    request, timeout=min(timeout_s, _LEAVE_S)
                ),
                f"leave group {self._settings.group}",
            )
        except RiverrunError as error:
            # Removed, silent for too long, or gone by an attempt before: nobody waits for what it had.
            if error.reason is not Reason.UNKNOWN_MEMBER:
                raise

    # What the group says.

    def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """Tell the application of partitions that it has now."""
        self._tell(self._member.on_assigned, partitions)

    def revoking(self, partitions: Sequence[TopicPartition]) -> None:
        """Return nothing more of partitions, and give them up once the application is through with them."""
        if not partitions:
            return
        retire(self._machine, partitions)
        for each in partitions:
            self.forget(each)
        self._do(self._give_up(partitions), "give up")

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        """Forget partitions, and tell the application."""
        known = [each for each in partitions if each in self._machine.readers]
        for each in known:
            self.forget(each)
        drop(self._machine, known)
        self._seeks_are_over(known)
        self._tell(self._member.on_lost, known)

    def through(self) -> None:
        """End where an end was asked for, and everything has come up to there."""
        machine = self._machine
        if (
            self._settings.stop_at_end
            and machine.readers
            and self.membership.is_complete
            and machine.stream_ended()
        ):
            self._look.set()

    # Inside.

    async def _run(self) -> None:
        try:
            self._outlet(self._MEMBER_AT).gain()
            while not (self._settings.stop_at_end and self._machine.ended):
                self._look.clear()
                for task in self._tasks.values():
                    if task.done():
                        task.result()
                await self._look.wait()
            # Streams are still open, and are to be cancelled rather than their tasks.
            self._contact.closing = True
            await asyncio.gather(*(each.close() for each in self._outlets.values()))
            self._contact.closing = False
        finally:
            tasks, self._tasks = self._tasks, {}
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)

    def _move(self, partitions: Iterable[TopicPartition]) -> None:
        """Stay: the broker that holds the stream reads from leaders wherever they are."""

    def _new_outlet(
        self, broker_id: int, kind: type[SubscribeOutlet] = SubscribeOutlet
    ) -> SubscribeOutlet:
        return super()._new_outlet(
            broker_id, MemberOutlet if broker_id == self._MEMBER_AT else kind
        )

    def _new_stream(self, broker_id: int, connection: Connection) -> SubscribeStream:
        stream = self._STREAM(
            connection,
            self._machine,
            self._settings,
            broker_id=broker_id,
            prefetch_bytes=self._settings.prefetch_bytes,
            changed=self._wake,
            on_sought=self._seeks.answered,
            on_failed=lambda *failed: self._failed(broker_id, *failed),
            on_reset=self._position_reset,
        )
        return stream.serve(self.membership, self._member, self)

    async def _give_up(self, partitions: Sequence[TopicPartition]) -> None:
        member = self.membership.member
        within_s = 60.0 if member is None else member.revocation_timeout_s
        known = [each for each in partitions if each in self._machine.readers]
        await self.finish(known, within_s)
        await self._told()
        if self._member.on_revoked is not None and known:
            await _call(self._member.on_revoked, known)
        given_up = self.membership.given_up(partitions)
        drop(self._machine, known)
        self._seeks_are_over(known)
        outlet = self._outlets.get(self._MEMBER_AT)
        if given_up and outlet is not None and isinstance(outlet.stream, MemberStream):
            outlet.stream.give_up(given_up)
        self._wake()

    def _do(self, what: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(what, name=f"riverrun consumer: {name}")
        self._doing.add(task)
        task.add_done_callback(self._doing.discard)

    def _seeks_are_over(self, partitions: Iterable[TopicPartition]) -> None:
        for each in partitions:
            self._seeks.gone(each)

    def _tell(self, callback: OnPartitions | None, partitions: Sequence[TopicPartition]) -> None:
        """Tell the application, one thing after the other."""
        if callback is None or not partitions:
            return
        self._to_tell.append((callback, partitions))
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(
                self._tell_all(), name="riverrun consumer: callbacks"
            )

    async def _tell_all(self) -> None:
        try:
            while self._to_tell:
                await _call(*self._to_tell.pop(0))
        finally:
            # Whoever waits for records waits for this, too.
            asyncio.get_running_loop().call_soon(self._wake)

    async def _told(self) -> None:
        """Wait until the application has been told what came before."""
        while self._telling is not None and not self._telling.done():
            await asyncio.wait([self._telling])


async def _call(callback: OnPartitions, partitions: Sequence[TopicPartition]) -> None:
    try:
        answer = callback(partitions)
        if answer is not None:
            await answer
    except Exception:  # noqa: BLE001 - an application's own
        _log.exception("a callback for partitions failed")
