"""One Subscribe stream: its start and its control, read beside the delivering.

The client's half-close means "no more control" and delivery goes on; what ends a stream is the end
of the call, by which gRPC cancels the handler.
"""

from __future__ import annotations

import asyncio

from riverrun.v1.consumer_pb2 import SubscribeStart
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.reading.control import Broken, Control, HalfClosed
from riverrun_server.core.reading.limits import ReadingLimits
from riverrun_server.rpc.control_messages import Context, control_of, named, read
from riverrun_server.rpc.member_plans import is_member
from riverrun_server.rpc.member_streams import serve_member
from riverrun_server.rpc.reading_plans import subscribe_plan
from riverrun_server.rpc.streams import Streams
from riverrun_server.runtime.reader import Reader


async def subscribe(context: Context, streams: Streams) -> None:
    """Serve a Subscribe stream to its end.

    Raises:
        Refusal: the start is wrong, or the client broke the rules of the stream.
    """
    start = await _start(context)
    if is_member(start):
        await serve_member(context, streams, start)
        return
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
    first = await read(context)
    if first is None:
        raise Refusal(
            Reason.INVALID_REQUEST,
            "the stream was closed before it said what to read; send `start` first",
        )
    kind = first.WhichOneof("kind")
    if kind != "start":
        raise Refusal(
            Reason.INVALID_REQUEST,
            f"the first message of a stream is `start`, and this one is {named(kind)}",
        )
    return first.start


async def _listen(context: Context, reader: Reader, group_id: str, limits: ReadingLimits) -> None:
    """Pass on what the client says; too much at once is read no faster than it is obeyed."""
    control: Control | None = None
    while not isinstance(control, Broken | HalfClosed):
        try:
            message = await read(context)
            control = HalfClosed() if message is None else control_of(message, group_id, limits)
        except Refusal as refusal:
            control = Broken(refusal)
        await reader.control.say(control)
