"""What is said of a batch that cannot be written, or of which nobody knows."""

from __future__ import annotations

import copy

from riverrun._core.outgoing import OutgoingBatch
from riverrun._core.records import TopicPartition
from riverrun._core.row_checks import BATCH_BYTES_MAX
from riverrun.errors import FatalError, Reason, RetriableError, RiverrunError, TimedOutError


def told(error: RiverrunError, *, known: bool) -> RiverrunError:
    """Return the error as it holds for one batch of several."""
    if known == error.outcome_known:
        return error
    told = copy.copy(error)
    told.outcome_known = known
    return told


def timed_out(partition: TopicPartition, why: str) -> RiverrunError:
    """Say that a batch passed its deadline; `why` ends the text."""
    return TimedOutError(
        f"a batch for {partition} was not acknowledged in time: {why}",
        reason=Reason.TIMED_OUT,
    )


def connection_lost(partition: TopicPartition) -> RiverrunError:
    """Say that a batch without a sequence may have been written."""
    return RetriableError(
        f"the connection broke while a batch for {partition} waited for its answer; without "
        "idempotence it is not sent again, for it could then be written twice",
        reason=Reason.CONNECTION_LOST,
        outcome_known=False,
    )


def too_large(partition: TopicPartition, error: RiverrunError) -> RiverrunError:
    """Say of a record that is larger than its topic allows how to let it in; of other errors nothing."""
    if error.reason is not Reason.BATCH_TOO_LARGE or "max.batch.bytes" not in error.message:
        return error
    told = copy.copy(error)
    told.message = (
        f"{error.message.rstrip('. ')}: `riverrun topic alter {partition.topic} --config "
        f"max.batch.bytes={BATCH_BYTES_MAX}`, or Admin.alter_topic; more than that is allowed nowhere"
    )
    return told


def lost_records(
    partition: TopicPartition, batch: OutgoingBatch, error: RiverrunError
) -> RiverrunError:
    """Say that the partition expects another sequence than any that is going to be sent."""
    return FatalError(
        f"{partition} expects sequence {error.expected_sequence} from this producer and was sent "
        f"{batch.base_sequence}: records that it had acknowledged are gone, or something else "
        f"writes with this producer id ({error.message})",
        reason=Reason.OUT_OF_ORDER_SEQUENCE,
        outcome_known=error.outcome_known,
        expected_sequence=error.expected_sequence,
    )


def failed_before(partition: TopicPartition, cause: RiverrunError) -> RiverrunError:
    """Say that a batch is given up because of one before it."""
    return RetriableError(
        f"an earlier batch for {partition} failed with unknown outcome ({cause.reason}), and sending "
        "this one could put it in the wrong order; send it again once you have decided about the "
        "earlier ones",
        reason=Reason.BATCH_FAILED_BEFORE,
    )
