"""One Subscribe stream: its start and its control, read beside the delivering.

The client's half-close means "no more control" and delivery goes on; what ends a stream is the end
of the call, by which gRPC cancels the handler.
"""

from __future__ import annotations

import asyncio
from typing import TypeAlias

import grpc.aio
from google.protobuf.message import DecodeError

from riverrun.v1.consumer_pb2 import SubscribeRequest, SubscribeStart
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.reading.control import (
    Broken,
    Commit,
    Control,
    Grant,
    HalfClosed,
    Pause,
    Resume,
    Seek,
)
from riverrun_server.core.reading.limits import ReadingLimits
from riverrun_server.core.reading.places import Place
from riverrun_server.rpc.reading_plans import subscribe_plan
from riverrun_server.rpc.reading_requests import (
    check_count,
    check_not_negative,
    commits_of,
    partition_name,
    place_of_position,
)
from riverrun_server.rpc.streams import Streams
from riverrun_server.runtime.reader import Reader

Context: TypeAlias = grpc.aio.ServicerContext[SubscribeRequest, bytes]


async def subscribe(context: Context, streams: Streams) -> None:
    """Serve a Subscribe stream to its end.

    Raises:
        Refusal: the start is wrong, or the client broke the rules of the stream.
    """
    start = await _start(context)
    services = streams.services
    plan = subscribe_plan(start, services.directory, services.limits)
    listening: list[asyncio.Task[None]] = []

    def opened(reader: Reader) -> None:
        def listened(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                reader.fail(error)

        task = asyncio.create_task(
            _listen(context, reader, plan.group_id, services.limits), name="subscribe: control"
        )
        task.add_done_callback(listened)
        listening.append(task)

    try:
        await streams.deliver(plan, context.write, opened)
    finally:
        for task in listening:
            task.cancel()
        await asyncio.gather(*listening, return_exceptions=True)


async def _start(context: Context) -> SubscribeStart:
    first = await _read(context)
    if first is None:
        raise Refusal(
            Reason.INVALID_REQUEST,
            "the stream was closed before it said what to read; send `start` first",
        )
    kind = first.WhichOneof("kind")
    if kind != "start":
        raise Refusal(
            Reason.INVALID_REQUEST,
            f"the first message of a stream is `start`, and this one is {_named(kind)}",
        )
    return first.start


async def _listen(context: Context, reader: Reader, group_id: str, limits: ReadingLimits) -> None:
    """Pass on what the client says; too much at once is read no faster than it is obeyed."""
    control: Control | None = None
    while not isinstance(control, Broken | HalfClosed):
        try:
            message = await _read(context)
            control = HalfClosed() if message is None else _control(message, group_id, limits)
        except Refusal as refusal:
            control = Broken(refusal)
        await reader.control.say(control)


async def _read(context: Context) -> SubscribeRequest | None:
    """Return the next message, or None behind the last one.

    Raises:
        Refusal: INVALID_REQUEST for bytes that are no message.
    """
    try:
        message = await context.read()
    except DecodeError as error:
        raise Refusal(
            Reason.INVALID_REQUEST, f"a message of the stream is no SubscribeRequest: {error}"
        ) from error
    return message if isinstance(message, SubscribeRequest) else None


def _control(message: SubscribeRequest, group_id: str, limits: ReadingLimits) -> Control:
    kind = message.WhichOneof("kind")
    match kind:
        case "credit":
            credit = message.credit
            check_not_negative("credit.records", credit.records)
            check_not_negative("credit.bytes", credit.bytes)
            return Grant(
                credit.records if credit.HasField("records") else None,
                credit.bytes if credit.HasField("bytes") else None,
            )
        case "seek":
            seek = message.seek
            place: Place | Refusal
            try:
                place = place_of_position(seek.position, group_id)
            except Refusal as refusal:
                place = refusal
            return Seek(seek.seek_id, partition_name(seek.position), place)
        case "pause":
            check_count("pause.partitions", len(message.pause.partitions), limits)
            return Pause([partition_name(each) for each in message.pause.partitions])
        case "resume":
            check_count("resume.partitions", len(message.resume.partitions), limits)
            return Resume([partition_name(each) for each in message.resume.partitions])
        case "commit":
            check_count("commit.offsets", len(message.commit.offsets), limits)
            return Commit(message.commit.commit_id, commits_of(message.commit.offsets))
    raise Refusal(
        Reason.INVALID_REQUEST,
        "`start` may only be the first message of a stream; open another one to read something else"
        if kind == "start"
        else f"a message of the stream is {_named(kind)}",
    )


def _named(kind: str | None) -> str:
    return f"`{kind}`" if kind else "empty or of a kind that this broker does not know"
