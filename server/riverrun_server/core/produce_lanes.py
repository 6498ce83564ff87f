"""The rule that keeps one produce stream in order after a failure: what was sent behind it waits.

A client pipelines: by the time it hears that a batch failed it has sent the next ones. Were those
appended, a retry of the failed one would land behind them. So from the moment that a failure in a
partition is known, later batches for it are refused (PRECEDING_FAILED, nothing happened) until the
client shows that it knows of the failure.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.log.batch import BatchHeader

MAX_REFUSING_LANES = 4096
"""About 1 MB; a stream that has failed in more partitions than this is to be opened anew."""

# A consequence of a failure or already refused by the producer table, whatever follows: neither
# tells where the client has to begin again.
_STARTS_NOTHING = frozenset({Reason.PRECEDING_FAILED, Reason.OUT_OF_ORDER_SEQUENCE})


@dataclass(slots=True)
class _Failure:
    """The first batch that failed in a lane and has not been sent again."""

    producer_id: int
    producer_epoch: int
    base_sequence: int
    attempt: int


class ProduceLanes:
    """The lanes of one stream in which a batch has failed.

    A lane is what one stream appends to one partition with a producer id, or what it appends there
    without. It is OPEN (nothing is kept of it) or REFUSING since a failure. Transitions:

    - OPEN -> REFUSING: a batch is answered with a refusal, PRECEDING_FAILED and
      OUT_OF_ORDER_SEQUENCE aside.
    - REFUSING -> REFUSING: another batch is answered with one. The lower first sequence counts
      where they are of the same producer epoch, and the higher `attempt`.
    - REFUSING -> OPEN, and the batch is admitted: it has the failed first sequence (or holds it,
      having been cut anew); or a newer producer epoch, or another producer id, and begins at 0; or
      no producer id and a higher `attempt` than the failed one.
    - REFUSING -> OPEN: a batch with a producer id is answered well that holds or follows the failed
      sequence, or begins anew as above. The client has gone on, then, before the failure was known
      here: it was that of an earlier sending.
    - OPEN -> REFUSING for good, all lanes at once: more lanes would be refusing than may.

    What is promised. A batch that is refused here has not been written. A batch that is sent after
    the client could know of a failure is written behind the one that failed. A batch that was
    already admitted when the failure came to be known (it fails late where another broker leads the
    partition) is answered for itself: with a producer id the partition refuses it
    (OUT_OF_ORDER_SEQUENCE names where to go on), so order is kept; without one it may have been
    written, and a retry of the failed batch comes behind it. Who needs order without a producer id
    has one append under way.

    Args:
        max_lanes: how many may be refusing at once.
    """

    __slots__ = ("_failures", "_max_lanes", "_overflowed")

    def __init__(self, max_lanes: int = MAX_REFUSING_LANES) -> None:
        self._failures: dict[tuple[Hashable, bool], _Failure] = {}
        self._max_lanes = max_lanes
        self._overflowed = False

    def __len__(self) -> int:
        """Return how many lanes are refusing."""
        return len(self._failures)

    def admit(self, lane_key: Hashable, header: BatchHeader, attempt: int) -> Refusal | None:
        """Decide whether a batch may be appended; None means yes.

        Args:
            lane_key: the partition.
            header: as the client sent it; a record count of 0 stands for one left out.
            attempt: as the client sent it.

        Returns:
            PRECEDING_FAILED, or None. LIMIT_EXCEEDED where the stream has to be opened anew.
        """
        if not self._failures and not self._overflowed:
            return None
        lane = (lane_key, header.producer_id > 0)
        failure = self._failures.get(lane)
        if failure is None:
            return _open_anew(self._max_lanes) if self._overflowed else None
        if _resumes(failure, header, attempt):
            del self._failures[lane]
            return None
        if _precedes(failure, header):
            return None
        return _preceding_failed(failure)

    def answered(
        self, lane_key: Hashable, header: BatchHeader, attempt: int, refusal: Refusal | None
    ) -> None:
        """Take in what became of a batch, also of one that `admit` refused or that went well."""
        if refusal is None and not self._failures:
            return
        lane = (lane_key, header.producer_id > 0)
        failure = self._failures.get(lane)
        if refusal is None:
            if failure is not None and _settles(failure, header):
                del self._failures[lane]
        elif refusal.reason in _STARTS_NOTHING:
            return
        elif failure is not None:
            _worsen(failure, header, attempt)
        elif len(self._failures) < self._max_lanes:
            self._failures[lane] = _Failure(
                header.producer_id, header.producer_epoch, header.base_sequence, attempt
            )
        else:
            self._overflowed = True


def _same_epoch(failure: _Failure, header: BatchHeader) -> bool:
    return (failure.producer_id, failure.producer_epoch) == (
        header.producer_id,
        header.producer_epoch,
    )


def _begins_anew(failure: _Failure, header: BatchHeader) -> bool:
    """Return whether a batch is the first of a newer epoch or of another producer."""
    newer = header.producer_epoch > failure.producer_epoch
    return header.base_sequence == 0 and (newer or header.producer_id != failure.producer_id)


def _resumes(failure: _Failure, header: BatchHeader, attempt: int) -> bool:
    if not header.producer_id:
        return attempt > failure.attempt
    if _same_epoch(failure, header):
        base, failed = header.base_sequence, failure.base_sequence
        return base == failed or base < failed <= header.last_sequence
    return _begins_anew(failure, header)


def _precedes(failure: _Failure, header: BatchHeader) -> bool:
    """Return whether a batch is an earlier one sent again, which the partition will recognise."""
    return (
        header.producer_id > 0
        and _same_epoch(failure, header)
        and header.base_sequence < failure.base_sequence
    )


def _settles(failure: _Failure, header: BatchHeader) -> bool:
    """Return whether nothing is left to be sent again now that this batch went well."""
    if not header.producer_id:
        return False
    if _same_epoch(failure, header):
        return header.last_sequence >= failure.base_sequence
    return _begins_anew(failure, header)


def _worsen(failure: _Failure, header: BatchHeader, attempt: int) -> None:
    if _same_epoch(failure, header):
        failure.base_sequence = min(failure.base_sequence, header.base_sequence)
    failure.attempt = max(failure.attempt, attempt)


def _preceding_failed(failure: _Failure) -> Refusal:
    if failure.producer_id:
        how = (
            f"sequence {failure.base_sequence} of producer {failure.producer_id} epoch "
            f"{failure.producer_epoch} failed; send it again, or begin at 0 in a newer epoch"
        )
    else:
        how = (
            f"one with attempt {failure.attempt} failed; send it again, or go on without it, with "
            f"attempt {failure.attempt + 1}"
        )
    return Refusal(
        Reason.PRECEDING_FAILED,
        f"an earlier append to this partition failed on this stream and this one was not written "
        f"in its place: {how}",
    )


def _open_anew(max_lanes: int) -> Refusal:
    return Refusal(
        Reason.LIMIT_EXCEEDED,
        f"appends to more than {max_lanes} partitions have failed on this stream and were not sent "
        f"again, so the order of others cannot be kept; open another stream",
    )
