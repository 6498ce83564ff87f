"""What reflection tells: all that the .proto files tell, under both of its names."""

from __future__ import annotations

import grpc
import grpc.aio
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha.reflection_pb2 import (
    ExtensionRequest,
    ServerReflectionRequest,
    ServerReflectionResponse,
)

from riverrun.v1 import admin_pb2, consumer_pb2, group_pb2, metadata_pb2, producer_pb2, text_pb2
from riverrun_server.rpc import reflection

API = [
    module.DESCRIPTOR
    for module in (admin_pb2, consumer_pb2, group_pb2, metadata_pb2, producer_pb2, text_pb2)
]
SERVICES = [name.full_name for file in API for name in file.services_by_name.values()]
SOURCES = {"riverrun/v1/records.proto", "riverrun/v1/errors.proto", *(file.name for file in API)}
NOT_FOUND = grpc.StatusCode.NOT_FOUND.value[0]
# The fields of descriptors that hold what has a name of its own.
NAMED = ("message_type", "nested_type", "field", "enum_type", "value", "service", "method")


class Reflected:
    """One server's reflection, asked under one of its names."""

    def __init__(self, channel: grpc.aio.Channel, name: str) -> None:
        self._call = channel.stream_stream(
            f"/{name}/ServerReflectionInfo",
            request_serializer=ServerReflectionRequest.SerializeToString,
            response_deserializer=ServerReflectionResponse.FromString,
        )

    async def ask(self, **question) -> ServerReflectionResponse:
        return await self._call(iter([ServerReflectionRequest(**question)])).read()

    async def files(self, **question) -> dict[str, FileDescriptorProto]:
        response = await self.ask(**question)
        assert response.HasField("file_descriptor_response"), response
        protos = response.file_descriptor_response.file_descriptor_proto
        found = [FileDescriptorProto.FromString(proto) for proto in protos]
        return {file.name: file for file in found}


@pytest.fixture
async def server():
    reflection._commented.cache_clear()  # as in a process that has just begun
    server = grpc.aio.server()
    reflection.serve_reflection(server, SERVICES)
    server.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield server
    await server.stop(0)


@pytest.fixture(params=[reflection.V1, reflection.V1ALPHA])
async def reflected(request, server):
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield Reflected(channel, request.param)


def named_things(scope, path=()):
    """Yield the path and name of everything in a file that has a name of its own."""
    for kind in filter(scope.DESCRIPTOR.fields_by_name.get, NAMED):
        number = scope.DESCRIPTOR.fields_by_name[kind].number
        for index, inside in enumerate(getattr(scope, kind)):
            if kind == "nested_type" and inside.options.map_entry:
                continue  # protoc's own, not in the source
            yield (*path, number, index), inside.name
            yield from named_things(inside, (*path, number, index))


async def test_everything_in_the_public_api_has_its_comment(reflected):
    seen = set()
    for service in SERVICES:
        for name, file in (await reflected.files(file_containing_symbol=service)).items():
            seen.add(name)
            comments = {
                tuple(location.path): location.leading_comments or location.trailing_comments
                for location in file.source_code_info.location
            }
            bare = [what for path, what in named_things(file) if not comments.get(path, "").strip()]
            assert not (name in SOURCES and bare), (name, bare)
    assert seen >= SOURCES


async def test_fields_have_their_json_names(reflected):
    files = await reflected.files(file_containing_symbol="riverrun.v1.RecordBatch")
    (batch,) = (
        message
        for message in files["riverrun/v1/records.proto"].message_type
        if message.name == "RecordBatch"
    )
    names = {field.name: field.json_name for field in batch.field}
    assert names["base_offset"] == "baseOffset"


@pytest.mark.parametrize(
    ("symbol", "file"),
    [
        ("riverrun.v1.ConsumerService.Subscribe", "riverrun/v1/consumer.proto"),
        ("riverrun.v1.SubscribeRequest.kind", "riverrun/v1/consumer.proto"),
        ("riverrun.v1.Record.key", "riverrun/v1/records.proto"),
        ("riverrun.v1.CODEC_GZIP", "riverrun/v1/records.proto"),
        ("riverrun.v1.ErrorReason", "riverrun/v1/errors.proto"),
        (f"{reflection.V1}.ServerReflectionInfo", "grpc_reflection/v1/reflection.proto"),
        (f"{reflection.V1ALPHA}.ServerReflectionInfo", "grpc_reflection/v1alpha/reflection.proto"),
    ],
)
async def test_every_kind_of_symbol_is_found(reflected, symbol, file):
    assert next(iter(await reflected.files(file_containing_symbol=symbol))) == file


async def test_a_file_comes_with_its_imports(reflected):
    files = await reflected.files(file_by_filename="riverrun/v1/consumer.proto")
    imports = {name for file in files.values() for name in file.dependency}
    assert imports <= files.keys()
    assert "google/protobuf/duration.proto" in imports
    v1 = "grpc_reflection/v1/reflection.proto"
    assert set(await reflected.files(file_by_filename=v1)) == {v1}


async def test_what_is_listed_is_described(reflected):
    listed = (await reflected.ask(list_services="")).list_services_response.service
    names = {each.name for each in listed}
    assert names == {*SERVICES, reflection.V1, reflection.V1ALPHA}
    for name in names:
        files = await reflected.files(file_containing_symbol=name)
        file = next(iter(files.values()))
        assert name in {f"{file.package}.{service.name}" for service in file.service}


async def test_v1_is_v1alpha_by_another_name_and_not_deprecated(reflected):
    (v1,) = (await reflected.files(file_containing_symbol=reflection.V1)).values()
    (alpha,) = (await reflected.files(file_containing_symbol=reflection.V1ALPHA)).values()
    assert (v1.package, v1.options.deprecated) == ("grpc.reflection.v1", False)
    assert "v1alpha" not in str(v1)
    assert [message.name for message in v1.message_type] == [
        message.name for message in alpha.message_type
    ]


@pytest.mark.parametrize(
    "question",
    [
        {"file_containing_symbol": "riverrun.v1.NoSuchThing"},
        {"file_containing_symbol": "riverrun.v1.ConsumerService.NoSuchMethod"},
        {"file_by_filename": "riverrun/v1/no_such.proto"},
        {"all_extension_numbers_of_type": "riverrun.v1.NoSuchThing"},
        {
            "file_containing_extension": ExtensionRequest(
                containing_type="riverrun.v1.Record", extension_number=1000
            )
        },
    ],
)
async def test_what_is_not_there_is_not_found(reflected, question):
    assert (await reflected.ask(**question)).error_response.error_code == NOT_FOUND


async def test_a_message_has_no_extensions(reflected):
    response = await reflected.ask(all_extension_numbers_of_type="riverrun.v1.Record")
    assert response.all_extension_numbers_response.base_type_name == "riverrun.v1.Record"
    assert not response.all_extension_numbers_response.extension_number


async def test_the_descriptors_are_read_at_the_first_question_about_them(reflected):
    await reflected.ask(list_services="")
    assert reflection._commented.cache_info().currsize == 0
    await reflected.ask(file_containing_symbol="riverrun.v1.Record")
    assert reflection._commented.cache_info().currsize == 1


def test_the_descriptors_are_those_of_the_generated_code():
    commented = reflection._commented()
    assert set(commented) == SOURCES | {"google/protobuf/duration.proto"}
    for name in SOURCES:
        served, generated = FileDescriptorProto(), FileDescriptorProto()
        served.CopyFrom(commented[name])
        served.ClearField("source_code_info")
        descriptor_pool.Default().FindFileByName(name).CopyToProto(generated)
        forget_json_names(served.message_type)
        assert served == generated, name


def forget_json_names(messages):
    for message in messages:
        for field in message.field:
            field.ClearField("json_name")
        forget_json_names(message.nested_type)
