"""TextService: producing and following a topic with strings, for shells.

What its methods raise is answered by the admission that stands around every call.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from riverrun.v1.producer_pb2 import ProduceRequest, ProduceResponse
from riverrun.v1.records_pb2 import Header, Record
from riverrun.v1.text_pb2 import (
    TailRequest,
    TextRecord,
    TextServiceProduceRequest,
    TextServiceProduceResponse,
)
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.rpc.appends import check_records
from riverrun_server.rpc.reading_plans import tail_plan
from riverrun_server.rpc.streams import Streams

SERVICE = "riverrun.v1.TextService"

_Context = grpc.aio.ServicerContext[Any, Any]


class TextService:
    """Serves riverrun.v1.TextService.

    Args:
        streams: runs the streams.
        append: does what ProducerService.Produce does.
    """

    def __init__(
        self, streams: Streams, append: Callable[[ProduceRequest], Awaitable[ProduceResponse]]
    ) -> None:
        self._streams = streams
        self._append = append

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the service's methods; what is tailed comes serialised already."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Produce": grpc.unary_unary_rpc_method_handler(
                    self.produce,
                    TextServiceProduceRequest.FromString,
                    TextServiceProduceResponse.SerializeToString,
                ),
                "Tail": grpc.unary_stream_rpc_method_handler(
                    self.tail, TailRequest.FromString, bytes
                ),
            },
        )

    async def produce(
        self, request: TextServiceProduceRequest, _: _Context
    ) -> TextServiceProduceResponse:
        """Append one record or several."""
        response = await self._append(_plain(request))
        return TextServiceProduceResponse(results=response.results)

    async def tail(self, request: TailRequest, context: _Context) -> None:
        """Follow a topic, one record a message."""
        services = self._streams.services
        plan = tail_plan(request, services.directory, services.limits)
        await self._streams.deliver(plan, context.write)


def _plain(request: TextServiceProduceRequest) -> ProduceRequest:
    single = request.HasField("key") or request.HasField("value")
    if single and request.records:
        raise Refusal(
            Reason.INVALID_REQUEST,
            "a request has one record in `key` and `value`, or several in `records`, not both",
        )
    if not single and not request.records:
        raise Refusal(
            Reason.INVALID_REQUEST, "the request has nothing to produce; set `value`, or `records`"
        )
    if not single:
        check_records(len(request.records))
        # A header takes what a record does.
        headers = sum([len(each.headers) for each in request.records])
        check_records(len(request.records) + headers, "records and headers")
    records = [TextRecord(key=_key(request), value=_value(request))] if single else request.records
    return ProduceRequest(
        topic=request.topic,
        partition=request.partition if request.HasField("partition") else None,
        records=[_record(each) for each in records],
        acks=request.acks,
    )


def _key(message: TextServiceProduceRequest | TextRecord) -> str | None:
    return message.key if message.HasField("key") else None


def _value(message: TextServiceProduceRequest | TextRecord) -> str | None:
    return message.value if message.HasField("value") else None


def _record(record: TextRecord) -> Record:
    key, value = _key(record), _value(record)
    return Record(
        key=None if key is None else key.encode(),
        value=None if value is None else value.encode(),
        timestamp_ms=record.timestamp_ms if record.HasField("timestamp_ms") else None,
        headers=[Header(key=each.key, value=each.value.encode()) for each in record.headers],
    )
