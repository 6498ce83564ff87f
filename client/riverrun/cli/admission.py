"""What a topic takes, looked at before a record is sent: so a refusal names the record and nothing overtakes it."""

from __future__ import annotations

from dataclasses import dataclass

from riverrun._core.encoding import encode_rows, size_bound
from riverrun._core.records import Headers
from riverrun._core.row_checks import BATCH_BYTES_MAX
from riverrun.cli.exits import Exit


class NotTakenError(ValueError):
    """A record that the topic does not take.

    Attributes:
        code: the exit code.
        reason: what a broker would have called it.
    """

    def __init__(self, message: str, code: Exit, reason: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Admission:
    """What is known of a topic.

    Attributes:
        topic: its name.
        record_bytes_max: what one record may take, its parts and some bytes around each.
        partitions: how many there are; None where that is not known.
        now_ms: the broker's clock when it was asked; None where that was not.
        ahead_max_ms: how far ahead of it a timestamp may lie.
    """

    topic: str = ""
    record_bytes_max: int = BATCH_BYTES_MAX
    partitions: int | None = None
    now_ms: int | None = None
    ahead_max_ms: int = 0

    def check_timestamp(self, timestamp_ms: int | None) -> None:
        """Look at the timestamp that a record has, if it does.

        Raises:
            NotTakenError: it lies too far ahead of the broker's clock.
        """
        if timestamp_ms is None or self.now_ms is None:
            return
        if timestamp_ms <= self.now_ms + self.ahead_max_ms:
            return
        text = (
            f"timestamp {timestamp_ms} lies {timestamp_ms - self.now_ms} ms ahead of the broker's "
            f"clock and {self.ahead_max_ms} ms are allowed (setting limits.timestamp_ahead_max_ms); "
            "timestamps are milliseconds since 1970"
        )
        for unit, per_ms in (("microseconds", 1_000), ("nanoseconds", 1_000_000)):
            if self.now_ms // 2 < timestamp_ms // per_ms < self.now_ms * 2:
                text += f", and this looks like {unit}: divide it by {per_ms}"
        raise NotTakenError(text, Exit.FAILED, "INVALID_TIMESTAMP")

    def check_partition(self, partition: int | None) -> None:
        """Look at the partition that a record names, if it does.

        Raises:
            NotTakenError: there is none of this number.
        """
        if partition is None or self.partitions is None or partition < self.partitions:
            return
        raise NotTakenError(
            f"topic {self.topic} has no partition {partition}; it has {self.partitions}, from 0",
            Exit.NOT_FOUND,
            "PARTITION_NOT_FOUND",
        )

    def check_size(
        self,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
        timestamp_ms: int | None = None,
    ) -> None:
        """Look at what a record takes.

        Raises:
            NotTakenError: more than the topic allows.
        """
        limit = self.record_bytes_max
        if size_bound(key, value, headers) <= limit:
            return
        time_ms = _OF_OUR_DAYS_MS if timestamp_ms is None else timestamp_ms
        size_bytes = len(encode_rows([(key, value, time_ms, headers)], 1).data)
        if size_bytes <= limit:
            return
        text = f"this one record takes {size_bytes} bytes and topic {self.topic} allows {limit}"
        text += " (max.batch.bytes); "
        if size_bytes <= BATCH_BYTES_MAX:
            text += (
                f"raise the setting: `riverrun topic alter {self.topic} --config "
                f"max.batch.bytes={BATCH_BYTES_MAX}`"
            )
        else:
            text += (
                f"no topic may allow more than {BATCH_BYTES_MAX}: send it in parts, or where it "
                "can be fetched"
            )
        raise NotTakenError(text, Exit.FAILED, "BATCH_TOO_LARGE")

    def may_be_too_large(self, frame_bytes: int) -> bool:
        """Whether a record made of a frame of so many bytes needs to be looked at; cheap to ask."""
        return 2 * frame_bytes + _AROUND_BYTES > self.record_bytes_max


_OF_OUR_DAYS_MS = 1_790_000_000_000
"""The time of a record that has none is that of sending; from 2004 to 2039 it takes as many bytes."""
_AROUND_BYTES = 64
"""What a record takes beside the bytes of its parts. Each of its headers takes a little more than it
does in JSON, but never twice that."""
