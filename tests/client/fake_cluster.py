"""Several fake brokers that share their logs: each leads some partitions, and may die, or lag behind."""

from __future__ import annotations

from contextlib import AsyncExitStack

from riverrun.v1 import metadata_pb2
from tests.client.fake_broker import FakeBroker
from tests.client.fake_log import FakePartition, FakeRefusal

TOPIC = "t"
NOBODY = -1


class FakeCluster:
    """Brokers 1 to n, and topic "t". An async context manager: the brokers serve inside.

    Attributes:
        brokers: by id.
        leaders: by topic and partition: the leader and its epoch.
        alive: who serves.
        proxied: how many appends were passed on, by the gateway's id.
        frozen: what brokers believe that hear of no change any more, by id.
        denying: who says that it leads nothing, and does not know who does.
    """

    def __init__(self, brokers: int = 3, partitions: int = 3) -> None:
        self.brokers = {number: FakeBroker() for number in range(1, brokers + 1)}
        self.topics = self.brokers[1].topics
        for number, broker in self.brokers.items():
            broker.broker_id, broker.cluster = number, self
            broker.topics, broker.commits = self.topics, self.brokers[1].commits
        self.brokers[1].add_topic(TOPIC, partitions)
        self.leaders = {(TOPIC, n): (n % brokers + 1, 1) for n in range(partitions)}
        self.endpoints: dict[int, str] = {}
        self.registered = {*self.brokers}
        self.revision = 1
        self.alive: set[int] = set()
        self.proxied: dict[int, int] = {}
        self.frozen: dict[int, dict[tuple[str, int], tuple[int, int]]] = {}
        self.denying: set[int] = set()
        self._servers: dict[int, AsyncExitStack] = {}

    async def __aenter__(self) -> FakeCluster:
        for number in self.brokers:
            await self.start(number)
        return self

    async def __aexit__(self, *_: object) -> None:
        for number in tuple(self._servers):
            await self.kill(number)

    @property
    def bootstrap(self) -> str:
        return ",".join(self.endpoints.values())

    async def start(self, number: int) -> None:
        """Let a broker serve, where it has served before if it has."""
        port = int(self.endpoints.get(number, ":0").rpartition(":")[2])
        stack = AsyncExitStack()
        self.endpoints[number] = await stack.enter_async_context(self.brokers[number].serving(port))
        self._servers[number] = stack
        self.alive.add(number)
        await self.tell()

    async def kill(self, number: int) -> None:
        """Cut all its connections; nobody is told who leads instead."""
        self.alive.discard(number)
        await self._servers.pop(number).aclose()
        await self.tell()

    async def elect(self, partition: int, leader: int) -> None:
        """Let another broker lead from now on."""
        epoch = self.leaders[TOPIC, partition][1] + 1
        self.leaders[TOPIC, partition] = (leader, epoch)
        self.topics[TOPIC].partitions[partition].leader_epoch = epoch
        await self.tell()

    async def add_partition(self, leader: int) -> None:
        """Let the topic have one more partition."""
        logs = self.topics[TOPIC].partitions
        self.leaders[TOPIC, len(logs)] = (leader, 1)
        logs.append(FakePartition(self.topics[TOPIC].topic_id, len(logs)))
        await self.tell()

    async def fail_over(self, number: int) -> None:
        """Kill a broker and let the next one that lives lead in its place."""
        await self.kill(number)
        heir = min(self.alive, key=lambda other: (other - number) % len(self.brokers))
        for (_, partition), (leader, _) in [*self.leaders.items()]:
            if leader == number:
                await self.elect(partition, heir)

    async def tell(self) -> None:
        """Let who watches the metadata, and who reads, look again."""
        self.revision += 1
        for broker in self.brokers.values():
            await broker.notify()

    def seen(self, broker: FakeBroker, topic: str, partition: int) -> tuple[int, int]:
        """Return who leads a partition, as a broker believes."""
        believed = self.frozen.get(broker.broker_id, self.leaders)
        return believed[topic, partition]

    def check(
        self, broker: FakeBroker, topic: str, partition: int, do_not_proxy: bool, *, quietly: bool
    ) -> None:
        """Refuse what a broker does not lead and may not, or cannot, pass on."""
        leader, epoch = self.seen(broker, topic, partition)
        if broker.broker_id in self.denying and do_not_proxy:
            raise FakeRefusal("NOT_LEADER", "it is not me", retry_safe=True)
        if leader == broker.broker_id:
            return
        if do_not_proxy:
            hint = None if leader == NOBODY else (leader, self.endpoints[leader], epoch)
            raise FakeRefusal("NOT_LEADER", f"{leader} leads", retry_safe=True, leader=hint)
        if leader not in self.alive:
            raise FakeRefusal("PARTITION_OFFLINE", "nobody leads", retry_safe=True)
        if not quietly:
            self.proxied[broker.broker_id] = self.proxied.get(broker.broker_id, 0) + 1

    def told(self, broker: FakeBroker, topics: list[str]) -> metadata_pb2.ClusterMetadata:
        """Return the cluster as a broker tells it."""
        cluster = metadata_pb2.ClusterMetadata(
            cluster_id="c", revision=self.revision, served_by=broker.broker_id
        )
        for number in sorted(self.registered):
            cluster.brokers.add(broker_id=number, endpoint=self.endpoints.get(number, ""))
        for name in topics:
            told, topic = cluster.topics.add(topic=name), self.topics.get(name)
            if topic is None:
                told.error.CopyFrom(FakeRefusal("TOPIC_NOT_FOUND", f"no topic {name}").proto)
                continue
            told.topic_id = topic.topic_id
            for log in topic.partitions:
                leader, epoch = self.seen(broker, name, log.partition)
                told.partitions.add(
                    partition=log.partition, leader=leader, leader_epoch=epoch, replicas=[1]
                )
        return cluster
