"""A replica that serves nothing, and how it comes out of the way: it resigns, says so, and begins anew.

Where it was to lead it asks to be out of sync, so that another is elected. Where another leads it says
so until it is in no set out of which it could be elected, for what it said may be lost with a stream.
Then, if its data is damaged, it takes the steps of core.replication.refetching.
"""

from __future__ import annotations

from collections.abc import Mapping

from riverrun_server.core.cluster.values import PartitionValue
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.replication.isr import without_leader
from riverrun_server.core.replication.messages import Follow, Message, Refused
from riverrun_server.core.replication.refetching import Refetching, Step
from riverrun_server.core.replication.terms import Change, Registered, Terms
from riverrun_server.runtime.replication.outbox import Outbox


class Stopped:
    """What a replica does while it serves nothing.

    Transitions: not stopped <-> stopped (`begin`, `end`); the replica drives both.

    Args:
        partition: of what.
        me: this broker.
        broker_epoch: of this process.
        outbox: takes what is to be sent and asked for.
        terms: times and bounds.

    Attributes:
        why: what was found; None while the replica is not stopped.
        refetching: on its way back; lives as long as the process, for it counts.
    """

    def __init__(
        self, partition: PartitionId, me: int, broker_epoch: int, outbox: Outbox, terms: Terms
    ) -> None:
        self.why: str | None = None
        self.refetching = Refetching(me, terms)
        self._partition = partition
        self._me = me
        self._broker_epoch = broker_epoch
        self._outbox = outbox
        self._terms = terms
        self._resign_at = 0.0

    def begin(self, why: str, *, damaged: bool) -> None:
        """Serve nothing any more; what is damaged may be thrown away later."""
        self.why = why
        if damaged:
            self.refetching.begin()

    def end(self, now: float) -> None:
        """Learn that the damaged data is thrown away."""
        self.why = None
        self.refetching.ended(now)

    def act(
        self,
        value: PartitionValue,
        revision: int,
        registered: Mapping[int, Registered],
        now: float,
    ) -> None:
        """Do what is due.

        Args:
            value: the newest known of the partition.
            revision: at which that was written.
            registered: by broker id.
            now: in seconds.
        """
        if (value.leader, value.leader_broker_epoch) == (self._me, self._broker_epoch):
            self._resign(value, revision, registered.get(self._me), now)
        leader = registered.get(value.leader)
        match self.refetching.next_step(value, leader, now):
            case Step.TELL:
                self.tell(value.leader, value.leader_epoch)
            case Step.SETTLE:
                assert leader is not None, value
                change = self.refetching.settling(value, revision, leader)
                self._outbox.propose(self._partition, change)
            case Step.ASK:
                nothing = Follow(self._partition, value.leader_epoch, 0, None)
                self._outbox.send(value.leader, nothing)

    def tell(self, broker: int, leader_epoch: int) -> None:
        """Say that nothing here can be served."""
        refused = Refused(self._partition, leader_epoch, Reason.PARTITION_OFFLINE)
        self._outbox.send(broker, refused)

    def is_answered(
        self, value: PartitionValue, sender: int, sender_epoch: int, message: Message
    ) -> bool:
        """Return whether a message is the one of the leader after which the data may go."""
        is_leader = (sender, sender_epoch) == (value.leader, value.leader_broker_epoch)
        return is_leader and self.refetching.may_throw_away(value, message)

    def _resign(
        self, value: PartitionValue, revision: int, here: Registered | None, now: float
    ) -> None:
        if here is None or not any(map(here.is_life, value.isr)):
            return
        resigned = without_leader(value, self._me)
        if resigned is not None and now >= self._resign_at:
            self._resign_at = now + self._terms.retry_s
            self._outbox.propose(self._partition, Change(resigned, revision))


def not_served(name: str, me: int, why: str | None, value: PartitionValue | None) -> Refusal:
    """Return what a client is told where a replica does not lead.

    Args:
        name: of the partition.
        me: this broker.
        why: what stopped the replica; None where another broker leads, or is to.
        value: the newest known of the partition.
    """
    if why is not None:
        return Refusal(Reason.PARTITION_OFFLINE, f"{name} is offline on this broker: {why}")
    leader = "none" if value is None else f"broker {value.leader}"
    return Refusal(
        Reason.NOT_LEADER,
        f"{name} is not led by broker {me}, the metadata names {leader}; refresh the metadata and "
        "send to the leader",
    )
