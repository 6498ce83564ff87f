"""One group under load on a cluster of processes, hurt for a while: what it did, and what of that is wrong."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc.aio

import riverrun
from riverrun.v1.group_pb2 import DescribeGroupRequest
from riverrun.v1.group_pb2_grpc import GroupServiceStub
from tests.cluster.group_chaos.checks import History, Silence, anomalies, longest_silence
from tests.cluster.group_chaos.diary import Diary, Processed, now_s
from tests.cluster.group_chaos.faults import Chaos, Done
from tests.cluster.group_chaos.load import Book, Looker
from tests.cluster.group_chaos.processes import CLIENT, STUB, MemberProcess, Terms, running
from tests.cluster.processes import ClusterProcesses
from tests.cluster.proof.members import Members, members_of

PARTITIONS = 12
SESSION_MS = 6_000
MEMBERS = 5
# Of them, so many have a place in the group that is theirs. Every other one is the Python client.
STATIC = 2
# From the last fault to the end of each log; a member that was killed is missed for its session timeout.
_FINISH_S = 60.0
_LOOK_S = 0.25
_ASK_S = 5.0
_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Findings:
    """What came of a run.

    Attributes:
        anomalies: what is wrong.
        faults: what was done, in order.
        records: how many were acknowledged, and how often records were worked on.
        silence: the longest time in which nothing of a partition was worked on.
        finished_s: from the last fault until everything was committed.
    """

    anomalies: list[str]
    faults: Sequence[Done]
    records: tuple[int, int]
    silence: Silence
    finished_s: float


@dataclass(frozen=True)
class Shape:
    """How large a run is.

    Attributes:
        seconds: for how long things are done to it.
        rate: records in a second.
        members: of the group.
        partitions: of its topic.
    """

    seconds: float
    rate: int
    members: int = MEMBERS
    partitions: int = PARTITIONS


async def chaos(
    cluster: ClusterProcesses, folder: Path, topic: str, shape: Shape, seed: int
) -> Findings:
    """Run a group through faults, let it finish, and judge what was written down.

    Args:
        cluster: which is whole.
        folder: for the diaries; it must be there.
        topic: a new one, which also names the group.
        shape: how large it is.
        seed: what every choice comes from.

    Raises:
        AssertionError: something did not come back.
    """
    terms = Terms(cluster.bootstrap, topic, topic, SESSION_MS, folder)
    members = [
        MemberProcess(
            terms, f"member-{n}", n, f"place-{n}" if n < STATIC else "", CLIENT if n % 2 else STUB
        )
        for n in range(shape.members)
    ]
    async with (
        members_of(cluster) as brokers,
        riverrun.Client(cluster.bootstrap, connect_timeout_s=_PATIENCE_S) as client,
    ):
        await client.admin().create_topic(topic, partitions=shape.partitions, replication_factor=3)
        await brokers.whole(topic)
        book = Book(client.producer(), topic, shape.partitions, shape.rate)
        looker = Looker(cluster.bootstrap.split(","), topic, topic, shape.partitions)
        with running(members):
            return await _hurt(cluster, brokers, members, book, looker, topic, shape, seed)


async def _hurt(
    cluster: ClusterProcesses,
    brokers: Members,
    members: list[MemberProcess],
    book: Book,
    looker: Looker,
    topic: str,
    shape: Shape,
    seed: int,
) -> Findings:
    ask = Asking(cluster, topic)
    chaos = Chaos(
        cluster, members, brokers, topic, ask.coordinator, session_s=SESSION_MS / 1000, seed=seed
    )
    stop = asyncio.Event()
    began_s = now_s()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(book.write(stop))
        tasks.create_task(looker.look(stop, random.Random(f"{seed}/looks")))
        try:
            await chaos.run(began_s + shape.seconds)
        finally:
            stop.set()
    over_s = now_s()
    ends = {each.partition: each.log_end_offset for each in await brokers.partitions(topic)}
    committed = await _finish(looker, cluster, ends)
    finished_s = now_s() - over_s
    for member in members:
        await asyncio.to_thread(member.leave)
    diaries = [diary for member in members for diary in member.diaries()]
    history = History(diaries, book.acknowledged, looker.looks, ends, committed)
    return Findings(
        [*book.failures, *_lazy(chaos.done), *anomalies(history)],
        chaos.done,
        (len(book.acknowledged), _worked_on(diaries)),
        longest_silence(diaries, began_s, over_s),
        finished_s,
    )


async def _finish(
    looker: Looker, cluster: ClusterProcesses, ends: Mapping[int, int]
) -> dict[int, int]:
    """Wait until the group has committed everything; return what it has where it does not."""
    until_s = now_s() + _FINISH_S
    broker = cluster.brokers[1].address
    known: dict[int, int] = {}
    while known != ends and now_s() < until_s:
        await asyncio.sleep(_LOOK_S)
        known |= await looker.committed(broker)
    return known


def _lazy(done: Sequence[Done]) -> list[str]:
    return [] if done else ["USELESS nothing was done to anybody"]


def _worked_on(diaries: list[Diary]) -> int:
    return sum(
        event.next - event.first
        for diary in diaries
        for event in diary.events
        if isinstance(event, Processed)
    )


class Asking:
    """Asks brokers about a group."""

    def __init__(self, cluster: ClusterProcesses, group: str) -> None:
        self._cluster = cluster
        self._group = group

    async def coordinator(self) -> int:
        """Wait until some broker knows who coordinates the group; return that.

        Raises:
            AssertionError: nobody does in time.
        """
        until_s, why = now_s() + _PATIENCE_S, ""
        while now_s() < until_s:
            for broker in self._cluster.brokers.values():
                async with grpc.aio.insecure_channel(broker.address) as channel:
                    try:
                        told = await GroupServiceStub(channel).DescribeGroup(
                            DescribeGroupRequest(group_id=self._group), timeout=_ASK_S
                        )
                    except grpc.aio.AioRpcError as error:
                        why = error.details() or error.code().name
                        continue
                if told.HasField("coordinator"):
                    return told.coordinator
            await asyncio.sleep(_LOOK_S)
        raise AssertionError(f"nobody knows who coordinates {self._group}: {why}")
