"""Apply the serializers of a producer to records, and say of which one they could not."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import Generic, TypeAlias, TypeVar, cast

from riverrun._core.chunks import Sendable
from riverrun._core.records import NewRecord, Record
from riverrun._core.type_parameters import K, V
from riverrun.errors import Reason, UsageError

T = TypeVar("T")

Serializer: TypeAlias = Callable[[T], bytes]
"""Turns one thing into bytes; is never given None."""

# The order in which its parameters appear is their order: K, V.
Item: TypeAlias = tuple[K | None, V | None] | V | NewRecord[K, V] | Record | None
"""What `send_many` takes of a producer of keys K and values V."""


class FieldSerializer(Generic[T]):
    """Serializes the keys or the values of a producer, and says of which record it could not.

    Args:
        field: "key" or "value".
        name: of the serializer, for messages.
        serialize: turns one into bytes.
        expected: what it takes, for messages.
    """

    __slots__ = ("_expected", "_field", "_name", "_serialize")

    def __init__(self, field: str, name: str, serialize: Serializer[T], expected: str) -> None:
        self._field = field
        self._name = name
        self._serialize = serialize
        self._expected = expected

    def __call__(self, topic: str, part: T | None) -> bytes | None:
        """Serialize one; None stays None.

        Raises:
            UsageError: it cannot be serialized.
        """
        if part is None:
            return None
        try:
            data: object = self._serialize(part)
        except Exception as error:
            raise self._wrong(topic, part, f"{type(error).__name__}: {error}") from error
        if type(data) is not bytes:
            raise self._wrong(topic, part, f"it returned a {type(data).__name__} and no bytes")
        return data

    def _wrong(self, topic: str, part: T, why: str) -> UsageError:
        return UsageError(
            f"topic {topic}: the {self._field}, of type {type(part).__qualname__}, cannot be "
            f"serialized by {self._name}: {why}. Expected is {self._expected}; the record was not "
            "sent",
            reason=Reason.INVALID_RECORD,
        )


class RecordSerializer(Generic[K, V]):
    """Serializes keys and values; where a serializer is None, they are bytes already."""

    def __init__(self, key: FieldSerializer[K] | None, value: FieldSerializer[V] | None) -> None:
        self._key = key
        self._value = value
        self.is_plain = key is None and value is None

    def key(self, topic: str, key: K | None) -> bytes | None:
        """Serialize a key.

        Raises:
            UsageError: it cannot be serialized.
        """
        return cast("bytes | None", key) if self._key is None else self._key(topic, key)

    def value(self, topic: str, value: V | None) -> bytes | None:
        """Serialize a value.

        Raises:
            UsageError: it cannot be serialized.
        """
        return cast("bytes | None", value) if self._value is None else self._value(topic, value)

    def each(
        self, topic: str, items: Iterable[Item[K, V]], refused: list[UsageError]
    ) -> Iterator[Sendable]:
        """Serialize items as they are taken, so that whoever yields them may change them afterwards.

        Args:
            topic: where they go.
            items: what `send_many` was given.
            refused: gets the error of one that cannot be serialized; it ends before that.
        """
        if self.is_plain:
            return iter(cast("Iterable[Sendable]", items))
        return self._each(topic, items, refused)

    def _each(
        self, topic: str, items: Iterable[Item[K, V]], refused: list[UsageError]
    ) -> Iterator[Sendable]:
        for taken, item in enumerate(items):
            try:
                ready = self._item(topic, item)
            except UsageError as error:
                refused.append(_numbered(error, taken))
                return
            yield ready

    async def each_of_async(
        self, topic: str, items: AsyncIterable[Item[K, V]], refused: list[UsageError]
    ) -> AsyncIterator[Sendable]:
        """Serialize the items of an async iterable, likewise."""
        taken = 0
        async for item in items:
            try:
                ready = self._item(topic, item)
            except UsageError as error:
                refused.append(_numbered(error, taken))
                return
            yield ready
            taken += 1

    def _item(self, topic: str, item: Item[K, V]) -> Sendable:
        if isinstance(item, (NewRecord, Record)):
            record = cast("NewRecord[K, V]", item)
            key, value = self.key(topic, record.key), self.value(topic, record.value)
            return NewRecord(value, key, record.headers, record.timestamp_ms)
        if type(item) is not tuple:
            return self.value(topic, cast("V | None", item))
        if len(item) != 2:
            # Nothing that can be sent, and told so as for bytes.
            return cast("Sendable", item)
        pair = cast("tuple[K | None, V | None]", item)
        return self.key(topic, pair[0]), self.value(topic, pair[1])


def _numbered(error: UsageError, taken: int) -> UsageError:
    error.message = f"record {taken} of send_many: {error.message}"
    return error
