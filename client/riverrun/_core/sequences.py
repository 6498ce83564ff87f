"""One partition's batches on their way: what to send next, again, or never.

A broker writes a batch only if its sequence continues the last one of the producer's epoch, and
answers one that it has already with the old offset. So a batch whose answer was lost is sent again
with the same sequence, in order, and what is behind a batch that is known not to be written cannot
be written either. Nothing that may have been written is ever given another sequence: that would
write it twice. (KIP-98, KIP-360; KAFKA-5494 for several batches in flight.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from riverrun._core.backoff import Backoff
from riverrun._core.lane_errors import (
    connection_lost,
    failed_before,
    lost_records,
    timed_out,
    told,
    too_large,
)
from riverrun._core.outgoing import OutgoingBatch, Resolution
from riverrun._core.records import TopicPartition
from riverrun.errors import ProducerFencedError, Reason, RetriableError, RiverrunError

EPOCH_MAX = (1 << 31) - 1

# Sent again because of what we sent, not of what the broker lacks.
_OUR_OWN = frozenset({Reason.OUT_OF_ORDER_SEQUENCE, Reason.UNKNOWN_PRODUCER})

Split = Callable[[OutgoingBatch], "tuple[OutgoingBatch, OutgoingBatch] | None"]
"""Makes two batches of one; None where it has one record."""


class PartitionLane:
    """The batches of one partition, in order, from acceptance to their resolution.

    A batch is queued, then in flight: it has a sequence and keeps it. In flight it either waits for
    an answer on the current stream (`tag` set) or to be sent (again). Transitions:

    - sent, written or duplicate: resolved.
    - sent, refused for now (definite): sent again after a delay, and all behind it after it.
    - sent, refused for good (definite): failed; all behind it start again in the next epoch, which
      they may because nothing of them can have been written.
    - sent, outcome unknown, or stream lost: doubtful. Sent again with the same sequence; without
      idempotence failed, outcome unknown, and with it all behind it.
    - deadline passed while doubtful: failed, outcome unknown, and with it all behind it; what comes
      later starts in the next epoch, which fences off what may still be under way.
    - deadline passed otherwise: failed, nothing happened; all behind it start again.

    After a failure nothing is sent until everything sent has been answered, so that an answer always
    means the newest append. So too before a lane goes to another broker's stream (`leaving`): what
    would arrive there first could otherwise be what was sent last.

    Args:
        partition: which.
        idempotent: whether batches carry sequences.
        window: how many batches may wait for their answers.
        backoff: delays between attempts.
        split: makes two batches of one that is too large.

    Attributes:
        trouble: why the broker does not take batches just now, as it said last.
        leaving: nothing is sent, for the lane goes elsewhere once everything sent is answered.
    """

    def __init__(
        self,
        partition: TopicPartition,
        *,
        idempotent: bool,
        window: int,
        backoff: Backoff,
        split: Split,
    ) -> None:
        self.partition = partition
        self.topic_id = b""
        self.window = window
        self.epoch = 0
        self.attempt = 0
        self.hold_until_s = 0.0
        self.trouble: RiverrunError | None = None
        self.leaving = False
        self.largest_accepted_bytes: int | None = None
        self.idempotent = idempotent
        self._backoff = backoff
        self._split = split
        self._queue: deque[OutgoingBatch] = deque()
        self._in_flight: list[OutgoingBatch] = []
        self._cursor = 0
        self._unanswered = 0
        self._settling = False
        self._cause_known = False
        self._next_sequence = 0
        self._restart_pending = False
        self._end: ProducerFencedError | None = None

    @property
    def unresolved(self) -> int:
        """How many batches are on their way."""
        return len(self._in_flight) + len(self._queue)

    @property
    def in_flight(self) -> int:
        """How many of them have been sent at least once."""
        return len(self._in_flight)

    @property
    def unanswered(self) -> int:
        """How many appends wait for their answer on the current stream."""
        return self._unanswered

    def batches(self) -> Iterable[OutgoingBatch]:
        """Iterate over them in order."""
        yield from self._in_flight
        yield from self._queue

    def add(self, batch: OutgoingBatch) -> list[Resolution]:
        """Take a batch behind all others; it fails at once where the producer is fenced."""
        if self._end is not None:
            return [Resolution(batch, None, self._end)]
        self._queue.append(batch)
        return []

    def sendable(self, now_s: float) -> bool:
        """Whether `send` would return a batch."""
        if self._unanswered and (self._settling or self._unanswered >= self.window):
            return False
        if self.leaving:
            return False
        if now_s < self.hold_until_s:
            return False
        if self._cursor < len(self._in_flight):
            return True
        if not self._queue or len(self._in_flight) >= self.window:
            return False
        return not (self._restart_pending and self._in_flight)

    def send(self, tag: int, now_s: float) -> OutgoingBatch:
        """Return the batch to send now, as `tag`; only where `sendable`."""
        assert self.sendable(now_s), "ask sendable first"
        if self._cursor == len(self._in_flight):
            self._in_flight.append(self._sequenced(self._queue.popleft()))
        batch = self._in_flight[self._cursor]
        self._cursor += 1
        self._unanswered += 1
        batch.tag = tag
        batch.attempts += 1
        batch.behind_gap = False
        return batch

    def answered(
        self,
        batch: OutgoingBatch,
        base_offset: int | None,
        error: RiverrunError | None,
        now_s: float,
    ) -> list[Resolution]:
        """Take the answer to the newest append of a batch."""
        assert batch.tag, "an answer was awaited"
        batch.tag = 0
        self._unanswered -= 1
        if error is None:
            self._remove(batch)
            self._backoff.reset()
            self.trouble = None
            resolutions = [Resolution(batch, base_offset, None)]
        else:
            self._settling = True
            resolutions = self._refused(batch, error, now_s)
        self._settle()
        return resolutions

    def stream_lost(self) -> list[Resolution]:
        """Reckon with a stream that broke: what awaits an answer may have been written."""
        for batch in self._in_flight:
            batch.doubtful = batch.uncertain
            batch.tag = 0
        self._unanswered = 0
        self._settling = True
        self._settle()
        self.attempt = 0
        if self.idempotent:
            return []
        for batch in self._in_flight:
            if batch.doubtful:
                return self._fail(batch, connection_lost(self.partition))
        return []

    def moved(self, now_s: float) -> None:
        """Reckon with another broker's stream: what was in the way at the last one counts no more.

        Where that has said that it does not lead, nothing is to be waited for. Else many have lost it
        in the same moment, and are not to come to the next one in the same moment.
        """
        assert not self._unanswered, "what was sent is answered, or given up, before a lane moves"
        self.leaving = False
        self._backoff.reset()
        refused = self.trouble is not None and self.trouble.reason is Reason.NOT_LEADER
        self.hold_until_s = now_s if refused else now_s + self._backoff.next_s()

    def expired(self, now_s: float, why: str) -> list[Resolution]:
        """Give up what has passed its deadline; `why` and the broker's last word end the text."""
        if self.trouble is not None:
            why += f"; the broker's last answer was: {self.trouble.message}"
        resolutions: list[Resolution] = []
        while (batch := self._first()) is not None and batch.deadline_s <= now_s:
            resolutions += self._fail(batch, timed_out(self.partition, why))
            self._settle()
        return resolutions

    def next_deadline_s(self) -> float | None:
        """When the oldest batch gives up."""
        batch = self._first()
        return None if batch is None else batch.deadline_s

    def abandon(self, error: RiverrunError) -> list[Resolution]:
        """Fail everything: the producer ends."""
        batches = [*self.batches()]
        resolutions = [Resolution(b, None, told(error, known=not b.uncertain)) for b in batches]
        for batch in batches:
            batch.tag = 0
        self._in_flight.clear()
        self._queue.clear()
        self._cursor = self._unanswered = 0
        return resolutions

    def _first(self) -> OutgoingBatch | None:
        if self._in_flight:
            return self._in_flight[0]
        return self._queue[0] if self._queue else None

    def _sequenced(self, batch: OutgoingBatch) -> OutgoingBatch:
        if self._restart_pending:
            assert not self._in_flight, "nothing unresolved may be left behind in the old epoch"
            assert self.epoch < EPOCH_MAX, "two thousand million failures are more than enough"
            self._restart_pending = False
            self.epoch += 1
            self._next_sequence = 0
        batch.epoch = self.epoch
        batch.base_sequence = self._next_sequence
        self._next_sequence += batch.record_count
        return batch

    def _remove(self, batch: OutgoingBatch) -> None:
        index = self._in_flight.index(batch)
        del self._in_flight[index]
        if index < self._cursor:
            self._cursor -= 1

    def _settle(self) -> None:
        """Once nothing awaits an answer, go back to the first batch in flight."""
        if not self._settling or self._unanswered:
            return
        self._settling = self._cause_known = False
        self._cursor = 0
        self.attempt += 1
        restarting = [batch for batch in self._in_flight if batch.restart]
        if restarting:
            self._restart_pending = self.idempotent
            self._in_flight = [batch for batch in self._in_flight if not batch.restart]
            for batch in restarting:
                batch.restart = batch.doubtful = batch.behind_gap = False
                batch.base_sequence = None
            self._queue.extendleft(reversed(restarting))

    def _refused(
        self, batch: OutgoingBatch, error: RiverrunError, now_s: float
    ) -> list[Resolution]:
        """Decide about a batch whose append was not answered with an offset."""
        if error.reason is Reason.PRODUCER_FENCED:
            return self._fenced(error)
        if batch.restart:
            # Given up in this epoch already; it only had to be answered.
            return []
        if error.reason is Reason.PRECEDING_FAILED:
            if not self._cause_known:
                self._hold(now_s, error)
            return []
        self._cause_known = True
        if error.reason is Reason.BATCH_TOO_LARGE and self._halve(batch):
            return []
        final = self._final_error(batch, error)
        if final is not None:
            self.trouble = None
            return self._fail(batch, final)
        if error.reason not in _OUR_OWN:
            self.trouble = error
        if self.idempotent and not batch.doubtful:
            for later in self._behind(batch):
                later.behind_gap = True
        self._hold(now_s, error)
        return []

    def _final_error(self, batch: OutgoingBatch, error: RiverrunError) -> RiverrunError | None:
        """Return why a refused batch is given up; None where it is sent again."""
        if error.reason is Reason.OUT_OF_ORDER_SEQUENCE:
            if self._may_follow_failure(batch, error):
                return None
            return lost_records(self.partition, batch, error)
        if error.reason is Reason.UNKNOWN_PRODUCER:
            if batch.doubtful:
                return error
            self._mark_restart([batch, *self._behind(batch)])
            return None
        if not error.outcome_known:
            batch.doubtful = True
            return None if self.idempotent else error
        return None if isinstance(error, RetriableError) else too_large(self.partition, error)

    def _hold(self, now_s: float, error: RiverrunError) -> None:
        until_s = now_s + self._backoff.next_s(error.retry_after_s)
        self.hold_until_s = max(self.hold_until_s, until_s)

    def _may_follow_failure(self, batch: OutgoingBatch, error: RiverrunError) -> bool:
        """Whether what the partition expects is a batch that we are going to send again."""
        expected = error.expected_sequence
        first = self._in_flight[0].base_sequence
        assert first is not None, "what is in flight has a sequence"
        assert batch.base_sequence is not None, "what is in flight has a sequence"
        return expected is not None and first <= expected <= batch.base_sequence

    def _behind(self, batch: OutgoingBatch) -> list[OutgoingBatch]:
        return self._in_flight[self._in_flight.index(batch) + 1 :]

    def _mark_restart(self, batches: list[OutgoingBatch]) -> None:
        """Let batches start again in the next epoch: nothing of them can be written in this one.

        Without idempotence no sequence keeps them from being written: there they are only sent
        again, once they have been refused themselves.
        """
        for batch in batches if self.idempotent else ():
            batch.restart = batch.behind_gap = True

    def _fail(self, batch: OutgoingBatch, error: RiverrunError) -> list[Resolution]:
        """Give up a batch, and decide about those behind it by whether it may be written."""
        known = error.outcome_known and not batch.uncertain
        resolutions = [Resolution(batch, None, told(error, known=known))]
        if batch.base_sequence is None:
            self._queue.remove(batch)
            return resolutions
        if known:
            # Its sequence is used up and never written, so nothing continues it in this epoch.
            self._mark_restart(self._behind(batch))
            self._drop([batch])
            self._restart_pending = self.idempotent
            self._settling = True
            return resolutions
        later = self._behind(batch)
        behind = failed_before(self.partition, error)
        for follower in (*later, *self._queue):
            why = told(behind, known=not follower.uncertain)
            resolutions.append(Resolution(follower, None, why))
        self._drop([batch, *later])
        self._queue.clear()
        self._restart_pending = self.idempotent
        return resolutions

    def _drop(self, batches: list[OutgoingBatch]) -> None:
        for batch in batches:
            if batch.tag:
                batch.tag = 0
                self._unanswered -= 1
            self._remove(batch)

    def _fenced(self, error: RiverrunError) -> list[Resolution]:
        self._end = ProducerFencedError(
            f"{self.partition}: {error.message}; make a new producer",
            reason=Reason.PRODUCER_FENCED,
        )
        return self.abandon(self._end)

    def _halve(self, batch: OutgoingBatch) -> bool:
        """Put two halves in the place of a batch that is too large, with the same sequences.

        Should it have been written whole by an earlier append after all, both are duplicates.
        """
        halves = self._split(batch)
        if halves is None:
            return False
        first, second = halves
        if batch.base_sequence is not None:
            first.base_sequence = batch.base_sequence
            second.base_sequence = batch.base_sequence + first.record_count
        first.epoch = second.epoch = batch.epoch
        first.doubtful = second.doubtful = batch.doubtful
        second.behind_gap = self.idempotent and not batch.doubtful
        index = self._in_flight.index(batch)
        self._in_flight[index : index + 1] = halves
        for later in self._in_flight[index + 2 :]:
            later.behind_gap = self.idempotent and not batch.doubtful
        self.largest_accepted_bytes = max(1, batch.size_bytes // 2)
        return True
