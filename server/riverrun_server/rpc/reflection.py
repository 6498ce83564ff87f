"""Server reflection that tells a shell what the .proto files tell, comments included.

Generated Python code holds neither comments nor JSON names, and its pool finds no method by its
name, so grpcio-reflection alone serves neither. Here its servicer looks things up in a stand-in
for that pool, which hands out files as protoc wrote them: `riverrun.v1.binpb`, made by
tools/proto.py. Files that are not in there (health, reflection) come from the generated code.

grpcio-reflection knows grpc.reflection.v1alpha only. The messages of grpc.reflection.v1 are the
same under another name, so the one servicer answers for both.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Final

import grpc
import grpc.aio
from google.protobuf import descriptor_pool, text_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from riverrun_server.rpc.door import Door

V1: Final = "grpc.reflection.v1.ServerReflection"
V1ALPHA: Final = str(reflection.SERVICE_NAME)


def serve_reflection(server: Door, services: Iterable[str]) -> None:
    """Let `server` describe these services, named in full, and reflection itself.

    The descriptors are read at the first call that needs them, not here.
    """
    servicer = reflection.aio.ReflectionServicer([*services, V1, V1ALPHA], pool=CommentedPool())
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
    info = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    handlers = {"ServerReflectionInfo": info}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(V1, handlers),))


class CommentedPool:
    """The part of a DescriptorPool that the servicer asks; KeyError is its "not found".

    Names are looked up in the pool of the generated code, which knows what this process can serve;
    only the text that goes out is protoc's.
    """

    def FindFileByName(self, name: str) -> CommentedFile:  # noqa: N802 - protobuf's name
        """Return a file by its import path."""
        try:
            return CommentedFile(_generated().FindFileByName(name))
        except KeyError:
            return CommentedFile(_reflection_v1().FindFileByName(name))

    def FindFileContainingSymbol(self, symbol: str) -> CommentedFile:  # noqa: N802 - as above
        """Return the file that defines a message, field, enum, value, service or method."""
        for pool in (_generated(), _reflection_v1()):
            try:
                return CommentedFile(pool.FindFileContainingSymbol(symbol))
            except KeyError:
                pass
            try:
                return CommentedFile(pool.FindMethodByName(symbol).containing_service.file)
            except KeyError:
                pass
        raise KeyError(symbol)

    def FindMessageTypeByName(self, name: str) -> Descriptor:  # noqa: N802 - as above
        """Return a message whose extensions are asked for; we have none."""
        return _generated().FindMessageTypeByName(name)

    def FindExtensionByNumber(  # noqa: N802 - as above
        self, message: Descriptor, number: int
    ) -> FieldDescriptor:
        """Return an extension of a message."""
        return _generated().FindExtensionByNumber(message, number)

    def FindAllExtensions(self, message: Descriptor) -> list[FieldDescriptor]:  # noqa: N802 - as above
        """Return every extension of a message."""
        return _generated().FindAllExtensions(message)


class CommentedFile:
    """The part of a FileDescriptor that the servicer asks, with comments where we have them."""

    def __init__(self, file: FileDescriptor) -> None:
        self.name = file.name
        self._file = file

    @property
    def dependencies(self) -> list[CommentedFile]:
        """Return the files that it imports, commented too."""
        return [CommentedFile(file) for file in self._file.dependencies]

    def CopyToProto(self, proto: FileDescriptorProto) -> None:  # noqa: N802 - protobuf's name
        """Fill `proto`."""
        if commented := _commented().get(self.name):
            proto.CopyFrom(commented)
        else:
            self._file.CopyToProto(proto)


def _generated() -> descriptor_pool.DescriptorPool:
    return descriptor_pool.Default()


@functools.cache
def _commented() -> Mapping[str, FileDescriptorProto]:
    """Read protoc's descriptors of riverrun.v1 and its imports, by import path."""
    data = resources.files(__package__).joinpath("riverrun.v1.binpb").read_bytes()
    return {file.name: file for file in FileDescriptorSet.FromString(data).file}


@functools.cache
def _reflection_v1() -> descriptor_pool.DescriptorPool:
    """Describe grpc.reflection.v1: v1alpha renamed, apart from v1alpha's being deprecated.

    A pool of its own, so that nothing collides should generated code for v1 be installed one day.
    """
    alpha = FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(alpha)
    text = text_format.MessageToString(alpha).replace("v1alpha", "v1")
    v1 = text_format.Parse(text, FileDescriptorProto())
    v1.options.ClearField("deprecated")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(v1)
    return pool
