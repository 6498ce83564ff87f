"""What must hold in a cluster after every event, judged by raw rows and by what was said to others.

The machines' own opinions are not asked. Who holds what is read from the disks; who leads, from the
metadata store; what counts as committed, from the high watermarks that brokers told anybody of.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from riverrun_server.core.cluster.values import Durability, PartitionValue, Replica
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.log.state import LogState
from riverrun_server.core.replication.messages import Acked, Envelope, Push
from riverrun_server.ports.partitions import Acks
from riverrun_server.storage.memory_image import StoredPartition
from tests.sim.cluster.batches import Batch
from tests.sim.cluster.committed import CommittedLog
from tests.sim.cluster.disk import SimDisk
from tests.sim.cluster.history import History, Loss
from tests.sim.cluster.raw_log import RawRecord, faults_of

# A lease and a confirmed probe each hold for 3 s by the leader's own clock.
STALE_S = 6.5


class Violation(AssertionError):
    """Something that must never happen has happened.

    Args:
        rule: a short name; minimising a failure keeps to it.
        partition: where, if it is about one.
        text: what exactly.
    """

    def __init__(self, rule: str, partition: PartitionId | None, text: str) -> None:
        super().__init__(f"{rule}: {text}")
        self.rule = rule
        self.partition = partition


@dataclass(slots=True)
class Watched:
    """What is known of one partition.

    Attributes:
        log: what is committed.
        value: as it stands in the metadata store.
        leaders: by leader epoch, the process that showed a high watermark in it.
        unclean: whether its policy accepts losses.
        min_isr: the smallest in the current leader epoch; a leader may not have heard of the newest.
        shown_s: when a high watermark was first shown in the newest leader epoch that showed one.
    """

    log: CommittedLog = field(default_factory=CommittedLog)
    value: PartitionValue | None = None
    leaders: dict[int, str] = field(default_factory=dict)
    unclean: bool = False
    min_isr: int = 1
    shown_s: tuple[int, float] = (-1, 0.0)


class Invariants:
    """Watches every partition of a cluster.

    Args:
        disks: of all brokers, by id.
        history: told of losses that were accepted.
        now_s: the true time.
    """

    def __init__(
        self,
        disks: Mapping[int, SimDisk],
        history: History,
        now_s: Callable[[], float],
    ) -> None:
        self.partitions: dict[PartitionId, Watched] = {}
        self._deleted: dict[bytes, set[int]] = {}
        self.fenced_s: dict[int, float] = {}
        self.checks = 0
        self._disks = disks
        self._history = history
        self._now_s = now_s
        self._watermarks: dict[tuple[str, PartitionId], int] = {}
        self._versions: dict[int, tuple[int, int]] = {}
        self._seen: dict[tuple[int, PartitionId], tuple[LogState | None, LogState | None]] = {}
        self._accepted: dict[tuple[Replica, PartitionId], int] = {}

    def watch(self, partition: PartitionId, *, unclean: bool = False) -> Watched:
        """Begin to watch a partition."""
        watched = self.partitions[partition] = Watched(unclean=unclean)
        return watched

    def forget(self, partition: PartitionId) -> None:
        """Watch a partition no more: its topic is deleted."""
        del self.partitions[partition]
        self._deleted.setdefault(partition.topic_id, set())

    def confirmed(self, topic_id: bytes, pending: Collection[int]) -> None:
        """The metadata say who still stores anything of a deleted topic; nobody else does, ever again."""
        if topic_id in self._deleted:
            self._deleted[topic_id] = set(self._disks).difference(pending)
            for broker in sorted(self._deleted[topic_id]):
                self._check_gone(broker)

    def _check_gone(self, broker: int) -> None:
        store = self._disks[broker].store
        for durable in (False, True):
            for partition in store.all_partitions(durable=durable):
                if broker in self._deleted.get(partition.topic_id, ()):
                    raise Violation(
                        "deleted-is-back",
                        partition,
                        f"broker {broker} has said that nothing of this topic is left, and stores it",
                    )

    # What was written.

    def look(self) -> None:
        """Look at every replica whose rows have changed since the last look."""
        for broker, disk in self._disks.items():
            version = disk.version
            if self._versions.get(broker) == version:
                continue
            self._versions[broker] = version
            if self._deleted:
                self._check_gone(broker)
            for partition in self.partitions:
                live = disk.store.stored(partition, durable=False)
                durable = disk.store.stored(partition, durable=True)
                states = (live.state if live else None, durable.state if durable else None)
                seen = self._seen.get((broker, partition), (None, None))
                if states[0] is seen[0] and states[1] is seen[1]:
                    continue
                self._seen[broker, partition] = states
                self.checks += 1
                self._look_at(broker, disk, partition, durable)

    def _look_at(
        self, broker: int, disk: SimDisk, partition: PartitionId, durable: StoredPartition | None
    ) -> None:
        if durable is not None:
            # A disk that acknowledged an epoch remembers it for as long as its data lives.
            life = (Replica(broker, disk.incarnations.fsync), partition)
            before, now = self._accepted.get(life, 0), durable.state.accepted_epoch
            if now < before:
                raise Violation(
                    "accepted-epoch-back",
                    partition,
                    f"broker {broker} had leader epoch {before} as accepted on its disk, now {now}",
                )
            self._accepted[life] = now
        self._check_member(partition, broker)

    def _check_member(self, partition: PartitionId, broker: int) -> None:
        """Every replica that may be elected holds everything that is committed, on its disk."""
        watched = self.partitions[partition]
        value = watched.value
        if value is None:
            return
        life = self._disks[broker].incarnations.of(value.durability)
        here = Replica(broker, life)
        if here not in value.isr and here not in value.elr:
            return
        stored = self._counted(broker, partition, value)
        if stored is None:
            difference = "nothing is stored" if watched.log.end else None
        else:
            difference = watched.log.difference(stored, damaged=self._disks[broker].damaged)
        if difference is not None:
            kind = "isr" if here in value.isr else "elr"
            raise Violation(
                f"{kind}-without-committed",
                partition,
                f"broker {broker} may lead {partition} and its disk lacks what is committed: "
                f"{difference}",
            )

    def _counted(
        self, broker: int, partition: PartitionId, value: PartitionValue
    ) -> StoredPartition | None:
        """Return the rows of a replica that count in the partition's durability class."""
        durable = value.durability is Durability.FSYNC
        return self._disks[broker].store.stored(partition, durable=durable)

    # What stands in the metadata store.

    def value_committed(
        self, partition: PartitionId, value: PartitionValue, *, is_registered: bool
    ) -> None:
        """A partition's value has changed.

        Args:
            partition: which.
            value: the new one.
            is_registered: the leader is registered with that broker epoch and not fenced.
        """
        watched = self.partitions.get(partition)
        if watched is None:
            return
        before, watched.value = watched.value, value
        if before is None or value.leader_epoch > before.leader_epoch:
            watched.min_isr = value.min_isr
        watched.min_isr = min(watched.min_isr, value.min_isr)
        self._check_value(partition, value)
        if before is not None:
            self._check_change(partition, before, value)
            if value.leader_epoch > before.leader_epoch:
                if not is_registered:
                    raise Violation(
                        "elected-the-dead",
                        partition,
                        f"broker {value.leader} was elected in epoch {value.leader_epoch} as process "
                        f"{value.leader_broker_epoch}, which is fenced or not the registered one",
                    )
                self._check_election(partition, watched, before, value)
        for broker in value.replicas:
            self._check_member(partition, broker)

    def _check_value(self, partition: PartitionId, value: PartitionValue) -> None:
        isr = [replica.broker for replica in value.isr]
        elr = [replica.broker for replica in value.elr]
        # A leader that finds damage, or whose disk takes nothing, leaves the ISR, and is named until
        # another is elected.
        disk = self._disks[value.leader]
        resigned = bool(disk.damaged or disk.store.refused)
        wrong = (
            (not isr, "the ISR is empty"),
            (value.leader not in isr and not resigned, "the leader is not in the ISR"),
            (len(set(isr)) < len(isr), "a broker is in the ISR twice"),
            (bool(set(isr) & set(elr)), "a broker is in the ISR and in the ELR"),
            (not set(isr) | set(elr) <= set(value.replicas), "not all of them are replicas"),
            (len(isr) >= value.min_isr and bool(elr), "the ELR outlived a full ISR"),
        )
        for is_wrong, text in wrong:
            if is_wrong:
                raise Violation("value", partition, f"{text}: {value}")

    def _check_change(
        self, partition: PartitionId, before: PartitionValue, value: PartitionValue
    ) -> None:
        led = (before.leader, before.leader_broker_epoch) == (
            value.leader,
            value.leader_broker_epoch,
        )
        wrong = (
            (value.leader_epoch < before.leader_epoch, "the leader epoch went back"),
            (value.partition_epoch <= before.partition_epoch, "the partition epoch did not grow"),
            (
                not led and value.leader_epoch == before.leader_epoch,
                "another leader, the same epoch",
            ),
        )
        for is_wrong, text in wrong:
            if is_wrong:
                raise Violation("value-change", partition, f"{text}: {before} became {value}")

    def _check_election(
        self,
        partition: PartitionId,
        watched: Watched,
        before: PartitionValue,
        value: PartitionValue,
    ) -> None:
        (leading,) = (each for each in value.isr if each.broker == value.leader)
        led = (before.leader, before.leader_broker_epoch)
        if leading.damaged() in before.isr:
            return  # likewise; it had found its data damaged, and reads it as another process
        recounted = before.durability is not value.durability
        if recounted and led == (value.leader, value.leader_broker_epoch):
            return  # the same data, counted otherwise; `_check_member` looks at what it has
        if leading in before.isr or leading in before.elr:
            return  # likewise
        if not watched.unclean:
            raise Violation(
                "unclean-election",
                partition,
                f"{leading} was elected and was neither in the ISR {before.isr} nor in the ELR "
                f"{before.elr}",
            )
        stored = self._counted(value.leader, partition, value) or StoredPartition()
        kept = watched.log.accept_loss(stored, self._disks[value.leader].damaged)
        self._history.losses.append(Loss(partition, self._now_s(), kept))

    # What was said.

    def watermark(
        self, broker: int, process: str, partition: PartitionId, leader_epoch: int, offset: int
    ) -> None:
        """A leader shows a high watermark: to readers, to followers, or by an acknowledgement."""
        watched = self.partitions.get(partition)
        if watched is None:
            return  # who has not heard yet that it is deleted goes on
        self.checks += 1
        known = self._watermarks.get((process, partition), 0)
        if offset < known:
            raise Violation(
                "watermark-back", partition, f"{process} showed {known} and then {offset}"
            )
        self._watermarks[process, partition] = offset
        leader = watched.leaders.setdefault(leader_epoch, process)
        if leader != process:
            raise Violation(
                "two-leaders",
                partition,
                f"{leader} and {process} both showed high watermarks in epoch {leader_epoch}",
            )
        if leader_epoch > watched.shown_s[0]:
            watched.shown_s = (leader_epoch, self._now_s())
        stored = self._disks[broker].store.stored(partition, durable=False)
        if stored is None:
            if offset:
                raise Violation("watermark", partition, f"{process} shows {offset} of nothing")
            return
        before = watched.log.end
        fault = watched.log.expose(stored, offset, self._disks[broker].damaged)
        if fault is not None:
            raise Violation(
                "committed-differs",
                partition,
                f"{process} shows everything below {offset} in epoch {leader_epoch}: {fault}",
            )
        if watched.log.end > before:
            self._check_copies(partition, watched, f"{process} in epoch {leader_epoch}")
            for each in watched.value.replicas if watched.value else ():
                self._check_member(partition, each)

    def _check_copies(self, partition: PartitionId, watched: Watched, who: str) -> None:
        """What is newly committed is on as many disks as the topic asks for.

        A disk that was replaced after it had acknowledged counts: its leader cannot know yet.
        """
        value, last = watched.value, watched.log.last_batch()
        assert value is not None, partition
        assert last is not None, partition
        base, data = last
        replaced = [
            replica.broker
            for replica in value.isr
            if self._disks[replica.broker].incarnations.of(value.durability) != replica.incarnation
        ]
        holders = replaced + [
            broker
            for broker in value.replicas
            if self._has(broker, self._counted(broker, partition, value), base, data)
        ]
        if len(holders) < watched.min_isr:
            raise Violation(
                "too-few-copies",
                partition,
                f"{who} calls everything below {watched.log.end} committed: on disk on brokers "
                f"{holders} only, min ISR is {watched.min_isr}",
            )

    def _has(self, broker: int, stored: StoredPartition | None, base: int, data: bytes) -> bool:
        if stored is None:
            return False
        place = bisect_left(stored.bases, base)
        if place == len(stored.bases) or stored.bases[place] != base:
            return False
        found = stored.batches[place]
        return self._disks[broker].damaged.get(found, found) == data

    def acknowledged(
        self,
        broker: int,
        partition: PartitionId,
        batch: Batch,
        acks: Acks,
        base_offset: int | None,
        leader_epoch: int,
    ) -> None:
        """A broker told a client that a batch was appended."""
        if partition not in self.partitions:
            return
        self.checks += 1
        self._check_leader(broker, partition, leader_epoch, "an acknowledgement")
        watched = self.partitions[partition]
        value = watched.value
        assert value is not None, partition
        if acks is Acks.NONE or base_offset is None:
            return
        if acks is Acks.LEADER:
            stored = self._counted(broker, partition, value)
            if stored is None or stored.state.log_end_offset < base_offset + len(batch.values):
                raise Violation(
                    "acked-unsynced",
                    partition,
                    f"broker {broker} acknowledged {batch.values[0].decode()} at {base_offset}, "
                    "which is not on its disk",
                )
            return
        for index, expected in enumerate(batch.values):
            at = base_offset + index
            self._check_committed(
                "acked-uncommitted", partition, at, expected, broker, "acknowledged"
            )

    def latest(self, broker: int, partition: PartitionId, leader_epoch: int) -> None:
        """A broker told a reader what the latest offset is."""
        if partition not in self.partitions:
            return
        self.checks += 1
        self._check_leader(broker, partition, leader_epoch, "a latest offset")

    def _check_leader(
        self, broker: int, partition: PartitionId, leader_epoch: int, what: str
    ) -> None:
        """Whoever was fenced long ago, and replaced, speaks for the partition no more.

        Not at once: until its lease and a confirmation of its epoch have run out it cannot know.
        """
        newest, shown_s = self.partitions[partition].shown_s
        now_s = self._now_s()
        fenced_s = self.fenced_s.get(broker, now_s)
        if leader_epoch < newest and max(shown_s, fenced_s) + STALE_S < now_s:
            raise Violation(
                "stale-leader",
                partition,
                f"broker {broker} gives {what} in epoch {leader_epoch}; it was fenced at "
                f"{fenced_s:.3f} s and epoch {newest} has committed since {shown_s:.3f} s",
            )

    def sent(self, envelope: Envelope) -> None:
        """A broker sends something to another one."""
        for message in envelope.messages:
            if message.partition not in self.partitions:
                continue
            if isinstance(message, Acked):
                self._check_acked(envelope.sender, message)
            elif isinstance(message, Push):
                watched = self.partitions[message.partition]
                if message.high_watermark > watched.log.end:
                    raise Violation(
                        "pushed-watermark",
                        message.partition,
                        f"broker {envelope.sender} pushes {message.high_watermark} as high "
                        f"watermark, {watched.log.end} is the largest that was shown",
                    )

    def _check_acked(self, broker: int, acked: Acked) -> None:
        self.checks += 1
        partition = acked.partition
        value = self.partitions[partition].value
        assert value is not None, partition
        stored = self._counted(broker, partition, value)
        # A disk without a row of the partition says as much as a row of zeros.
        state = stored.state if stored else LogState()
        if state.log_end_offset < acked.durable_end:
            raise Violation(
                "acked-without-sync",
                partition,
                f"broker {broker} acknowledges {acked.durable_end}, its disk ends at "
                f"{state.log_end_offset}",
            )
        if state.accepted_epoch != acked.leader_epoch:
            raise Violation(
                "acked-other-epoch",
                partition,
                f"broker {broker} acknowledges in leader epoch {acked.leader_epoch}, its disk says "
                f"that it accepted {state.accepted_epoch}",
            )

    def delivered(
        self, broker: int, partition: PartitionId, records: tuple[tuple[int, bytes], ...]
    ) -> None:
        """A broker hands records to a reader."""
        if partition not in self.partitions:
            return
        self.checks += 1
        for offset, value in records:
            self._check_committed(
                "delivered-uncommitted", partition, offset, value, broker, "delivered"
            )

    def _check_committed(
        self, rule: str, partition: PartitionId, offset: int, value: bytes, broker: int, did: str
    ) -> None:
        record = self.partitions[partition].log.at(offset)
        if record is None or record.value != value:
            raise Violation(
                rule,
                partition,
                f"broker {broker} {did} {value.decode(errors='replace')} at {offset}, where "
                f"{_name(record)} is committed",
            )

    def stopped(self, broker: int, partition: PartitionId, why: str) -> None:
        """A replica will serve nothing any more; only its own disk's damage is a reason for that."""
        if not self._disks[broker].damaged:
            raise Violation(
                "stopped-without-damage",
                partition,
                f"broker {broker} trusts its replica no more, on a disk without damage: {why}",
            )

    def threw_away(self, broker: int, process: str, partition: PartitionId) -> None:
        """A replica has thrown away what was damaged; nobody may count on it, now or later."""
        if partition not in self.partitions:
            return
        self.checks += 1
        value = self.partitions[partition].value
        assert value is not None, partition
        if any(each.broker == broker for each in (*value.isr, *value.elr)):
            raise Violation(
                "threw-away-eligible",
                partition,
                f"broker {broker} has thrown its data away and may be elected: {value}",
            )
        # Its log begins anew, and what it knows of the high watermark with it.
        self._watermarks.pop((process, partition), None)

    def rows(self, broker: int) -> None:
        """Look at all rows of a broker by themselves: when a process begins, or has cut a log."""
        disk = self._disks[broker]
        if disk.holds_damage():
            return
        for partition in self.partitions:
            self.checks += 1
            stored = disk.store.stored(partition, durable=False)
            for fault in () if stored is None else faults_of(stored):
                raise Violation("raw-log", partition, f"broker {broker}: {fault}")

    # In the end.

    def at_rest(self) -> None:
        """Everything has healed and come to rest: all replicas are the same, and whole."""
        for partition, watched in self.partitions.items():
            value = watched.value
            assert value is not None, partition
            rows: dict[int, StoredPartition] = {}
            for broker in value.replicas:
                stored = self._disks[broker].store.stored(partition, durable=False)
                if stored is None:
                    raise Violation("at-rest", partition, f"broker {broker} stores nothing of it")
                rows[broker] = stored
                for fault in faults_of(stored):
                    raise Violation("raw-log", partition, f"broker {broker}: {fault}")
                difference = watched.log.difference(stored, damaged=self._disks[broker].damaged)
                if difference is not None:
                    raise Violation("at-rest", partition, f"broker {broker}: {difference}")
            self._compare(partition, rows)
            for fault in self._history.faults(partition, watched.log):
                raise Violation("history", partition, fault)

    def _compare(self, partition: PartitionId, rows: dict[int, StoredPartition]) -> None:
        (first, one), *others = rows.items()
        for broker, other in others:
            begin = max(one.bases[:1] + other.bases[:1], default=0)
            mine = self._from(first, one, begin)
            theirs = self._from(broker, other, begin)
            if mine != theirs:
                raise Violation(
                    "replicas-differ", partition, f"brokers {first} and {broker} from {begin} on"
                )

    def _from(self, broker: int, stored: StoredPartition, begin: int) -> list[bytes]:
        damaged = self._disks[broker].damaged
        return [
            damaged.get(each, each) for each in stored.batches[bisect_left(stored.bases, begin) :]
        ]


def _name(record: RawRecord | None) -> str:
    return "nothing" if record is None else record.value.decode(errors="replace")
