"""The serving side of streams and calls between brokers: the first words, where a stranger's ends, and the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeAlias, TypeVar

import grpc
import grpc.aio
import structlog
from google.protobuf.message import Message

from riverrun_server.peer.both_ways import both_ways
from riverrun_server.peer.hello import HELLO_S, Myself, WrongPeer
from riverrun_server.peer.messages import InvalidMessage
from riverrun_server.peer.v1.replication_pb2 import PeerHello

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

M = TypeVar("M", bound=Message)

_log = structlog.stdlib.get_logger(__name__)

GIVEN_UP: Final = (
    "this broker has given the stream up, for it ends or there is a newer one; begin another"
)


async def read(context: Context, kind: type[M]) -> M | None:
    """Return the next message, or None behind the last one."""
    message: object = await context.read()
    return message if isinstance(message, kind) else None


async def first_of(context: Context, kind: type[M]) -> M:
    """Return the message that a stream begins with; a call that has none ends here.

    Raises:
        grpc.aio.AbortError
    """
    first: M | None = None
    try:
        async with asyncio.timeout(HELLO_S):
            first = await read(context, kind)
    except TimeoutError:
        await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the stream began with nothing")
    if first is None:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the stream began with its end")
    assert first is not None, "abort raises"
    return first


async def check(context: Context, myself: Myself, hello: PeerHello) -> None:
    """End the call of whoever is no other broker of this cluster.

    Raises:
        grpc.aio.AbortError
    """
    try:
        myself.check(hello)
    except WrongPeer as wrong:
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(wrong))


async def serve(
    context: Context,
    broker: int,
    read: Coroutine[Any, Any, None],
    write: Coroutine[Any, Any, None],
) -> None:
    """Hear and tell a broker until either side ends the stream; one that talks nonsense is ended.

    Raises:
        grpc.aio.AbortError
    """
    try:
        await both_ways(read, write)
    except InvalidMessage as invalid:
        _log.warning("a broker said what no version says", broker=broker, why=str(invalid))
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(invalid))


class Processes:
    """The newest process of each broker that has been here.

    An earlier one does not know yet that it is over, for it is cut off from the metadata; it must not
    end the streams of its successor.
    """

    def __init__(self) -> None:
        self._newest: dict[int, int] = {}

    async def admit(self, context: Context, myself: Myself, hello: PeerHello) -> None:
        """End the call of whoever is no other broker of this cluster, or not its newest process.

        Raises:
            grpc.aio.AbortError
        """
        await check(context, myself, hello)
        newest = self._newest.get(hello.broker_id, 0)
        if hello.broker_epoch < newest:
            text = (
                f"broker {hello.broker_id} has been here as process {newest}, and this is process "
                f"{hello.broker_epoch}, an earlier one: it has been replaced"
            )
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, text)
        self._newest[hello.broker_id] = hello.broker_epoch
