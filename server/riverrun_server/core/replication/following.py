"""One partition that is followed here, in one leader epoch: where the logs part, and what may be written.

Intuition: first both logs are made to agree, then what comes is written as it comes. Where they part
is found by leader epochs, never by high watermarks (KIP-101), in rounds until both know the same
epoch at the same place (KIP-279). It decides; whoever drives it truncates, writes and tells.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

from riverrun_server.core.log.batch import PartitionId, StoredBatch
from riverrun_server.core.log.epochs import EPOCHS_LOST_MAX, EpochMap
from riverrun_server.core.log.partition import PartitionMachine
from riverrun_server.core.replication.messages import Acked, Diverged, Follow, Push, Restart

# So often a leader that does not know yet that it leads is asked again at once.
_HURRIES: Final = 10


class FollowingState(enum.Enum):
    """How far the two logs are known to agree."""

    HANDSHAKE = "asked where the logs part"
    TRUNCATING = "something is being deleted"
    FOLLOWING = "the log is a prefix of the leader's"
    STOPPED = "the log cannot be trusted"


class Taken(NamedTuple):
    """What a push leads to.

    Attributes:
        batches: to be written, in order, at the log end.
        fits: the log is a prefix of the leader's, so the rest of the push holds too.
        ask: something is missing in between; ask again.
    """

    batches: tuple[StoredBatch, ...] = ()
    fits: bool = False
    ask: bool = False


class Following:
    """One partition as its follower sees the leader.

    Invariants: nothing is deleted that is known to be committed, unless data was lost in the election;
    nothing of the leader's own epoch is ever deleted; nothing is acknowledged before the logs agree.

    Transitions:
        handshake -> truncating (`diverged`, `restart`) -> handshake (`ask`)
        handshake -> following (`pushed`, what fits)
        following -> handshake (`ask`: a gap, silence, a new stream; `pause`: a write that failed)
        any -> stopped (`stop`), for good

    Args:
        partition: what is followed.
        leader_epoch: in which.
        machine: of the log.
        epochs: of the log.
        retry_s: before a question that was not answered is asked again; three times that without
            a word from the leader is silence.

    Attributes:
        state: how far the logs are known to agree.
        probe: the leader's newest that came.
        committed: the leader's high watermark, which may lie behind this log's end.
        log_start: the leader's.
        why_stopped: what was found, once it is stopped.
    """

    def __init__(
        self,
        partition: PartitionId,
        leader_epoch: int,
        machine: PartitionMachine,
        epochs: EpochMap,
        retry_s: float,
    ) -> None:
        self.state = FollowingState.HANDSHAKE
        self.leader_epoch = leader_epoch
        self.why_stopped = ""
        self.probe = 0
        self.committed = 0
        self.log_start = 0
        self._partition = partition
        self._machine = machine
        self._epochs = epochs
        self._retry_s = retry_s
        self._agreed = False  # once in this epoch: then the log stays a prefix of the leader's
        self._asked_at = float("-inf")
        self._heard_at = float("-inf")
        self._acked = (-1, -1)
        self._hurries = _HURRIES

    @property
    def last_epoch(self) -> int | None:
        """The leader epoch of the last record, not of the last leadership: that may have none."""
        return self._epochs.epoch_at(self._machine.log_end - 1)

    def ask(self, now: float) -> Follow:
        """Ask to be fed from the log end."""
        assert self.state is not FollowingState.STOPPED, self.why_stopped
        self.state = FollowingState.HANDSHAKE
        self._asked_at = now
        return Follow(self._partition, self.leader_epoch, self._machine.log_end, self.last_epoch)

    def is_overdue(self, now: float) -> bool:
        """Return whether it is time to ask again: no answer came, or nothing at all."""
        match self.state:
            case FollowingState.HANDSHAKE:
                return now - self._asked_at >= self._retry_s
            case FollowingState.FOLLOWING:
                return now - self._heard_at >= 3 * self._retry_s
            case _:
                return False

    def diverged(self, message: Diverged) -> int | None:
        """Return where to truncate to; None where there is nothing to do.

        An offset below the log start means that nothing of the log can be kept.
        """
        last, machine = self.last_epoch, self._machine
        if self.state is not FollowingState.HANDSHAKE or self._agreed:
            return None
        if message.asked_epoch != last:
            return None
        mine = self._epochs.end_offset_for(message.epoch, machine.log_end)
        target = min(message.end_offset, mine.end_offset)
        if target >= machine.log_end:
            return None
        if last == self.leader_epoch:
            self.stop(
                f"it ends at offset {machine.log_end} with records of leader epoch {last}, and the "
                f"leader of that epoch says that it ends at {message.end_offset}"
            )
            return None
        if target < machine.high_watermark and not self._loss_was_accepted(last):
            self.stop(
                f"the leader of epoch {self.leader_epoch} has a log that departs from this one at "
                f"offset {target}, and offsets below {machine.high_watermark} are committed"
            )
            return None
        self.state = FollowingState.TRUNCATING
        return target

    def restart(self, message: Restart) -> bool:
        """Return whether to throw the log away: it ends before the leader's begins, or has no record."""
        if self.state in (FollowingState.TRUNCATING, FollowingState.STOPPED):
            return False
        has_some = self._agreed or self.last_epoch is not None
        if self._machine.log_end > message.log_start and has_some:
            return False  # said to a log that has grown since
        self.state = FollowingState.TRUNCATING
        return True

    def pushed(self, message: Push, now: float) -> Taken:
        """Return what of a push to write."""
        if self.state in (FollowingState.TRUNCATING, FollowingState.STOPPED):
            return Taken()
        self._heard_at = now
        end, last = self._machine.log_end, self.last_epoch
        batches = message.batches
        if message.base_offset < end and self._agreed:
            # Sent twice, around a new stream.
            batches = tuple(each for each in batches if each.next_offset > end)
            fits = not batches or batches[0].base_offset == end
        else:
            fits = message.base_offset == end and (
                self._agreed or last is None or last == message.previous_epoch
            )
        if not fits:
            return Taken(ask=self.state is FollowingState.FOLLOWING)
        self.state = FollowingState.FOLLOWING
        self._agreed = True
        self.probe = max(self.probe, message.probe)
        self.committed = max(self.committed, message.high_watermark)
        self.log_start = max(self.log_start, message.log_start)
        return Taken(batches, fits=True)

    def ack(self, probe: int) -> Acked | None:
        """Return what to acknowledge once a sync has ended; None where it is not news.

        Args:
            probe: the newest that had come when that sync began.
        """
        if not self._agreed or self.state is FollowingState.STOPPED:
            return None
        news = (self._machine.durable_end, probe)
        if news == self._acked:
            return None
        self._acked = news
        return Acked(self._partition, self.leader_epoch, *news)

    def refused(self) -> None:
        """Learn that the leader does not know yet that it leads; it will in a moment.

        If not, it is cut off from the metadata store, and there is no need to hurry.
        """
        if self._hurries > 0:
            self._hurries -= 1
            self._asked_at = float("-inf")

    def pause(self, now: float) -> None:
        """Learn that a push could not be written; what follows it has a gap before it."""
        self.state = FollowingState.HANDSHAKE
        self._asked_at = now

    def stop(self, why: str) -> None:
        """Trust the log no more."""
        self.state = FollowingState.STOPPED
        self.why_stopped = why

    def _loss_was_accepted(self, last: int | None) -> bool:
        """Return whether the election may have been one with loss, which skips many epochs.

        Who missed as many elections as that takes any for one; only this check is lost by it.
        """
        return last is None or self.leader_epoch - last > EPOCHS_LOST_MAX
