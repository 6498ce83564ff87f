"""A whole simulated cluster: brokers, store, network, clients, faults, and the checks over all of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from riverrun_server.core.cluster import keys
from riverrun_server.core.cluster.changes import TopicPolicy
from riverrun_server.core.cluster.values import (
    BrokerRegistration,
    Durability,
    Id,
    PartitionValue,
    Replica,
)
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.ports.metadata import Event
from riverrun_server.ports.partitions import Acks
from tests.sim.cluster.broker import Surroundings
from tests.sim.cluster.clients import Consumer, Producer
from tests.sim.cluster.disk import SimDisk
from tests.sim.cluster.history import History
from tests.sim.cluster.invariants import Invariants, Violation
from tests.sim.cluster.metadata import SimMetadata
from tests.sim.cluster.nemesis import Fault, Nemesis, plan
from tests.sim.cluster.network import Network
from tests.sim.cluster.options import Options, draw
from tests.sim.cluster.requests import Fetched
from tests.sim.cluster.slot import Slot
from tests.sim.cluster.topics import Topics
from tests.sim.cluster.world import World

# The producers of a partition: what they wait for, or that they try each batch once.
_PRODUCERS = (
    ("all",),
    ("all", "once"),
    ("all", "all"),
    ("all", "leader"),
    ("all", "leader"),
    ("all", "none"),
    ("if", "if once"),
    ("all", "if", "if once"),
)
_ACKS = {"leader": Acks.LEADER, "none": Acks.NONE}
_PARTITIONS_MAX = 6
_BEGIN_S = 2.0
# A run in which nothing did harm tells nothing: it goes on in rounds of this length, closer together.
FAULTS_MIN = 3
_MORE_S = 5.0
_MORE_GAP_S = 0.5
# What does harm to any cluster, whatever else a run is made for.
_MORE_KINDS = ("isolated_broker", "pause", "power_cut")
_MORE_UNTIL_S = 90.0
_HEAL_WITHIN_S = 60.0


class Cluster:
    """Everything of one run.

    Args:
        seed: fixes everything.
        options: drawn from the seed where they are not given.
        faults: the plan; drawn from the seed where it is not given.
    """

    def __init__(
        self, seed: int, options: Options | None = None, faults: Sequence[Fault] | None = None
    ) -> None:
        self.options = options = options or draw(seed)
        self.world = World(seed)
        self.network = Network(self.world)
        self.store = SimMetadata(self.world, self.network, self._committed)
        self.history = History()
        self.policy = TopicPolicy()
        self.topics = Topics(self.store, self.policy, options, seed)
        ids = range(1, options.brokers + 1)
        self.disks = {broker: SimDisk(self.world, broker) for broker in ids}
        self.invariants = Invariants(self.disks, self.history, lambda: self.world.now_s)
        around = Surroundings(
            self.world,
            self.network,
            self.store,
            self.invariants,
            self.policy,
            options.terms,
            options.tail_bytes,
            options.snapshot_interval_bytes,
            self._report,
        )
        self.slots = {broker: Slot(around, broker, self.disks[broker]) for broker in ids}
        self.nemesis = Nemesis(self)
        self.partitions: list[PartitionId] = []
        self.producers: list[Producer] = []
        self.consumers: list[Consumer] = []
        self._clients = self.world.dice("clients")
        self._client_count = 0
        # None where the plan is given: then it is carried out, and no more.
        self._dice = self.world.dice("faults") if faults is None else None
        if self._dice is not None:
            end_s = _BEGIN_S + options.faults_s
            faults = plan(self._dice, _BEGIN_S, end_s, options.kinds, options.mean_gap_s)
        self.faults = list(faults or ())

    # The run.

    def run(self) -> None:
        """Begin, let everything go wrong, heal, and see that everything comes to rest.

        Raises:
            Violation: something happened that must never happen.
        """
        for slot in self.slots.values():
            slot.start()
        self._until(_BEGIN_S - 0.8)
        self.topics.make()
        self._until(_BEGIN_S - 0.5)
        self._follow_topic()
        self._go_wrong()
        for slot in self.slots.values():
            slot.start()
        self._until(self.world.now_s + 1.5)
        for producer in self.producers:
            producer.stop()
        self._come_to_rest()
        for slot in self.slots.values():
            slot.disk.repair()  # what nobody came across
        self.invariants.at_rest()
        self._check_producers()
        for consumer in self.consumers:
            log = self.invariants.partitions[consumer.partition].log
            if unseen := self.history.unseen(consumer.partition, consumer.name, log):
                raise Violation("unseen", consumer.partition, f"{consumer.name} never got {unseen}")

    def _go_wrong(self) -> None:
        """Carry out the plan, in rounds that each end with everything healed, until enough did harm."""
        begin_s, end_s = 0.0, _BEGIN_S + self.options.faults_s
        while True:
            self.nemesis.schedule([each for each in self.faults if begin_s <= each.at_s < end_s])
            self._until(end_s)
            self.nemesis.heal()
            begin_s, end_s = end_s, end_s + _MORE_S
            if self._dice is None:
                if all(each.at_s < begin_s for each in self.faults):
                    return
            elif self.nemesis.counts.total() >= FAULTS_MIN or begin_s > _MORE_UNTIL_S:
                return
            else:
                kinds = (*self.options.kinds, *_MORE_KINDS)
                self.faults += plan(self._dice, begin_s, end_s, kinds, _MORE_GAP_S)

    def _until(self, at_s: float) -> None:
        self.world.run(at_s, self.invariants.look)

    def _follow_topic(self) -> None:
        """Start clients of the partitions that the topic has now, and stop those of the others."""
        partitions = self.topics.partitions
        for producer in [each for each in self.producers if each.partition not in partitions]:
            producer.abandon()
            self.producers.remove(producer)
        for consumer in [each for each in self.consumers if each.partition not in partitions]:
            consumer.stop()
            self.consumers.remove(consumer)
        new = [each for each in partitions if each not in self.partitions]
        self.partitions[:] = partitions
        for partition in new:
            self._start_clients(partition)

    def _start_clients(self, partition: PartitionId) -> None:
        dice = self._clients
        for kind in self.options.producers or dice.choice(_PRODUCERS):
            self._client_count += 1
            producer = Producer(
                self.world,
                self.network,
                self,
                self.history,
                f"{kind}-{self._client_count}",
                partition,
                producer_id=0 if kind.endswith("once") else self._client_count,
                window=dice.choice((1, 3, 5)),
                acks=_ACKS.get(kind, Acks.ALL),
                conditional=kind.startswith("if"),
            )
            self.producers.append(producer)
            producer.start(self.options.produce_every_s)
        self._client_count += 1
        consumer = Consumer(
            self.world,
            self.network,
            self,
            self.history,
            f"consumer-{self._client_count}",
            partition,
            self.invariants.delivered,
        )
        self.consumers.append(consumer)
        consumer.start()

    def _come_to_rest(self) -> None:
        """Wait until all is as it should be.

        Raises:
            Violation: it does not become so.
        """
        give_up_s = self.world.now_s + _HEAL_WITHIN_S
        while unrest := self._unrest():
            if self.world.now_s >= give_up_s:
                raise Violation("liveness", None, f"{_HEAL_WITHIN_S:.0f} s after: {unrest}")
            self._restore()
            self._until(self.world.now_s + 0.5)

    def _restore(self) -> None:
        """Put back, as an operator does, the damaged data of those that are the only ones who have it."""
        for partition in self.partitions:
            value = self.value(partition)
            slot = self.slots[value.leader]
            others = [each for each in (*value.isr, *value.elr) if each.broker != value.leader]
            if not others and slot.broker.is_stopped(partition) and slot.disk.repair():
                self.world.note(slot.id, "restored")
                slot.kill()
                slot.start()

    def _unrest(self) -> str | None:
        """Return what is not yet as it should be, or None."""
        for partition in self.partitions:
            value = self.value(partition)
            missing = set(value.replicas) - {replica.broker for replica in value.isr}
            if missing:
                return f"brokers {sorted(missing)} are not in the ISR of {partition}: {value}"
            if not self._is_registered(value):
                return f"{partition} is led by nobody who is there: {value}"
            is_relaxed = self.topics.is_relaxed
            if value.durability is not (Durability.RELAXED if is_relaxed else Durability.FSYNC):
                return f"{partition} counts appends as {value.durability.value}"
            if value.leader != value.replicas[0]:
                return f"{partition} is led by broker {value.leader}, not by its first replica"
            slot = self.slots[value.leader]
            if (unrest := slot.broker.unrest(partition)) is not None:
                return unrest
        if tombstones := [each.key for each in self.store.scan("tombstones/").entries]:
            return f"not deleted yet: {tombstones}"
        for producer in self.producers:
            if not producer.idle:
                return f"{producer.name} has batches without an outcome"
        for consumer in self.consumers:
            end = self.invariants.partitions[consumer.partition].log.end
            if consumer.position < end:
                return f"{consumer.name} is at {consumer.position}, {end} is committed"
        return None

    def _report(self, witness: int, broker: int, epoch: int | None) -> None:
        """Tell the controller that a broker refuses connections (its process), or answers (None)."""
        found = self.slots[witness].session.image.controller
        if found is None:
            return
        controller = found.value.broker_id

        def handle() -> None:
            control = self.slots[controller].broker.control
            if control is not None and epoch is None:
                control.answers(witness, broker)
            elif control is not None and epoch is not None:
                control.refuses(witness, broker, epoch)

        self.network.call(witness, controller, handle, lambda answer: None, 1.0)

    def _check_producers(self) -> None:
        """What every replica knows of producers is what the records say, deleted ones included."""
        for partition in self.partitions:
            expected: dict[int, tuple[int, int]] = {}
            for record in self.invariants.partitions[partition].log.records():
                if record.producer_id:
                    expected[record.producer_id] = (record.producer_epoch, record.sequence)
            for broker in self.value(partition).replicas:
                known = self.slots[broker].broker.producers(partition)
                if known != expected:
                    raise Violation(
                        "producers",
                        partition,
                        f"broker {broker} knows {known} of producers, the records say {expected}",
                    )

    # What the store says.

    def value(self, partition: PartitionId) -> PartitionValue:
        """Return a partition's value as it stands."""
        entry = self.store.get(keys.partition(Id(partition.topic_id), partition.partition))
        assert entry is not None, partition
        return entry.value

    def _committed(self, revision: int, events: tuple[Event, ...]) -> None:
        for event in events:
            self.world.note("store", "commit", revision, event.key, _short(event))
            parsed = keys.parse(event.key)
            if event.entry is None:
                self._erased(parsed)
                continue
            if isinstance(parsed, keys.BrokerKey):
                self._fenced(parsed.broker_id, is_fenced=event.entry.value.fenced)
            elif isinstance(parsed, keys.TombstoneKey):
                self.invariants.confirmed(parsed.topic_id, event.entry.value.pending)
            elif isinstance(parsed, keys.PartitionKey):
                value = event.entry.value
                partition = PartitionId(bytes(parsed.topic_id), parsed.partition)
                if event.entry.version == 1:
                    self.invariants.watch(partition, unclean=self.options.unclean)
                self.invariants.value_committed(
                    partition, value, is_registered=self._is_registered(value)
                )

    def _erased(self, parsed: keys.Key | None) -> None:
        if isinstance(parsed, keys.TopicKey):
            for partition in self.partitions:
                self.invariants.forget(partition)
        elif isinstance(parsed, keys.TombstoneKey):
            self.invariants.confirmed(parsed.topic_id, ())

    def _fenced(self, broker: int, *, is_fenced: bool) -> None:
        if is_fenced:
            self.invariants.fenced_s.setdefault(broker, self.world.now_s)
        else:
            self.invariants.fenced_s.pop(broker, None)

    def _is_registered(self, value: PartitionValue) -> bool:
        entry = self.store.get(keys.broker(value.leader))
        if entry is None:
            return False
        found: BrokerRegistration = entry.value
        epoch = found.broker_epoch or entry.mod_revision
        return not found.fenced and epoch == value.leader_broker_epoch

    def events(self) -> Counter[str]:
        """Return how often what is worth having happened did."""
        kinds = self.world.trace.kinds()
        names = (
            "leads",
            "cuts its log",
            "plan",
            "proposal",
            "start",
            "lease expired",
            "stops",
            "throws away",
            "restored",
            "dropped",
        )
        counts = Counter({name: kinds.get(name, 0) for name in names})
        counts["losses"] = len(self.history.losses)
        counts["resets"] = sum(len(each.resets) for each in self.consumers)
        counts["sent again"] = sum(max(0, each.attempts - 1) for each in self.history.sends)
        return counts

    # What clients ask.

    def ids(self) -> list[int]:
        """Return the brokers that a client may know of."""
        return sorted(self.slots)

    def leader(self, asked: int, partition: PartitionId) -> int | None:
        """Return who leads a partition, as a broker knows it."""
        of_topic = self.slots[asked].session.image.partitions.get(Id(partition.topic_id), {})
        found = of_topic.get(partition.partition)
        return None if found is None else found.value.leader

    def fetch(
        self, broker: int, partition: PartitionId, position: int, last_epoch: int | None
    ) -> Fetched:
        """Read from a broker."""
        return self.slots[broker].broker.fetch(partition, position, last_epoch)

    def latest(self, broker: int, partition: PartitionId) -> int | None:
        """Ask a broker for the latest offset."""
        return self.slots[broker].broker.latest(partition)

    # What faults ask.

    def leader_of(self, partition: PartitionId) -> int:
        """Return who leads a partition, as the metadata store has it."""
        return self.value(partition).leader

    def may_lose(self, broker: int) -> bool:
        """Whether a disk may be lost without a promise being broken.

        What is committed is on min ISR disks, so one fewer of those that may be elected can be lost
        at a time; and whoever is not among them has nothing to lose.
        """
        if self.options.unclean:
            return True
        return all(self._bears(partition, 0, broker) for partition in self.partitions)

    def _bears(self, partition: PartitionId, min_isr: int, broker: int | None = None) -> bool:
        """Whether so many disks of a partition are whole that it bears the loss of those that are not.

        Args:
            partition: of which.
            min_isr: what will be asked for; 0 is what is asked for now.
            broker: one that is to be lost beside the others.
        """
        value = self.value(partition)
        members = (*value.isr, *value.elr)
        if broker is not None and all(replica.broker != broker for replica in members):
            return True
        lost = {each.broker for each in members if not self._is_whole(each, partition, value)}
        if broker is not None:
            lost.add(broker)
        asked = min_isr or min(self.topics.min_isr, self.invariants.partitions[partition].min_isr)
        return not lost or (len(lost) < asked and len(lost) < len(members))

    def _is_whole(self, replica: Replica, partition: PartitionId, value: PartitionValue) -> bool:
        disk = self.disks[replica.broker]
        if disk.incarnations.of(value.durability) != replica.incarnation:
            return False
        stored = disk.store.stored(partition, durable=True)
        return stored is None or not any(each in disk.damaged for each in stored.batches)

    def corrupt(self, broker: int, partition: PartitionId) -> bool:
        """Flip a bit in a batch; return whether there was one."""
        return self.disks[broker].corrupt(partition) is not None

    def scrub(self, broker: int, partition: PartitionId) -> None:
        """Have a broker read all that it stores of a partition."""
        if self.slots[broker].is_running:
            self.slots[broker].broker.scrub(partition)

    def change_min_isr(self, min_isr: int) -> bool:
        """Change what a topic asks for; return whether it was another number."""
        unborne = not all(self._bears(each, min_isr) for each in self.partitions)
        if unborne and not self.options.unclean:
            return False
        return self.topics.change_min_isr(min_isr)

    def change_class(self) -> bool:
        """Change whether a topic is durable; only where it may lose what was not, and goes on then."""
        return self.options.unclean and self.topics.change_class()

    def make_anew(self) -> bool:
        """Delete the topic and make one of the same name; return whether that could be."""
        is_new = self._is_known() and self.topics.make_anew()
        self._follow_topic()
        return is_new

    def _is_known(self) -> bool:
        """Whether every disk is the one that the metadata know.

        On others nobody makes a partition: it would count on replicas that are lost already.
        """
        entries = [
            (self.store.get(keys.broker(broker)), disk) for broker, disk in self.disks.items()
        ]
        return all(
            entry is not None and entry.value.incarnations.fsync == disk.incarnations.fsync
            for entry, disk in entries
        )

    def grow(self) -> bool:
        """Give the topic one more partition; return whether that could be."""
        has_room = len(self.partitions) < _PARTITIONS_MAX
        has_grown = has_room and self._is_known() and self.topics.grow()
        self._follow_topic()
        return has_grown

    def trim(self, partition: PartitionId, share: float) -> bool:
        """Have a leader delete a share of what is committed; return whether it did."""
        slot = self.slots[self.leader_of(partition)]
        return slot.is_running and slot.broker.trim(partition, share)


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one run."""

    seed: int
    steps: int
    faults: Counter[str]
    events: Counter[str]
    acknowledged: int
    checks: int
    violation: Violation | None
    cluster: Cluster


def simulate(
    seed: int, options: Options | None = None, faults: Sequence[Fault] | None = None
) -> Result:
    """Run a seed to its end, or to what must never happen."""
    cluster = Cluster(seed, options, faults)
    violation = None
    try:
        cluster.run()
    except Violation as found:
        violation = found
    except Exception as found:  # of the machines: they end a process, and must never be
        rule = "assertion" if isinstance(found, AssertionError) else "exception"
        violation = Violation(rule, None, f"{type(found).__name__}: {found}")
        violation.__cause__ = found
    return Result(
        seed,
        cluster.world.steps,
        cluster.nemesis.counts,
        cluster.events(),
        cluster.history.acknowledged(),
        cluster.invariants.checks,
        violation,
        cluster,
    )


def _short(event: Event) -> str:
    value = None if event.entry is None else event.entry.value
    if isinstance(value, PartitionValue):
        isr = [replica.broker for replica in value.isr]
        elr = [replica.broker for replica in value.elr]
        return (
            f"leader={value.leader} epoch={value.leader_epoch} process={value.leader_broker_epoch} "
            f"isr={isr} elr={elr} min={value.min_isr} v={value.partition_epoch}"
        )
    if isinstance(value, BrokerRegistration):
        return f"epoch={value.broker_epoch} fenced={value.fenced} draining={value.draining}"
    return "gone" if value is None else type(value).__name__
