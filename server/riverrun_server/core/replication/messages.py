"""What brokers say to each other about the partitions they replicate.

A follower asks to be fed from its log end (`Follow`) and says which leader epoch its last record is
of. The leader feeds it (`Push`), or says where the two logs part (`Diverged`), or that its log no
longer reaches back so far (`Restart`). What a follower has on its disk it acknowledges (`Acked`).

Every message carries the leader epoch it was said in; said in another one than the receiver's, it is
refused or dropped (KIP-320). Messages of one stream keep their order. Those of an older stream may
still come after those of a newer one, so each can be judged by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from riverrun_server.core.errors import Reason
from riverrun_server.core.log.batch import PartitionId, StoredBatch
from riverrun_server.core.log.epochs import EpochEntry


@dataclass(frozen=True, slots=True)
class Follow:
    """Follower to leader: feed me from my log end on.

    Sent on becoming a follower, on a new stream, after each truncation, and when a push did not fit.

    Attributes:
        partition: of what.
        leader_epoch: in which it follows.
        log_end: where its log ends.
        last_epoch: the leader epoch of its last record; None where it has none.
    """

    partition: PartitionId
    leader_epoch: int
    log_end: int
    last_epoch: int | None


@dataclass(frozen=True, slots=True)
class Diverged:
    """Leader to follower: your last record is not in my log (KIP-279).

    The follower truncates to `end_offset`, or to the end of its own largest epoch that is at most
    `epoch` if that comes first, and asks again, in rounds until both agree.

    Attributes:
        partition: of what.
        leader_epoch: of the leader.
        epoch: the leader's largest epoch that is at most the follower's last one.
        end_offset: where that epoch ends in the leader's log.
        asked_epoch: the follower's `last_epoch` that this answers; an answer to an older question
            is not one to the newest.
    """

    partition: PartitionId
    leader_epoch: int
    epoch: int
    end_offset: int
    asked_epoch: int | None


@dataclass(frozen=True, slots=True)
class Restart:
    """Leader to follower: your log ends before mine begins, or has no record; begin where mine does.

    Attributes:
        partition: of what.
        leader_epoch: of the leader.
        log_start: where the first batch that the leader has begins.
        epochs: the leader epochs that begin before it, as far as the leader knows them.
        snapshot: the leader's producers at an offset that is not above its high watermark, as
            (offset, bytes); None where the log begins at 0.
    """

    partition: PartitionId
    leader_epoch: int
    log_start: int
    epochs: tuple[EpochEntry, ...]
    snapshot: tuple[int, bytes] | None


@dataclass(frozen=True, slots=True)
class Push:
    """Leader to follower: what comes next in the log, and what is committed.

    A follower whose log does not end at `base_offset` with a record of `previous_epoch` does not
    take the batches: with the same epoch at the same offset everything before is the same.

    Attributes:
        partition: of what.
        leader_epoch: of the leader; batches may be of older ones.
        previous_epoch: the leader epoch of the record before `base_offset`; None where the leader
            does not have that record any more.
        batches: as stored; there may be none, then only the rest is news.
        high_watermark: of the leader.
        log_start: the leader's first offset.
        probe: the leader's count of the moments that it remembers.
        base_offset: where the batches begin, also where there are none.
    """

    partition: PartitionId
    leader_epoch: int
    previous_epoch: int | None
    batches: tuple[StoredBatch, ...]
    high_watermark: int
    log_start: int
    probe: int
    base_offset: int


@dataclass(frozen=True, slots=True)
class Acked:
    """Follower to leader: this much, and that I accepted this leader epoch, is on my disk.

    Attributes:
        partition: of what.
        leader_epoch: that was accepted.
        durable_end: everything below it is on the follower's disk.
        probe: the newest one that had come before that sync began.
    """

    partition: PartitionId
    leader_epoch: int
    durable_end: int
    probe: int


@dataclass(frozen=True, slots=True)
class Refused:
    """Either way: a message was not taken.

    Attributes:
        partition: of what.
        leader_epoch: the current one of who refuses.
        reason: FENCED_LEADER_EPOCH (the message's is older), UNKNOWN_LEADER_EPOCH (the message's is
            newer; who refuses has yet to learn of it, ask again), NOT_LEADER, PARTITION_OFFLINE, or
            CORRUPT_DATA (a pushed batch fails its checksum).
    """

    partition: PartitionId
    leader_epoch: int
    reason: Reason


Message = Follow | Diverged | Restart | Push | Acked | Refused


@dataclass(frozen=True, slots=True)
class Envelope:
    """Messages about many partitions from one broker's process to another broker, in order.

    Attributes:
        sender: a broker id.
        sender_epoch: the broker epoch of the sender's process.
        to: a broker id.
        messages: at least one.
    """

    sender: int
    sender_epoch: int
    to: int
    messages: tuple[Message, ...]
