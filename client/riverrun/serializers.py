"""Turn what an application has into the bytes of keys and values.

A producer is given a serializer for its keys and one for its values, by name or as a function. None
is None to all of them: no key, or a tombstone. What cannot be serialized is refused with a
`UsageError` and fails its record alone.

Example:
    async with client.producer(key_serializer="str", value_serializer="json") as producer:
        await producer.send("orders", {"apples": 2}, key="anna")
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any, Literal, TypeAlias

from google.protobuf.message import Message

from riverrun._core.serializing import FieldSerializer, RecordSerializer, Serializer
from riverrun.errors import Reason, UsageError

__all__ = [
    "Serializer",
    "SerializerName",
    "serialize_json",
    "serialize_protobuf",
    "serialize_str",
]

SerializerName: TypeAlias = Literal["bytes", "str", "json", "protobuf"]


def serialize_str(text: str) -> bytes:
    """Encode text as UTF-8; this is "str".

    Raises:
        TypeError: it is no text.
        UnicodeEncodeError: it has half of a surrogate pair.

    Example:
        from riverrun.serializers import serialize_str

        async with client.producer(value_serializer=serialize_str) as producer:
            await producer.send("orders", "2 apples")
    """
    if not isinstance(text, str):
        raise TypeError(f"it is a {type(text).__name__}, not a str")
    return text.encode()


def serialize_json(value: Any, *, sort_keys: bool = False) -> bytes:
    """Write JSON as UTF-8, without spaces; this is "json".

    Keys of records named "json" are written with `sort_keys`, for equal keys have to be equal bytes.

    Raises:
        TypeError: something in it has no JSON form.
        ValueError: it holds itself, or NaN or an infinity, which JSON does not have.

    Example:
        from riverrun.serializers import serialize_json

        async with client.producer(value_serializer=serialize_json) as producer:
            await producer.send("orders", {"apples": 2, "to": ["Ada", "Grace"]})
    """
    text = json.dumps(
        value,
        ensure_ascii=False,
        allow_nan=False,
        separators=(",", ":"),
        sort_keys=sort_keys,
    )
    return text.encode()


def serialize_protobuf(message: Message) -> bytes:
    """Serialize a protobuf message of any type, maps in the order of their keys; this is "protobuf".

    Raises:
        TypeError: it is no message.
        google.protobuf.message.EncodeError: a required field is not set.

    Example:
        from google.protobuf.wrappers_pb2 import StringValue
        from riverrun.serializers import serialize_protobuf

        async with client.producer(value_serializer=serialize_protobuf) as producer:
            await producer.send("orders", StringValue(value="2 apples"))
    """
    if not isinstance(message, Message):
        raise TypeError(f"it is a {type(message).__name__}, not a protobuf message")
    return message.SerializeToString(deterministic=True)


_EXPECTED = {
    "str": "a str",
    "json": "what JSON has: dicts with str keys, lists, str, int, float, bool and None",
    "protobuf": "a protobuf message with its required fields set",
}


def field_serializer(
    field: Literal["key", "value"], given: SerializerName | Serializer[Any]
) -> FieldSerializer[Any] | None:
    """Return what serializes the keys or values of a producer; None where they are bytes already.

    Raises:
        UsageError: there is no serializer of this name, or it cannot be called.
    """
    _refuse_class(field, given)
    if callable(given):
        name = getattr(given, "__qualname__", type(given).__name__)
        return FieldSerializer(field, name, given, f"what {name} takes, and turns into bytes")
    named: dict[str, Serializer[Any]] = {
        "str": serialize_str,
        "json": partial(serialize_json, sort_keys=True) if field == "key" else serialize_json,
        "protobuf": serialize_protobuf,
    }
    if isinstance(given, str) and given in named:
        return FieldSerializer(field, f'"{given}"', named[given], _EXPECTED[given])
    if given == "bytes":
        return None
    raise UsageError(
        f'{field}_serializer is {given!r}; it must be one of "bytes", "str", "json", "protobuf", or '
        "a function that returns bytes",
        reason=Reason.INVALID_REQUEST,
    )


def _refuse_class(field: str, given: object) -> None:
    """Refuse a message class: it can be called, and makes a message where bytes are wanted."""
    if isinstance(given, type) and issubclass(given, Message):
        raise UsageError(
            f'{field}_serializer is the message class {given.__name__}; use "protobuf", which serializes '
            "messages of any class (a consumer is given the class, to know what to make)",
            reason=Reason.INVALID_REQUEST,
        )


def record_serializer(
    key: SerializerName | Serializer[Any], value: SerializerName | Serializer[Any]
) -> RecordSerializer[Any, Any]:
    """Return what serializes both parts of a producer's records.

    Raises:
        UsageError: one of them is no serializer.
    """
    return RecordSerializer(field_serializer("key", key), field_serializer("value", value))
