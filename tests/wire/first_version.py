"""The keys of the offsets topic as the version knew them that had nothing but offsets."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELD = descriptor_pb2.FieldDescriptorProto


def _made() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name="first_version.proto", package="first", syntax="proto3"
    )
    message = file.message_type.add(name="OffsetCommitKey")
    fields = {"group_id": _FIELD.TYPE_STRING, "topic_id": _FIELD.TYPE_BYTES}
    for number, (name, kind) in enumerate({**fields, "partition": _FIELD.TYPE_INT32}.items(), 1):
        message.field.add(name=name, number=number, type=kind, label=_FIELD.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("first.OffsetCommitKey"))


OffsetCommitKey = _made()
