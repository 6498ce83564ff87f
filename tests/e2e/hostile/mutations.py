"""Requests that are nearly right: every method's, made from its descriptor and then bent.

Whatever the services have is found by reflection on their descriptors, so a new method, message or
field is bent too without anybody having thought of it.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from riverrun.v1 import admin_pb2, consumer_pb2, metadata_pb2, producer_pb2, text_pb2
from riverrun.v1.records_pb2 import Record, RecordSet
from riverrun_server.wire import codecs

FILES = (admin_pb2, consumer_pb2, metadata_pb2, producer_pb2, text_pb2)

_F = FieldDescriptor
_SIGNED = {_F.TYPE_INT32: 31, _F.TYPE_SINT32: 31, _F.TYPE_SFIXED32: 31}
_SIGNED |= {_F.TYPE_INT64: 63, _F.TYPE_SINT64: 63, _F.TYPE_SFIXED64: 63}
_UNSIGNED = {_F.TYPE_UINT32: 32, _F.TYPE_FIXED32: 32, _F.TYPE_UINT64: 64, _F.TYPE_FIXED64: 64}
_TEXTS = (
    "",
    "a",
    "../../etc/passwd",
    "\0",
    "a\r\nERROR b",
    "é" * 300,
    "__consumer_offsets",
    "x" * 70_000,
)


@dataclass(frozen=True)
class Method:
    """One method of the public services."""

    descriptor: MethodDescriptor

    @property
    def path(self) -> str:
        """How it is called."""
        return f"/{self.descriptor.containing_service.full_name}/{self.descriptor.name}"

    @property
    def request(self) -> type[Message]:
        """The type of its requests."""
        return GetMessageClass(self.descriptor.input_type)

    @property
    def answer(self) -> type[Message]:
        """The type of its answers."""
        return GetMessageClass(self.descriptor.output_type)

    @property
    def streams(self) -> bool:
        """Whether it takes a stream of requests."""
        return self.descriptor.client_streaming


def methods() -> list[Method]:
    """Return every method of every public service."""
    return [
        Method(method)
        for file in FILES
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]


class Bender:
    """Makes requests out of dice.

    Args:
        dice: the same seed makes the same requests.
        topics: names that are there.
    """

    def __init__(self, dice: random.Random, topics: Sequence[str]) -> None:
        self.dice = dice
        self.values: set[bytes] = set()
        self._sparse = 0.2
        self._topics = topics
        self._numbers = itertools.count()

    def messages(self, method: Method) -> list[bytes]:
        """Return the serialised messages of one call; `values` are those of its records."""
        self.values = set()
        count = self.dice.choice((1, 1, 2, 5, 30)) if method.streams else 1
        return [self.message(method) for _ in range(count)]

    def message(self, method: Method) -> bytes:
        """Return one request: filled in, perhaps bent field by field, perhaps byte by byte."""
        dice, message = self.dice, method.request()
        # What excludes each other is rarely left out by chance where nearly everything is set.
        self._sparse = dice.choice((0.1, 0.4, 0.7))
        self._fill(message, 0)
        for _ in range(dice.choice((0, 0, 0, 1, 1, 2, 4))):
            self._bend(message)
        data = message.SerializeToString()
        fate = dice.random()
        if fate < 0.15:
            return self._damaged(data)
        return self._with_unknown(data) if fate < 0.25 else data

    # Whole requests.

    def _fill(self, message: Message, depth: int) -> None:
        chosen = {
            oneof.name: self.dice.choice(oneof.fields).name
            for oneof in message.DESCRIPTOR.oneofs
            if len(oneof.fields) > 1
        }
        for field in message.DESCRIPTOR.fields:
            oneof = field.containing_oneof
            if oneof is not None and chosen.get(oneof.name, field.name) != field.name:
                continue
            if depth > 4 or self.dice.random() < self._sparse:
                continue
            self._set(message, field, depth, self._plausible)
        if message.DESCRIPTOR.name == "RecordBatch":
            self._pack(message)

    def _pack(self, batch: Message) -> None:
        """Make a batch hold what it says, most of the time."""
        dice = self.dice
        if dice.random() < 0.2:
            return
        count = dice.choice((1, 2, 10, 1000))
        records = RecordSet(records=[Record(value=self._value()) for _ in range(count)])
        for field in batch.DESCRIPTOR.fields:
            if field.number >= 100 or dice.random() < 0.5:
                batch.ClearField(field.name)
        batch.codec = dice.choice((0, 1, 2, 3, 4))
        batch.records = codecs.compress(batch.codec, records.SerializeToString())
        batch.ClearField("records_crc")
        batch.record_count = dice.choice((0, count, count, count + 1))

    def _set(self, message: Message, field: FieldDescriptor, depth: int, value) -> None:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            target = getattr(message, field.name)
            for _ in range(self.dice.choice((1, 2))):
                target[self._plausible_text(field)] = self._plausible_text(field)
        elif field.is_repeated:
            for _ in range(self.dice.choice((1, 1, 3))):
                if field.message_type is not None:
                    self._fill(getattr(message, field.name).add(), depth + 1)
                else:
                    getattr(message, field.name).append(value(field))
        elif field.message_type is not None:
            getattr(message, field.name).SetInParent()
            self._fill(getattr(message, field.name), depth + 1)
        else:
            setattr(message, field.name, value(field))

    def _plausible(self, field: FieldDescriptor) -> object:
        if field.type == _F.TYPE_STRING and field.name == "value":
            return self._value().decode()
        if field.type == _F.TYPE_STRING:
            return self._plausible_text(field)
        if field.name == "value":
            return self._value()
        if field.type == _F.TYPE_BYTES:
            return self.dice.choice((b"", b"", b"k", b"value", self.dice.randbytes(16)))
        if field.type == _F.TYPE_BOOL:
            return self.dice.random() < 0.5
        if field.enum_type is not None:
            return self.dice.choice(field.enum_type.values).number
        if field.cpp_type in (_F.CPPTYPE_FLOAT, _F.CPPTYPE_DOUBLE):
            return self.dice.random()
        return self.dice.choice((0, 0, 1, 1, 2, 3, 10, 1000))

    def _value(self) -> bytes:
        """Return a value that no other call has."""
        value = b"bent-%d" % next(self._numbers)
        self.values.add(value)
        return value

    def _plausible_text(self, field: FieldDescriptor) -> str:
        keys = ("retention.ms", "max.batch.bytes", "1000000", "group")
        names = self._topics if "topic" in field.name or self.dice.random() < 0.5 else keys
        return self.dice.choice(names)

    # Bent ones.

    def _bend(self, message: Message) -> None:
        parts = list(_parts(message))
        part = self.dice.choice(parts)
        if not part.DESCRIPTOR.fields:
            return
        field = self.dice.choice(part.DESCRIPTOR.fields)
        if field.is_repeated:
            self._repeat(part, field)
        elif self.dice.random() < 0.25:
            part.ClearField(field.name)
        elif field.message_type is None:
            setattr(part, field.name, self._extreme(field))
        else:
            getattr(part, field.name).SetInParent()

    def _repeat(self, message: Message, field: FieldDescriptor) -> None:
        times, target = self.dice.choice((0, 2, 1001, 5000)), getattr(message, field.name)
        if not times:
            message.ClearField(field.name)
        elif field.message_type is not None and field.message_type.GetOptions().map_entry:
            for number in range(times):
                target[f"key-{number}"] = "value"
        elif field.message_type is not None:
            for _ in range(times):
                target.add()
        else:
            target.extend([self._extreme(field)] * min(times, 50))

    def _extreme(self, field: FieldDescriptor) -> object:
        dice = self.dice
        if field.type == _F.TYPE_STRING:
            return dice.choice(_TEXTS)
        if field.type == _F.TYPE_BYTES:
            return dice.choice((b"", b"\xff" * 15, dice.randbytes(17), b"\0" * 100_000))
        if field.type == _F.TYPE_BOOL:
            return True
        if field.enum_type is not None:
            return dice.choice((-1, 99, 2**31 - 1, -(2**31)))
        if field.type in _SIGNED:
            bits = _SIGNED[field.type]
            return dice.choice((-(2**bits), -1, 2**bits - 1, 2**31 - 1, 0, 1))
        if field.type in _UNSIGNED:
            return dice.choice((0, 2 ** _UNSIGNED[field.type] - 1))
        return dice.choice((0.0, float("inf"), float("nan"), -1e300))

    # Bytes.

    def _damaged(self, data: bytes) -> bytes:
        dice, out = self.dice, bytearray(data)
        for _ in range(dice.choice((1, 1, 3))):
            at = dice.randrange(len(out) + 1)
            match dice.randrange(5):
                case 0 if out:
                    out[at % len(out)] ^= 1 << dice.randrange(8)
                case 1:
                    del out[at:]
                case 2:
                    out[at:at] = out[: dice.randrange(len(out) + 1)]
                case 3:
                    out[at:at] = b"\xff" * dice.choice((1, 9, 10, 11)) + b"\x01"
                case _:
                    out[at:at] = dice.randbytes(dice.randrange(1, 20))
        return bytes(out)

    def _with_unknown(self, data: bytes) -> bytes:
        return data + self.dice.choice(
            (
                b"\xf2\xff\x03\x05hello",  # field 8190, length-delimited
                b"\xf0\xff\x03\x01" * 1000,
                b"\xf3\xff\x03" * 90 + b"\xf4\xff\x03" * 90,  # nested groups
                b"\xf3\xff\x03" * 5000,
            )
        )


def _parts(message: Message) -> Iterator[Message]:
    """Yield a message and every message in it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for each in value if field.is_repeated else (value,):
            yield from _parts(each)
