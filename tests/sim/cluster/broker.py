"""One process of a simulated broker: it drives the real machines and carries out what they want done."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from riverrun_server.core.cluster import keys
from riverrun_server.core.cluster.changes import TopicPolicy
from riverrun_server.core.cluster.image import Touched
from riverrun_server.core.cluster.steps import Step, Write
from riverrun_server.core.cluster.topic_config import UncleanRecovery
from riverrun_server.core.cluster.values import BrokerRegistration, Id, TopicValue
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.log.hot_tail import TailBudget
from riverrun_server.core.replication.messages import Envelope, Follow, Message
from riverrun_server.core.replication.terms import Terms
from riverrun_server.ports.log import CorruptData, StorageError, StorageFull, StorageStalled
from riverrun_server.ports.metadata import TransactionResult
from riverrun_server.ports.partitions import Append, Appended
from riverrun_server.runtime.replication.outbox import Outcome, Proposal
from riverrun_server.runtime.replication.replica import Replica
from riverrun_server.runtime.replication.replica_log import ReplicaServices
from riverrun_server.runtime.replication.replicas import Replicas
from riverrun_server.wire.stored import scan_batch
from tests.sim.cluster.clock import BrokerClock
from tests.sim.cluster.control import Control
from tests.sim.cluster.deletions import Deletions
from tests.sim.cluster.disk import SimDisk
from tests.sim.cluster.invariants import Invariants
from tests.sim.cluster.metadata import SimMetadata
from tests.sim.cluster.network import Lost, Network, Stream
from tests.sim.cluster.peers import Peers
from tests.sim.cluster.reading import fetch
from tests.sim.cluster.requests import Fetched, Produce, Produced
from tests.sim.cluster.session import Session
from tests.sim.cluster.world import Life, Process, World

TICK_S = 0.2
_NOT_HERE = Reason.NOT_LEADER


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every broker of a cluster lives in.

    Attributes:
        report: carries to the controller that a broker finds another one refusing, or answering.
    """

    world: World
    network: Network
    store: SimMetadata
    invariants: Invariants
    policy: TopicPolicy
    terms: Terms
    tail_bytes: int
    snapshot_interval_bytes: int
    report: Callable[[int, int, int | None], None]


@dataclass(frozen=True, slots=True)
class Place:
    """What of a broker outlives its processes."""

    id: int
    disk: SimDisk
    clock: BrokerClock


class Broker:
    """One process: it feeds what happens to the machines and carries out what they want done.

    Args:
        around: what it lives in.
        place: its id, its disk and its clock.
        start: numbers the processes of a broker.
        failed: told when the disk has failed, and the process has to end.
    """

    def __init__(
        self, around: Surroundings, place: Place, start: int, failed: Callable[[], None]
    ) -> None:
        self.process = Process(f"{place.id}.{start}")
        self.control: Control | None = None
        self.replicas: Replicas | None = None
        self.deletions: Deletions | None = None
        self._around, self._place, self._start = around, place, start
        self._failed = failed
        self._is_syncing = False
        self._has_failed = False
        self._shown: dict[PartitionId, tuple[int, int]] = {}
        self._cuts: dict[PartitionId, int] = {}
        self._roles: dict[PartitionId, object] = {}
        around.network.attach(place.id, self)
        self.peers = Peers(around.world, around.network, self.process, place.id, self)
        self.session = Session(
            around.world,
            around.network,
            around.store,
            self.process,
            place.clock,
            place.id,
            start,
            self._registration,
            self._changed,
            self._ready,
        )

    # The metadata.

    def _registration(self, before: BrokerRegistration | None) -> BrokerRegistration:
        return BrokerRegistration(
            broker_id=self._place.id,
            incarnations=self._place.disk.incarnations,
            endpoints={},
            host=f"host-{self._place.id}",
            start_time_ms=self._start,
        )

    def _ready(self) -> None:
        around, place = self._around, self._place
        around.world.note(place.id, "registered", self.session.broker_epoch)
        around.invariants.rows(place.id)
        services = ReplicaServices(
            place.disk.store,
            TailBudget(around.tail_bytes),
            scan_batch,
            place.clock.wall_ms,
            self._fail,
            snapshot_interval_bytes=around.snapshot_interval_bytes,
            stopped=self._stopped,
            began_anew=self._began_anew,
        )
        self.replicas = Replicas(
            place.id, self.session.broker_epoch, services, around.terms, self._allows_loss
        )
        self.control = Control(
            self.session, around.store, place.clock, place.id, around.policy, around.world.note
        )
        self.deletions = Deletions(
            self.session, self.replicas, place.disk, place.id, around.world.note
        )
        self._update(None)
        self.control.look()
        self.deletions.look()
        self._tick()

    def drain(self) -> None:
        """Say in the metadata that this process is about to end; nothing comes of it if that fails."""
        found = self.session.image.brokers.get(self._place.id)
        if found is None or not self.session.broker_epoch:
            return
        value = dataclasses.replace(
            found.value, draining=True, broker_epoch=self.session.broker_epoch
        )
        step = Step((Write(keys.broker(self._place.id), value, found.mod_revision),))
        self.session.commit([step], lambda answer: None)

    def _allows_loss(self, topic: TopicValue) -> bool:
        return self._around.policy.config_of(topic).unclean_recovery is UncleanRecovery.ACCEPT

    def _changed(self, touched: Touched) -> None:
        if self.replicas is None or self.control is None or self.deletions is None:
            return
        topics: Iterable[Id] | None = None if touched.brokers else sorted(touched.topic_ids)
        self.replicas.lease(self.session.deadline_s)
        self._update(topics)
        self.control.look()
        self.deletions.look()
        self._carry_out()

    def _update(self, topics: Iterable[Id] | None) -> None:
        """Bring the replicas in line; where the disk takes no new one, try again in a while."""
        assert self.replicas is not None
        image = self.session.image
        try:
            self.replicas.open_missing(image, topics)
        except (StorageFull, StorageStalled):
            self.session.later(TICK_S, lambda: self._update(None))
        self.replicas.update(image, self._now(), topics)

    # The time and the disk.

    def _tick(self) -> None:
        assert self.replicas is not None
        self.replicas.lease(self.session.deadline_s)
        self.replicas.tick(self._now())
        self.session.later(TICK_S, self._tick)
        self._carry_out()

    def _now(self) -> float:
        return self._place.clock.monotonic()

    def _sync(self) -> None:
        assert self.replicas is not None
        assert self.deletions is not None
        if self._is_syncing:
            return
        points, dropped = self.replicas.sync_points(), self.deletions.take()
        if not points and dropped is None:
            return
        self._is_syncing = True

        def done(error: StorageError | None) -> None:
            self._is_syncing = False
            if error is not None:
                self._fail(error)
                return
            assert self.replicas is not None
            assert self.deletions is not None
            self.replicas.synced(points, self._now())
            if dropped is not None:
                self.deletions.synced(dropped)
            self._carry_out()

        self._place.disk.begin_sync(done, self.process)

    def _fail(self, error: StorageError) -> None:
        """End: nobody knows what is on the disk."""
        self._has_failed = True
        self._around.world.note(self._place.id, "disk failed", error)

        self._around.world.after(0.0, self._failed, process=self.process)

    # What the machines want done.

    def _carry_out(self) -> None:
        """Show what is committed, send, ask, sync: after everything that was told to the machines."""
        if self.replicas is None or self._has_failed:
            return
        for replica in self.replicas:
            self._show(replica)
        work = self.replicas.take()
        for envelope in work.envelopes:
            self._around.invariants.sent(envelope)
            self.peers.send(envelope)
        for proposal in work.proposals:
            self._propose(proposal)
        self._sync()
        self.peers.follow({each.follows for each in self.replicas if each.follows is not None})

    def _show(self, replica: Replica) -> None:
        """Tell the invariants of a high watermark that others will now see."""
        role = replica.leader or replica.follower
        if self._roles.get(replica.partition, False) is not role:
            self._roles[replica.partition] = role
            self._note_role(replica)
        cuts = replica.log._cuts
        if cuts != self._cuts.get(replica.partition, 0):
            self._cuts[replica.partition] = cuts
            self._around.world.note(
                self.process.name,
                "cuts its log",
                replica.partition.partition,
                f"end={replica.log.machine.log_end}",
            )
            self._around.invariants.rows(self._place.id)
        if replica.leader is None:
            return
        shown = (replica.leader.core.leader_epoch, replica.log.machine.high_watermark)
        if self._shown.get(replica.partition) == shown:
            return
        self._shown[replica.partition] = shown
        self._around.world.note(self.process.name, "shows", replica.partition.partition, *shown)
        self._around.invariants.watermark(
            self._place.id, self.process.name, replica.partition, *shown
        )

    def _note_role(self, replica: Replica) -> None:
        name = "leads" if replica.leader else "follows" if replica.follower else "holds"
        self._around.world.note(
            self.process.name,
            name,
            replica.partition.partition,
            f"epoch={replica.leader_epoch} end={replica.log.machine.log_end}",
            replica.why_stopped or "",
        )

    def _stopped(self, partition: PartitionId, why: str) -> None:
        self._around.world.note(self.process.name, "stops", partition.partition, why)
        self._around.invariants.stopped(self._place.id, partition, why)

    def _began_anew(self, partition: PartitionId, times: int) -> None:
        self._around.world.note(self.process.name, "throws away", partition.partition, times)
        self._around.invariants.threw_away(self._place.id, self.process.name, partition)

    def _propose(self, proposal: Proposal) -> None:
        def done(answer: object) -> None:
            assert self.replicas is not None
            outcome, revision = Outcome.REFUSED, 0
            if answer is Lost.LOST:
                outcome = Outcome.UNKNOWN
            elif isinstance(answer, TransactionResult) and answer.succeeded:
                outcome, revision = Outcome.APPLIED, answer.revision
            self._around.world.note(self.process.name, "proposal", outcome.name, revision)
            self.replicas.outcome(proposal, outcome, self._now(), revision=revision)
            self._carry_out()

        self.session.commit([proposal.step], done)

    # What other brokers say (a driver of Peers).

    def connected(self, broker: int) -> None:
        """A stream to a leader is open."""
        if self.replicas is not None:
            self._around.report(self._place.id, broker, None)
            self.replicas.connected(broker, self._now())
            self._carry_out()

    def disconnected(self, broker: int) -> None:
        """The stream of a follower is gone."""
        if self.replicas is not None:
            self.replicas.disconnected(broker)
            self._carry_out()

    def refused(self, broker: int) -> None:
        """A leader's port refuses connections."""
        found = self.session.image.brokers.get(broker)
        if found is not None:
            epoch = found.value.broker_epoch or found.mod_revision
            self._around.report(self._place.id, broker, epoch)

    def opened(self, stream: Stream) -> None:
        """Somebody has opened a stream to here."""
        self.peers.opened(stream)

    def broken(self, stream: Stream) -> None:
        """A stream is gone."""
        self.peers.broken(stream)

    def received(self, stream: Stream, payload: object) -> None:
        """Something has arrived."""
        if isinstance(payload, Produce):
            self._produce(stream, payload)
        elif self.replicas is not None:
            assert isinstance(payload, Envelope), payload
            self.replicas.lease(self.session.deadline_s)
            self.replicas.receive(payload, self._now())
            self._carry_out()

    def leads(self, message: Message) -> bool:
        """Whether a message is one that a leader sends."""
        replica = self.replicas.find(message.partition) if self.replicas else None
        return (
            replica is not None and replica.leader is not None and not isinstance(message, Follow)
        )

    # What clients ask.

    def _produce(self, stream: Stream, request: Produce) -> None:
        replica = self.replicas.find(request.partition) if self.replicas else None
        if replica is None:
            stream.send(self._place.id, Produced(request.tag, reason=_NOT_HERE))
            return

        role = replica.leader

        def done(answer: Appended) -> None:
            if self._has_failed:
                return
            if answer.error is not None:
                error = answer.error
                refused = Produced(
                    request.tag,
                    reason=error.reason,
                    expected_sequence=error.expected_sequence,
                    log_end=error.available[1] if error.available else None,
                )
                stream.send(self._place.id, refused)
                return
            self._show(replica)
            self._around.world.note(
                self.process.name, "acks", request.batch.values[0].decode(), answer.base_offset
            )
            assert role is not None
            self._around.invariants.acknowledged(
                self._place.id,
                request.partition,
                request.batch,
                request.acks,
                answer.base_offset,
                role.core.leader_epoch,
            )
            stream.send(self._place.id, Produced(request.tag, answer.base_offset, answer.duplicate))

        assert self.replicas is not None
        self.replicas.lease(self.session.deadline_s)
        batch = request.batch.incoming(self._place.clock.wall_ms())
        append = Append(batch, request.acks, done, request.expected_offset)
        replica.append(append, self._now())
        self._carry_out()

    def fetch(self, partition: PartitionId, position: int, last_epoch: int | None) -> Fetched:
        """Read what is committed."""
        replica = self.replicas.find(partition) if self.replicas else None
        if replica is None or self._has_failed:
            return Fetched(reason=_NOT_HERE)
        self._show(replica)
        fetched = fetch(replica, position, last_epoch)
        if fetched.reason is Reason.CORRUPT_DATA:
            self._found_damage(replica)
        return fetched

    def scrub(self, partition: PartitionId) -> None:
        """Read everything that is stored of a partition, as whoever looks for damage does."""
        replica = self.replicas.find(partition) if self.replicas else None
        if replica is None or self._has_failed or self.process.life is not Life.RUNNING:
            return
        try:
            replica.log.log.scan(0, 1 << 30)
        except CorruptData:
            self._found_damage(replica)

    def _found_damage(self, replica: Replica) -> None:
        replica.stop("a read has found damage")
        self._carry_out()

    def latest(self, partition: PartitionId) -> int | None:
        """Return the latest offset; None where that is not known here."""
        replica = self.replicas.find(partition) if self.replicas else None
        if replica is None or replica.leader is None or self._has_failed:
            return None
        try:
            offset = replica.latest_offset(self._now())
        except Refusal:
            return None
        epoch = replica.leader.core.leader_epoch
        self._around.invariants.latest(self._place.id, partition, epoch)
        return offset

    def trim(self, partition: PartitionId, share: float) -> bool:
        """Delete a share of what is committed."""
        replica = self.replicas.find(partition) if self.replicas else None
        if replica is None or replica.leader is None or self.process.life is not Life.RUNNING:
            return False
        machine = replica.log.machine
        target = machine.log_start + int(share * (machine.high_watermark - machine.log_start))
        if target <= machine.log_start:
            return False
        log = self._around.invariants.partitions[partition].log
        self._show(replica)
        log.deleted_below = max(log.deleted_below, target)
        self._around.world.note(self.process.name, "trims", partition.partition, target)
        replica.trim(target)
        self._carry_out()
        return True

    def is_stopped(self, partition: PartitionId) -> bool:
        """Return whether a replica serves nothing, for its data cannot be trusted."""
        replica = self.replicas.find(partition) if self.replicas else None
        return replica is not None and replica.why_stopped is not None

    def producers(self, partition: PartitionId) -> dict[int, tuple[int, int]] | None:
        """Return what is known of producers: their epochs and last sequences."""
        replica = self.replicas.find(partition) if self.replicas else None
        if replica is None:
            return None
        machine = replica.log.machine
        return {
            each.producer_id: (each.producer_epoch, each.last_sequence)
            for each in machine.producers.snapshot(machine.log_end).producers
        }

    def unrest(self, partition: PartitionId) -> str | None:
        """Return why a partition that is led here is not at rest, or None."""
        replica = self.replicas.find(partition) if self.replicas else None
        if replica is None or replica.leader is None:
            why = replica.why_stopped if replica else "no replica"
            return f"broker {self._place.id} does not lead {partition}: {why}"
        machine = replica.log.machine
        if machine.high_watermark < machine.log_end:
            return (
                f"{partition}: the high watermark is {machine.high_watermark}, the log ends at "
                f"{machine.log_end}"
            )
        return None
