"""A partition's appends at a broker that may not lead it: what the lane says is done, in its order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from riverrun_server.core.errors import LeaderHint, Reason, Refusal
from riverrun_server.core.gateway.lane import AppendLane, Steps
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.gateways import Held, Led, Origin
from riverrun_server.ports.partitions import Append, Appended
from riverrun_server.runtime.gateway.services import GatewayServices


class Target(NamedTuple):
    """Where appends go.

    Attributes:
        leader: the leader.
        local: the replica here, where this broker is the leader.
    """

    leader: LeaderHint
    local: Held | None = None


class _InLane:
    """An append on its way; the batch is let go of once it has been sent."""

    __slots__ = ("append", "done", "origin", "record_count")

    def __init__(self, append: Append, origin: Origin) -> None:
        self.append: Append | None = append
        self.done = append.done
        self.origin = origin
        self.record_count = append.batch.header.record_count

    def refuse(self, refusal: Refusal) -> None:
        self.done(Appended(None, self.record_count, error=refusal))


class RoutedAppends:
    """Drives the lane of a partition.

    Args:
        partition: which one.
        services: what all partitions share.
        refusal: why nothing can be sent now, for who has waited long enough.
        heed: told of a leader of which another broker has said that it leads.
    """

    def __init__(
        self,
        partition: PartitionId,
        services: GatewayServices,
        refusal: Callable[[], Refusal],
        heed: Callable[[LeaderHint], None],
    ) -> None:
        self._partition = partition
        self._services = services
        self._refusal = refusal
        self._heed = heed
        self._target: Target | None = None
        self._lane: AppendLane[_InLane] = AppendLane(services.wait_s)
        # Answers may hand in new appends: one step after another, in the order of the lane.
        self._steps: deque[Steps[_InLane]] = deque()
        self._is_stepping = False
        self._expiry: asyncio.TimerHandle | None = None

    @property
    def leader_epoch(self) -> int:
        """The newest that is known; -1 before there is one."""
        return self._lane.leader_epoch

    @property
    def waits(self) -> bool:
        """Whether there are appends that wait for a leader."""
        return self._lane.expires_at is not None

    def follow(self, leader_epoch: int, target: Target | None) -> None:
        """Learn of the newest leadership.

        Args:
            leader_epoch: at least the known one.
            target: where appends can be sent in it; None where that is not possible now.
        """
        assert leader_epoch >= self._lane.leader_epoch, (leader_epoch, self._lane.leader_epoch)
        if target is not None:
            self._target = target
        self._step(self._lane.follow(leader_epoch, reachable=target is not None))

    def submit(self, append: Append) -> bool:
        """Append a batch; return whether it waits for a leader."""
        size, now = append.batch.header.size_bytes, asyncio.get_running_loop().time()
        steps = self._lane.submit(_InLane(append, self._services.origin()), size, now)
        if steps.send or steps.refused:
            self._step(steps)
            return False
        self._arm()
        return True

    def close(self) -> None:
        """Answer everyone."""
        if self._expiry is not None:
            self._expiry.cancel()
        self._step(self._lane.close())

    def _step(self, steps: Steps[_InLane]) -> None:
        """Do what the lane says, one thing after another."""
        self._steps.append(steps)
        if self._is_stepping:
            return
        self._is_stepping = True
        try:
            while self._steps:
                step = self._steps.popleft()
                for each in step.unknown:
                    each.refuse(_unknown())
                for each in step.refused:
                    each.refuse(self._refusal())
                for each in step.send:
                    self._send(each)
        finally:
            self._is_stepping = False

    def _send(self, each: _InLane) -> None:
        append, each.append = each.append, None
        assert append is not None, "nothing is sent twice"
        assert self._target is not None, "nothing is sent to nobody"
        leader, local = self._target
        if local is not None:
            done = partial(self._answered, each, None)
            local.submit(Append(append.batch, append.acks, done, append.expected_offset))
            return
        led = Led(self._partition, leader.leader_epoch)
        done = partial(self._answered, each, leader)
        self._services.leaders.append(leader.broker_id, led, append, each.origin, done)

    def _answered(self, each: _InLane, leader: LeaderHint | None, appended: Appended) -> None:
        """Pass an answer on; `leader` is who gave it, where that is another broker."""
        error = appended.error
        steps = self._lane.answered(each, failed=error is not None)
        if steps is None:
            return  # by then it had been told that nobody knows
        if error is None:
            each.done(appended if leader is None else appended._replace(leader=leader))
            return
        if error.leader is not None:
            # Behind the answers that have come with this one: they are to what was sent with it.
            asyncio.get_running_loop().call_soon(self._heed, error.leader)
        error = self._services.for_clients(error, remote=leader is not None)
        each.done(appended._replace(record_count=each.record_count, error=error))
        if steps.refused:
            self._step(steps)

    def _arm(self) -> None:
        """Have what waits refused when it has waited too long."""
        expires_at = self._lane.expires_at
        if self._expiry is None and expires_at is not None:
            self._expiry = asyncio.get_running_loop().call_at(expires_at, self._expire)

    def _expire(self) -> None:
        self._expiry = None
        self._step(self._lane.expire(asyncio.get_running_loop().time()))
        self._arm()


def _unknown() -> Refusal:
    return Refusal(
        Reason.REQUEST_TIMED_OUT,
        "the leadership of the partition moved before the append was answered; it may have been written "
        "and may be lost: send it again only with a producer id and the same sequence",
    )
