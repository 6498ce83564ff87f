"""What the replicas of a broker want done: messages sent, changes of the metadata, a sync."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from riverrun_server.core.cluster import keys
from riverrun_server.core.cluster.steps import Guard, Step, Write
from riverrun_server.core.cluster.values import Id
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.replication.messages import Envelope, Message, Push
from riverrun_server.core.replication.terms import Change

# So much is gathered at once: reading it may mean the disk.
_GATHERED_BYTES_MAX: Final = 8 << 20
# An envelope stays within a frame of 4 MiB; one batch has at most 3.
_ENVELOPE_BYTES_MAX: Final = 3 << 20
_ENVELOPE_MESSAGES_MAX: Final = 1_000


class Outcome(enum.Enum):
    """What became of a change that was asked for."""

    APPLIED = "written"
    REFUSED = "not written: a key stands at another revision"
    UNKNOWN = "nobody knows"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A change of a partition's value, and what it insists on."""

    partition: PartitionId
    change: Change

    @property
    def step(self) -> Step:
        """The transaction: each replica that joins must be registered as it was when it was judged."""
        topic_id, number = self.partition
        key = keys.partition(Id(topic_id), number)
        guards = (Guard(keys.broker(broker), at) for broker, at in self.change.guards)
        return Step((Write(key, self.change.value, self.change.mod_revision), *guards))


@dataclass(slots=True)
class Outbox:
    """What is to be sent and asked for; emptied by whoever carries it out.

    Attributes:
        dirty: partitions of which something was written that no sync has proved, in order.
    """

    _messages: dict[int, list[Message]] = field(default_factory=dict)
    _proposals: list[Proposal] = field(default_factory=list)
    _hungry: dict[PartitionId, Callable[[], None]] = field(default_factory=dict)
    _gathered_bytes: int = 0
    dirty: dict[PartitionId, None] = field(default_factory=dict)

    def touch(self, partition: PartitionId) -> None:
        """Have what was written of a partition synced."""
        self.dirty[partition] = None

    @property
    def has_more(self) -> bool:
        """Whether followers wait to be fed."""
        return bool(self._hungry)

    def send(self, to: int, message: Message) -> None:
        """Send a message to a broker, behind the earlier ones."""
        self._gathered_bytes += _size(message)
        self._messages.setdefault(to, []).append(message)

    def propose(self, partition: PartitionId, change: Change) -> None:
        """Ask for a change of the metadata."""
        self._proposals.append(Proposal(partition, change))

    def feed_later(self, partition: PartitionId, feed: Callable[[], None]) -> None:
        """Have the followers of a partition fed before the messages are taken: once for many appends."""
        self._hungry[partition] = feed

    def take_envelopes(self, sender: int, sender_epoch: int) -> list[Envelope]:
        """Return, and forget, what is to be sent, in envelopes that each fit a frame.

        Followers are fed until enough is gathered; the rest stays for the next call (`has_more`).
        """
        while self._hungry and self._gathered_bytes < _GATHERED_BYTES_MAX:
            self._hungry.pop(next(iter(self._hungry)))()
        self._gathered_bytes = 0
        messages, self._messages = self._messages, {}
        return [
            Envelope(sender, sender_epoch, to, part)
            for to, each in messages.items()
            for part in _parts(each)
        ]

    def take_proposals(self) -> list[Proposal]:
        """Return, and forget, all changes that were asked for."""
        proposals, self._proposals = self._proposals, []
        return proposals


def _size(message: Message) -> int:
    return sum(len(each.data) for each in message.batches) if isinstance(message, Push) else 0


def _parts(messages: list[Message]) -> Iterator[tuple[Message, ...]]:
    part: list[Message] = []
    size = 0
    for message in messages:
        data = _size(message)
        if part and (size + data > _ENVELOPE_BYTES_MAX or len(part) == _ENVELOPE_MESSAGES_MAX):
            yield tuple(part)
            part, size = [], 0
        part.append(message)
        size += data
    yield tuple(part)
