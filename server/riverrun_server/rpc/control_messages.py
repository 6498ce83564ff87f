"""What a reader says on its Subscribe stream, read and checked."""

from __future__ import annotations

from typing import TypeAlias

import grpc.aio
from google.protobuf.message import DecodeError

from riverrun.v1.consumer_pb2 import SubscribeRequest
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.reading.control import Commit, Control, Grant, Pause, Resume, Seek
from riverrun_server.core.reading.limits import ReadingLimits
from riverrun_server.core.reading.places import Place
from riverrun_server.rpc.reading_requests import (
    check_count,
    check_not_negative,
    commits_of,
    partition_name,
    place_of_position,
)

Context: TypeAlias = grpc.aio.ServicerContext[SubscribeRequest, bytes]


async def read(context: Context) -> SubscribeRequest | None:
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


def control_of(message: SubscribeRequest, group_id: str, limits: ReadingLimits) -> Control:
    """Return what a reader says after the start.

    Raises:
        Refusal: INVALID_REQUEST, LIMIT_EXCEEDED.
    """
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
            epoch = message.commit.member_epoch if message.commit.HasField("member_epoch") else None
            return Commit(message.commit.commit_id, commits_of(message.commit.offsets), epoch)
        case "heartbeat" | "revocation_done" | "leave":
            raise Refusal(
                Reason.INVALID_REQUEST,
                f"{named(kind)} is for members of a group, and this stream is none; set `group_id` and "
                "`topics` in `start`, or leave it out",
            )
    raise Refusal(
        Reason.INVALID_REQUEST,
        "`start` may only be the first message of a stream; open another one to read something else"
        if kind == "start"
        else f"a message of the stream is {named(kind)}",
    )


def named(kind: str | None) -> str:
    """Return how a kind of message is called in an error."""
    return f"`{kind}`" if kind else "empty or of a kind that this broker does not know"
