"""A consumer's membership of its group: what it was told that it has, and in which epoch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from riverrun._core.lease import Lease
from riverrun._core.records import TopicPartition


class Member(NamedTuple):
    """Who a consumer is in its group.

    Attributes:
        member_id: the member.
        token: lets another stream go on for it.
        session_timeout_s: how long it may be silent.
        revocation_timeout_s: how long it may take to give a partition up.
    """

    member_id: str
    token: bytes
    session_timeout_s: float
    revocation_timeout_s: float


class Membership:
    """What a member of a group has, as its gateways tell it, one after the other.

    Transitions: out -> member (`joined`) -> out (`expired`) ...
    Transitions of a partition: coming (`begun`) -> had (`assigned`) -> revoking (`revoking`) -> gone
    (`given_up`); from each of them -> gone (`lost`, `expired`, or `begun` where a new stream says that it is).

    Attributes:
        member: who it is; None while it is none.
        epoch: the newest that it was told; what is read from now on is committed under it.
        has_begun: whether the stream of now has told everything that it has.
        lease: how long it has that for certain.
    """

    def __init__(self) -> None:
        self.member: Member | None = None
        self.epoch = 0
        self.has_begun = False
        self.lease = Lease()
        self._coming: set[TopicPartition] = set()
        self._had: dict[TopicPartition, int] = {}
        self._revoking: set[TopicPartition] = set()

    @property
    def is_placed(self) -> bool:
        """Whether it was told of everything that it has where that begins."""
        return self.has_begun and not self._coming

    @property
    def is_complete(self) -> bool:
        """Whether all that it was told to have is there, and nothing of it is to go."""
        return self.is_placed and not self._revoking

    @property
    def committer(self) -> tuple[str, int] | None:
        """Who commits, and as of which epoch; None while it is no member."""
        return None if self.member is None else (self.member.member_id, self.epoch)

    def joined(self, member: Member) -> None:
        """Take that a stream speaks for it; what it has is told next."""
        self.member = member
        self.has_begun = False
        self.lease.confirmed(0, member.session_timeout_s)
        self._coming.clear()

    def begun(self, epoch: int, partitions: Iterable[TopicPartition]) -> list[TopicPartition]:
        """Take everything that it has; return what it had and has not any more."""
        everything = set(partitions)
        self._reached(epoch)
        self.has_begun = True
        self._coming = everything - self._revoking
        gone = [each for each in self._had if each not in everything]
        self.lost(epoch, gone)
        return gone

    def assigned(self, epoch: int, given: Mapping[TopicPartition, int]) -> list[TopicPartition]:
        """Take partitions; return those that it has had without a break.

        Args:
            epoch: the member's.
            given: each with the epoch in which it was given.
        """
        self._reached(epoch)
        self._coming.difference_update(given)
        kept = [each for each, at in given.items() if self._had.get(each) == at]
        self._had.update(given)
        return kept

    def revoking(self, epoch: int, partitions: Iterable[TopicPartition]) -> list[TopicPartition]:
        """Take what it is to give up; return what of it is news."""
        self._reached(epoch)
        news = [each for each in partitions if each not in self._revoking]
        self._revoking.update(news)
        self._coming.difference_update(news)
        return news

    def given_up(self, partitions: Collection[TopicPartition]) -> list[TopicPartition]:
        """Note what it is through with; return what of it was still to be given up."""
        found = [each for each in partitions if each in self._revoking]
        self._revoking.difference_update(found)
        for each in found:
            self._had.pop(each, None)
        return found

    def lost(self, epoch: int, partitions: Iterable[TopicPartition]) -> None:
        """Take what it has no longer."""
        self._reached(epoch)
        for each in partitions:
            self._had.pop(each, None)
            self._revoking.discard(each)
            self._coming.discard(each)

    def expired(self) -> list[TopicPartition]:
        """Take that it is a member no more; return what it had."""
        had = [*self._had]
        self.member = None
        self.epoch = 0
        self.has_begun = False
        self.lease.ended()
        self._had.clear()
        self._revoking.clear()
        self._coming.clear()
        return had

    def _reached(self, epoch: int) -> None:
        self.epoch = max(self.epoch, epoch)
