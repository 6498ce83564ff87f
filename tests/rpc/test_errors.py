"""What a client sees of a refusal, a bug and a cancellation."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio
import pytest
import structlog.testing
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpc_status import rpc_status

from riverrun.v1 import errors_pb2, metadata_pb2, metadata_pb2_grpc
from riverrun_server.core.errors import MEANINGS, Reason, Refusal
from riverrun_server.rpc.errors import DOMAIN, Edge, to_proto, to_status


class _Failing(metadata_pb2_grpc.MetadataServiceServicer):
    def __init__(self, error: BaseException) -> None:
        self.error = error

    async def GetServerInfo(self, request, context):  # noqa: N802
        async with Edge(context, "MetadataService/GetServerInfo"):
            raise self.error


async def _call(error: BaseException) -> grpc.aio.AioRpcError:
    server = grpc.aio.server()
    metadata_pb2_grpc.add_MetadataServiceServicer_to_server(_Failing(error), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = metadata_pb2_grpc.MetadataServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.GetServerInfo(metadata_pb2.GetServerInfoRequest(), timeout=10)
            return caught.value
    finally:
        await server.stop(None)


def _details(error: grpc.aio.AioRpcError):
    key = "grpc-status-details-bin"
    data = next(value for name, value in error.trailing_metadata() if name == key)
    status = rpc_status.status_pb2.Status.FromString(data)
    assert status.message == error.details()
    assert status.code == error.code().value[0]
    return status.details


async def test_a_refusal_travels_as_status_with_error_and_the_standard_details():
    refusal = Refusal(Reason.STORAGE_STALLED, "the disk is behind")
    caught = await _call(refusal)
    assert caught.code() is grpc.StatusCode.UNAVAILABLE
    assert caught.details() == "the disk is behind"
    ours, info, retry = errors_pb2.Error(), ErrorInfo(), RetryInfo()
    packed = _details(caught)
    assert len(packed) == 3
    assert packed[0].Unpack(ours)
    assert packed[1].Unpack(info)
    assert packed[2].Unpack(retry)
    assert ours == to_proto(refusal)
    assert (info.reason, info.domain) == ("STORAGE_STALLED", DOMAIN)
    assert retry.retry_delay.ToMilliseconds() == 100


async def test_a_bug_is_internal_with_unknown_outcome_and_tells_its_text_only_to_the_log():
    with structlog.testing.capture_logs() as logs:
        caught = await _call(ZeroDivisionError("secret detail"))
    assert caught.code() is grpc.StatusCode.INTERNAL
    ours = errors_pb2.Error()
    assert _details(caught)[0].Unpack(ours)
    assert ours.outcome == errors_pb2.OUTCOME_UNKNOWN
    assert "secret detail" not in str(caught)
    [line] = logs
    assert line["method"] == "MetadataService/GetServerInfo"
    assert line["incident"] in caught.details()
    assert isinstance(line["exc_info"], ZeroDivisionError)


async def test_cancellation_passes_through_the_edge():
    class Context:
        async def abort_with_status(self, status):
            raise AssertionError(status)

    with pytest.raises(asyncio.CancelledError):
        async with Edge(Context(), "m"):
            raise asyncio.CancelledError


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_status_that_says_what_the_table_says(reason):
    status = to_status(Refusal(reason, "text"))
    meaning = MEANINGS[reason]
    assert status.code == grpc.StatusCode[meaning.code].value[0]
    error = errors_pb2.Error()
    assert status.details[0].Unpack(error)
    assert error.reason == reason
    assert error.retry_safe is meaning.retry_safe
    assert (error.outcome == errors_pb2.OUTCOME_NOTHING_HAPPENED) is meaning.definite
    assert error.HasField("retry_after") is (meaning.retry_after_s is not None)


def test_what_only_some_refusals_carry_is_absent_elsewhere_and_present_even_as_zero():
    bare = to_proto(Refusal(Reason.INTERNAL, "text"))
    assert not bare.HasField("available")
    assert not bare.HasField("expected_sequence")
    assert not bare.HasField("diverging_offset")
    full = to_proto(
        Refusal(
            Reason.OFFSET_OUT_OF_RANGE,
            "text",
            available=(0, 7),
            expected_sequence=0,
            diverging_offset=0,
        )
    )
    assert (full.available.earliest, full.available.latest) == (0, 7)
    assert full.HasField("expected_sequence")
    assert full.HasField("diverging_offset")


async def test_a_huge_text_from_a_stranger_still_arrives_and_is_safe_to_print():
    name = "\x1b[2J\r\n\ud800" + "ü" * 20_000
    caught = await _call(Refusal(Reason.INVALID_NAME, f"bad name {name}"))
    assert caught.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.details().isprintable()
    assert len(caught.details().encode()) <= 1024
    assert caught.details().startswith("bad name \\x1b[2J\\r\\n\\ud800ü")
