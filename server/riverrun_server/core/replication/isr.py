"""Who is in sync: what the metadata says, and the one change of it that may be under way.

A change that was asked for may have happened although no answer came. So what is counted is always
the largest set that may be true: committed and pending together (KIP-497). A change whose outcome
is unknown stays pending until a newer value of the partition is seen, for the request may still be
on its way; `settle` is a change of nothing that forces such a value.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from riverrun_server.core.cluster.eligible import eligible
from riverrun_server.core.cluster.values import Durability, PartitionValue, Replica


class InSyncSet:
    """The replicas in sync of one partition in one leader epoch, as its leader counts them.

    Transitions:
        settled -> pending: `join`, `leave`, `become_durable`
        pending -> settled: `seen`, `not_applied`
        pending -> in doubt: `unknown`
        in doubt -> settled: `seen`, and nothing else

    Args:
        me: the leader's broker id; it never leaves.
        value: of the partition.
        revision: at which that was written.
    """

    def __init__(self, me: int, value: PartitionValue, revision: int) -> None:
        assert any(each.broker == me for each in value.isr), (me, value)
        self._me = me
        self.committed = value
        self.revision = revision
        self.pending: PartitionValue | None = None
        self.in_doubt = False

    @property
    def maximal(self) -> frozenset[Replica]:
        """Every replica that may be in sync as far as anybody may have decided."""
        pending = self.pending.isr if self.pending else ()
        return frozenset(self.committed.isr) | frozenset(pending)

    @property
    def electable(self) -> frozenset[Replica]:
        """Every replica that may be elected without loss as far as anybody may have decided."""
        pending = self.pending.elr if self.pending else ()
        return self.maximal | frozenset(self.committed.elr) | frozenset(pending)

    @property
    def is_too_small(self) -> bool:
        """Whether nothing may be committed: the committed set has fewer members than it must."""
        return len(self.committed.isr) < self.committed.min_isr

    def join(self, replica: Replica) -> PartitionValue | None:
        """Plan that a replica joins; None where it is in already or a change is pending."""
        if self.pending is not None or replica in self.committed.isr:
            return None
        # Another life of the same broker has not the data that this one has.
        others = [each for each in self.committed.isr if each.broker != replica.broker]
        return self._plan((*others, replica))

    def leave(
        self, behind: Collection[Replica], unfit: Collection[Replica] = ()
    ) -> PartitionValue | None:
        """Plan that replicas leave; None where that changes nothing or a change is pending.

        Args:
            behind: did not keep up; they may stay eligible.
            unfit: their data is damaged or gone; they may not.
        """
        leaving = {*behind, *unfit}
        assert all(each.broker != self._me for each in leaving), leaving
        value = self.committed
        isr = tuple(each for each in value.isr if each not in leaving)
        if self.pending is not None:
            return None
        if isr == value.isr and not any(each in unfit for each in value.elr):
            return None
        return self._plan(isr, unfit)

    def become_durable(self, lives: Collection[Replica]) -> PartitionValue | None:
        """Plan that the same replicas are kept as lives that outlast a crash; None where that must wait.

        Args:
            lives: of the members, as they count for that class.
        """
        value = self.committed
        assert {each.broker for each in lives} == {each.broker for each in value.isr}, lives
        if self.pending is not None or value.durability is not Durability.SYNCING:
            return None
        self.pending = dataclasses.replace(
            value,
            isr=tuple(lives),
            elr=(),
            durability=Durability.FSYNC,
            partition_epoch=value.partition_epoch + 1,
        )
        return self.pending

    def settle(self) -> PartitionValue | None:
        """Return a change of nothing but the partition epoch, where the last outcome is in doubt.

        Once that is written, a request of which nobody knows compares with a revision that is gone.
        """
        if not self.in_doubt:
            return None
        value = self.committed
        return dataclasses.replace(value, partition_epoch=value.partition_epoch + 1)

    def unknown(self) -> None:
        """Learn that nobody knows whether the pending change was written."""
        self.in_doubt = self.pending is not None

    def not_applied(self) -> None:
        """Learn that the pending change was refused; in doubt, that says nothing about earlier ones."""
        if not self.in_doubt:
            self.pending = None

    def seen(self, value: PartitionValue, revision: int) -> bool:
        """Take the value that stands at a revision; return False where it is not newer."""
        if revision <= self.revision:
            return False
        assert value.leader_epoch == self.committed.leader_epoch, (value, self.committed)
        self.committed, self.revision = value, revision
        self.pending, self.in_doubt = None, False
        return True

    def _plan(self, isr: tuple[Replica, ...], unfit: Collection[Replica] = ()) -> PartitionValue:
        value = self.committed
        stayed, left = eligible(value, isr, lambda each: each not in unfit)
        self.pending = dataclasses.replace(
            value, isr=isr, elr=(*left, *stayed), partition_epoch=value.partition_epoch + 1
        )
        return self.pending


def without_leader(
    value: PartitionValue, me: int, *, is_whole: bool = False
) -> PartitionValue | None:
    """Return a partition as its leader leaves it whose own data cannot be trusted any more.

    It stays named, for only the controller names another; out of the replicas in sync it is no leader
    to that, which elects one of those that remain. Where nobody else is in sync those are that have
    everything all the same: nothing was committed since they left (KIP-966). Where nobody has, a life
    remains that is nobody's, so that the partition counts as offline.

    Args:
        value: of the partition.
        me: the leader.
        is_whole: its data can be trusted, and it cannot lead; it stays eligible, and where nobody else
            could lead it is not left.

    Returns:
        The value to be written, or None where nothing is to be done.
    """
    remain = tuple(each for each in value.isr if each.broker != me)
    isr = remain or tuple(each for each in value.elr if each.broker != me)
    if len(remain) == len(value.isr):
        return None
    if not isr:
        if is_whole:
            return None
        isr = tuple(each.damaged() for each in value.isr)
    stayed, left = eligible(value, isr, lambda each: is_whole or each.broker != me)
    return dataclasses.replace(
        value, isr=isr, elr=(*stayed, *left), partition_epoch=value.partition_epoch + 1
    )
