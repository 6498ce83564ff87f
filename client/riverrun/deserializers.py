"""What keys and values are made of when records are read: bytes, text, JSON, protobuf, or your own."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, TypeVar, cast

from google.protobuf.message import Message

from riverrun._core.deserializing import RecordDeserializer
from riverrun.errors import Reason, UsageError

__all__ = ["Deserializer", "Named", "deserializer", "text"]

T = TypeVar("T")

Named: TypeAlias = Literal["bytes", "str", "json"]
"""Deserializers by name: as it is; UTF-8; JSON in UTF-8, UTF-16 or UTF-32."""

Deserializer: TypeAlias = Named | type[T] | Callable[[bytes], T]
"""One by its name, a protobuf message class, or anything that makes a T of bytes."""


def text(data: bytes) -> str:
    """Return the text that bytes are in UTF-8.

    Raises:
        UnicodeDecodeError: they are not.

    Example:
        from riverrun.deserializers import text

        async with client.consumer("orders", value_deserializer=text) as consumer:
            for record in await consumer.getmany(timeout_s=5):
                print(record.value.upper())
    """
    return data.decode()


_NAMED: dict[str, Callable[[bytes], Any] | None] = {"bytes": None, "str": text, "json": json.loads}


# They take bytes, and make something else of them than whoever names them has in mind.
_MISREADING: tuple[object, ...] = (str, bool, list, tuple, set, frozenset, dict, object, type)


def deserializer(wanted: Deserializer[T]) -> Callable[[bytes], T] | None:
    """Return the function behind what a consumer was given; None leaves bytes as they are.

    Args:
        wanted: "bytes", "str", "json", a protobuf message class, or a function of bytes.

    Raises:
        UsageError: it is nothing of these.

    Example:
        from google.protobuf.struct_pb2 import Struct
        from riverrun.deserializers import deserializer

        to_struct = deserializer(Struct)
        print(to_struct(Struct().SerializeToString()))
    """
    if isinstance(wanted, str) and wanted in _NAMED:
        return _NAMED[wanted]
    if isinstance(wanted, type) and issubclass(wanted, Message):
        return cast("Callable[[bytes], T]", wanted.FromString)
    if wanted in _MISREADING:
        raise UsageError(_misread(cast("type", wanted)), reason=Reason.INVALID_REQUEST)
    if callable(wanted):
        return cast("Callable[[bytes], T]", wanted)
    raise UsageError(
        f'{wanted!r} is no deserializer; use "bytes", "str", "json", a protobuf message class, or '
        "a function that takes bytes",
        reason=Reason.INVALID_REQUEST,
    )


def _misread(kind: type) -> str:
    if kind is str:
        return """str makes "b'...'" of bytes; use the name "str", which decodes UTF-8"""
    return (
        f'{kind.__name__} does not read what bytes stand for; use "json", or a function that takes '
        "bytes"
    )


def record_deserializer(
    key: Deserializer[Any], value: Deserializer[Any]
) -> RecordDeserializer[Any, Any] | None:
    """Return what makes records of both parts; None where both stay bytes.

    Raises:
        UsageError: one of them is no deserializer.
    """
    made = RecordDeserializer(deserializer(key), deserializer(value))
    return None if made.key is None and made.value is None else made
