"""Make what the application wants of a record's key and value, and say where that cannot be done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal

from riverrun._core.records import Record
from riverrun._core.type_parameters import K, V
from riverrun.errors import DeserializationError


@dataclass(frozen=True, slots=True)
class RecordDeserializer(Generic[K, V]):
    """What is made of keys and of values; None leaves them as they are.

    A key or a value that is not there stays None and is given to neither.
    """

    key: Callable[[bytes], K] | None
    value: Callable[[bytes], V] | None

    def __call__(self, record: Record) -> Record[K, V]:
        """Return the record with its key and value made anew.

        Raises:
            DeserializationError: one of them is not what it should be.
        """
        topic, partition, offset, timestamp_ms, key, value, headers = record
        made: tuple[Any, Any] = key, value
        part: Literal["key", "value"] = "key"
        try:
            if self.key is not None and key is not None:
                made = self.key(key), value
            part = "value"
            if self.value is not None and value is not None:
                made = made[0], self.value(value)
        except Exception as error:
            raise _refused(record, part, error) from error
        return Record(topic, partition, offset, timestamp_ms, *made, headers)


def _refused(
    record: Record, part: Literal["key", "value"], error: Exception
) -> DeserializationError:
    where = record.topic_partition
    place = f"riverrun.TopicPartition({where.topic!r}, {where.partition})"
    return DeserializationError(
        f"{where}: the {part} of the record at offset {record.offset} cannot be deserialized: "
        f"{type(error).__name__}: {error}; its partition stops there. To step over it, "
        f"consumer.seek({place}, {record.offset + 1}); error.record has it as bytes; to read it "
        "again, seek to its own offset",
        record=record,
        part=part,
    )
