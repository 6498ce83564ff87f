"""The leader's side of the first words on a gateway's stream or call: a stranger's ends there."""

from __future__ import annotations

import asyncio
from typing import Any, Final, TypeAlias, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from riverrun_server.peer.hello import HELLO_S, Myself, WrongPeer
from riverrun_server.peer.v1.replication_pb2 import PeerHello

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

M = TypeVar("M", bound=Message)

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
