"""What is done to the members of a group and to the brokers while it works, as the dice have it."""

from __future__ import annotations

import asyncio
import enum
import os
import random
import signal
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from tests.cluster.group_chaos.diary import now_s
from tests.cluster.group_chaos.processes import MemberProcess
from tests.cluster.processes import ClusterProcesses
from tests.cluster.proof.members import Members


class Fault(enum.Enum):
    """One thing that is done."""

    MEMBER_KILLED = "members killed"
    MEMBER_PAUSED = "members paused"
    """For less than its session timeout or for more; then it goes on as if nothing had been."""
    MEMBER_LEFT = "members left"
    BROKER_KILLED = "brokers killed"
    COORDINATOR_KILLED = "coordinators killed"
    BROKER_PAUSED = "brokers paused"
    """For less than its lease or for more."""
    BROKER_ENDED = "brokers ended"
    """In order, after SIGTERM."""


_MEMBER_SHARES = {Fault.MEMBER_KILLED: 45, Fault.MEMBER_PAUSED: 35, Fault.MEMBER_LEFT: 20}
_BROKER_SHARES = {
    Fault.BROKER_KILLED: 30,
    Fault.COORDINATOR_KILLED: 25,
    Fault.BROKER_PAUSED: 25,
    Fault.BROKER_ENDED: 20,
}
_MEMBER_REST_S = (0.3, 4.0)
# Each move of a coordinator gives the dead a fresh session timeout: mostly they are to be missed before.
_BROKER_REST_S = (1.0, 12.0)
_DOWN_S = (0.0, 2.0)
# Of the session timeout.
_MEMBER_PAUSES = (0.2, 1.8)
_BROKER_PAUSE_S = (0.5, 6.0)
# Two members are never at fault at once where that would leave the group without any.
_MEMBERS_UP_MIN = 2


class Done(NamedTuple):
    """Something that was done."""

    at_s: float
    fault: Fault
    whom: str


Coordinator = Callable[[], Awaitable[int]]
"""Returns the broker that coordinates the group."""


class Chaos:
    """Hurts members and brokers in turn, each in a lane of its own.

    Args:
        cluster: the brokers; one of them at a time is hurt, and the next once the cluster is whole.
        members: of one group.
        brokers: asks whether the cluster is whole.
        topic: which is to be whole.
        coordinator: tells who coordinates the group.
        session_s: for how long a member may be silent.
        seed: what every choice comes from.

    Attributes:
        done: what was done, when, and to whom.
    """

    def __init__(
        self,
        cluster: ClusterProcesses,
        members: Sequence[MemberProcess],
        brokers: Members,
        topic: str,
        coordinator: Coordinator,
        *,
        session_s: float,
        seed: int,
    ) -> None:
        self.done: list[Done] = []
        self._cluster = cluster
        self._members = members
        self._brokers = brokers
        self._topic = topic
        self._coordinator = coordinator
        self._session_s = session_s
        self._seed = seed
        self._busy: set[str] = set()

    async def run(self, until_s: float) -> None:
        """Do things until a moment; in the end everybody runs again and the cluster is whole."""
        async with asyncio.TaskGroup() as lanes:
            for number in range(max(1, len(self._members) - _MEMBERS_UP_MIN)):
                lanes.create_task(self._member_lane(number, until_s))
            lanes.create_task(self._broker_lane(until_s))

    async def _member_lane(self, number: int, until_s: float) -> None:
        dice = random.Random(f"{self._seed}/members {number}")
        while now_s() < until_s:
            await asyncio.sleep(dice.uniform(*_MEMBER_REST_S))
            member = dice.choice([each for each in self._members if each.name not in self._busy])
            self._busy.add(member.name)
            try:
                await self._hurt_member(member, _one_of(_MEMBER_SHARES, dice), dice)
            finally:
                self._busy.discard(member.name)

    async def _hurt_member(self, member: MemberProcess, fault: Fault, dice: random.Random) -> None:
        self.done.append(Done(now_s(), fault, member.name))
        if fault is Fault.MEMBER_PAUSED:
            member.pause()
            await asyncio.sleep(dice.uniform(*_MEMBER_PAUSES) * self._session_s)
            member.resume()
            return
        await asyncio.to_thread(member.kill9 if fault is Fault.MEMBER_KILLED else member.leave)
        await asyncio.sleep(dice.uniform(*_DOWN_S))
        await asyncio.to_thread(member.start)

    async def _broker_lane(self, until_s: float) -> None:
        dice = random.Random(f"{self._seed}/brokers")
        while now_s() < until_s:
            await asyncio.sleep(dice.uniform(*_BROKER_REST_S))
            await self._hurt_broker(_one_of(_BROKER_SHARES, dice), dice)
            await self._brokers.whole(self._topic)

    async def _hurt_broker(self, fault: Fault, dice: random.Random) -> None:
        number = dice.choice(sorted(self._cluster.brokers))
        if fault is Fault.COORDINATOR_KILLED:
            number = await self._coordinator()
        broker = self._cluster.brokers[number]
        self.done.append(Done(now_s(), fault, f"broker {number}"))
        if fault is Fault.BROKER_PAUSED:
            os.kill(broker.pid, signal.SIGSTOP)
            await asyncio.sleep(dice.uniform(*_BROKER_PAUSE_S))
            os.kill(broker.pid, signal.SIGCONT)
            return
        await asyncio.to_thread(broker.term if fault is Fault.BROKER_ENDED else broker.kill9)
        await asyncio.sleep(dice.uniform(*_DOWN_S))
        await asyncio.to_thread(broker.restart)


def _one_of(shares: dict[Fault, int], dice: random.Random) -> Fault:
    (fault,) = dice.choices([*shares], [*shares.values()])
    return fault
