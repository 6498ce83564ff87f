"""Drives a broker's replicas on the event loop: what they want done is done once for each turn of it.

Everything that happens is handed to the replicas at once; what they want sent, asked for and synced
is carried out behind it, together for all that happened in the same turn.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol

import structlog

from riverrun_server.core.cluster.image import ClusterImage
from riverrun_server.core.cluster.steps import Step
from riverrun_server.core.cluster.values import Id
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.replication.messages import Envelope
from riverrun_server.ports.metadata import MetadataUnavailable, StoreEnded, UnknownOutcome
from riverrun_server.ports.partitions import Append
from riverrun_server.runtime.flusher import Flusher
from riverrun_server.runtime.metadata_writer import PlanOutdated
from riverrun_server.runtime.replication.figures import ReplicaFigures, add_up
from riverrun_server.runtime.replication.outbox import Outcome, Proposal
from riverrun_server.runtime.replication.replica import Replica
from riverrun_server.runtime.replication.replica_log import SyncPoint
from riverrun_server.runtime.replication.replicas import Replicas

TICK_S: Final = 0.25

_log = structlog.stdlib.get_logger(__name__)


class Writer(Protocol):
    """Who carries out changes of the metadata; see MetadataWriter."""

    async def commit(self, steps: Iterable[Step]) -> int:
        """Apply steps in order; return the revision of the last one."""
        ...


class ReplicationDriver:
    """Implements ports.peers.PeerEvents, and what a flusher tells of syncs.

    Attributes:
        isr_shrinks: how often a replica left those in sync of a partition that is led here.
        isr_expands: how often one joined them.

    Args:
        replicas: what is driven.
        flusher: makes what they write durable.
        writer: carries out the changes of the metadata that they ask for.
        send: takes an envelope for another broker.
        now: the monotonic clock, in seconds.
        deadline: until when this broker's session with the metadata store is known to hold.
    """

    def __init__(
        self,
        replicas: Replicas,
        flusher: Flusher,
        writer: Writer,
        send: Callable[[Envelope], None],
        now: Callable[[], float],
        deadline: Callable[[], float] = lambda: float("-inf"),
    ) -> None:
        self._replicas = replicas
        self._flusher = flusher
        self._writer = writer
        self._send = send
        self._now = now
        self._deadline = deadline
        self._is_due = False
        self._failure: Exception | None = None
        self.isr_shrinks = self.isr_expands = 0
        self._asking: dict[PartitionId, asyncio.Task[None]] = {}
        self._watchers: dict[PartitionId, Callable[[], None]] = {}
        self._touched: set[PartitionId] = set()

    async def run(self) -> None:
        """Tell the replicas the time, evenly, until cancelled.

        Raises:
            Exception: a bug, wherever it showed.
        """
        while True:
            if self._failure is not None:
                raise self._failure
            self._replicas.lease(self._deadline())
            self._replicas.tick(self._now())
            self._touched.update(self._watchers)
            self.carry_out_soon()
            await asyncio.sleep(TICK_S)

    async def close(self) -> None:
        """Ask for nothing any more; what was asked for may yet happen."""
        asking = list(self._asking.values())
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    def watch(self, partition: PartitionId, changed: Callable[[], None]) -> None:
        """Call `changed` whenever more of a partition may be committed, or its role another one."""
        self._watchers[partition] = changed

    def unwatch(self, partition: PartitionId) -> None:
        """Take a `watch` back."""
        self._watchers.pop(partition, None)

    # Which replicas there are.

    def prepare(self, partition: PartitionId) -> Replica:
        """Return a new replica; `recover` it, in a thread perhaps, and `adopt` it.

        Raises:
            StorageError: the disk could not take it just now.
        """
        return self._replicas.prepare(partition)

    def adopt(self, replica: Replica) -> None:
        """Drive a replica that has been recovered; the next `update` gives it its role."""
        self._replicas.adopt(replica)

    def forget(self, partition: PartitionId, why: str) -> None:
        """Drive a replica no more."""
        self._replicas.forget(partition, why)
        self.carry_out_soon()

    def figures(self) -> ReplicaFigures:
        """Return what the replicas add up to."""
        return add_up(self._replicas)

    def leaders(self) -> set[int]:
        """Return the brokers that are followed here, or asked for what a damaged replica lacks."""
        return {each.follows for each in self._replicas if each.follows is not None}

    # What happens.

    def update(self, image: ClusterImage, topic_ids: Iterable[Id] | None = None) -> None:
        """Bring the replicas in line with the metadata, those of some topics or all."""
        self._replicas.update(image, self._now(), topic_ids)
        self._touched.update(self._watchers)
        self.carry_out_soon()

    def append(self, partition: PartitionId, append: Append) -> None:
        """Append a batch; never raises, the answer comes through `append.done`."""
        replica = self._replicas.find(partition)
        if replica is None:
            refusal = Refusal(
                Reason.NOT_LEADER,
                f"this broker holds no replica of {partition}; refresh the metadata and send to the "
                "leader",
            )
            append.refuse(refusal)
            return
        replica.append(append, self._now())
        self._touched.add(partition)
        self.carry_out_soon()

    def receive(self, envelope: Envelope) -> None:
        """Take what another broker says."""
        with self._failing():
            self._replicas.receive(envelope, self._now())
        self._touched.update([message.partition for message in envelope.messages])
        self.carry_out_soon()

    def connected(self, broker: int) -> None:
        """Learn that a new stream leads to a broker."""
        with self._failing():
            self._replicas.connected(broker, self._now())
        self.carry_out_soon()

    def disconnected(self, broker: int) -> None:
        """Learn that the stream has ended on which a broker followed."""
        with self._failing():
            self._replicas.disconnected(broker)

    def sync_point(self) -> list[SyncPoint]:
        """Say what the replicas have written, for a sync begins now."""
        return self._replicas.sync_points()

    def synced(self, points: list[SyncPoint]) -> None:
        """Learn that what had been written at these points is on the disk."""
        self._replicas.synced(points, self._now())
        self._touched.update([point.partition for point in points])
        self.carry_out_soon()

    # What follows.

    def carry_out_soon(self) -> None:
        """Carry out what the replicas want done, at the end of this turn of the loop."""
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._carry_out_now)

    def _carry_out_now(self) -> None:
        self._is_due = False
        with self._failing():
            self._carry_out()

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """Have a bug end `run`, and so the process: whoever calls here can do nothing about it."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - as told
            self._failure = self._failure or error

    def _carry_out(self) -> None:
        work = self._replicas.take()
        for envelope in work.envelopes:
            self._send(envelope)
        for proposal in work.proposals:
            self._propose(proposal)
        if self._replicas.is_dirty:
            self._flusher.touch(self)
        if work.more:
            self.carry_out_soon()
        touched, self._touched = self._touched, set()
        for partition in touched:
            if (changed := self._watchers.get(partition)) is not None:
                changed()

    def _propose(self, proposal: Proposal) -> None:
        """Ask for a change, unless another of the same partition is being asked for."""
        partition = proposal.partition
        if partition in self._asking:
            # Asked for once more while the store is slow: this one was never sent.
            self._learn(proposal, Outcome.REFUSED)
            return
        task = asyncio.create_task(self._ask(proposal), name="change of an ISR")
        self._asking[partition] = task
        task.add_done_callback(lambda _: self._asking.pop(partition))

    async def _ask(self, proposal: Proposal) -> None:
        """Ask for a change of the metadata, and tell who wants it what became of that."""
        try:
            revision = await self._writer.commit((proposal.step,))
        except (UnknownOutcome, StoreEnded):
            # A store that has ended may have done it before.
            self._learn(proposal, Outcome.UNKNOWN)
        except (PlanOutdated, MetadataUnavailable):
            self._learn(proposal, Outcome.REFUSED)
        except Exception as error:  # noqa: BLE001 - a bug, which ends `run`
            self._learn(proposal, Outcome.UNKNOWN)
            self._failure = error
        else:
            self._count(proposal)
            isr = [each.broker for each in proposal.change.value.isr]
            _log.info("replicas in sync", partition=str(proposal.partition), brokers=isr)
            self._learn(proposal, Outcome.APPLIED, revision)

    def _count(self, proposal: Proposal) -> None:
        replica = self._replicas.find(proposal.partition)
        if replica is None or replica.leader is None:
            return
        before = len(replica.leader.core.insync.committed.isr)
        now = len(proposal.change.value.isr)
        self.isr_shrinks += now < before
        self.isr_expands += now > before

    def _learn(self, proposal: Proposal, outcome: Outcome, revision: int = 0) -> None:
        self._replicas.outcome(proposal, outcome, self._now(), revision=revision)
        self._touched.add(proposal.partition)
        self.carry_out_soon()
