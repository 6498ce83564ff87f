"""Where a reset moves a group: targets of a request as offsets that partitions have."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from riverrun.v1 import consumer_pb2, group_pb2
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.offsets import CommittedOffset, OffsetRecord
from riverrun_server.core.log.batch import PartitionId
from riverrun_server.core.reading.limits import ReadingLimits
from riverrun_server.ports.partitions import Directory, PartitionAccess
from riverrun_server.rpc.reading_requests import check_count, seconds_of, unknown_value

_TIMEOUT_S: Final = 30.0
_TIMEOUT_MAX_S: Final = 300.0
# Lookups by time read the disk.
_AT_ONCE: Final = 8


class Move(NamedTuple):
    """A partition, what is committed there, and where its group is to go on."""

    access: PartitionAccess
    before: CommittedOffset | None
    offset: int


def timeout_of(request: group_pb2.ResetOffsetsRequest) -> float:
    """Return how long members may take to give the partitions up, in seconds.

    Raises:
        Refusal: INVALID_REQUEST.
    """
    if not request.HasField("timeout"):
        return _TIMEOUT_S
    seconds = seconds_of("timeout", request.timeout)
    if seconds > _TIMEOUT_MAX_S:
        raise Refusal(
            Reason.INVALID_REQUEST,
            f"timeout is {seconds:g} s and {_TIMEOUT_MAX_S:g} s are allowed; ask again if that is too short",
        )
    return seconds


async def moves_of(
    targets: Sequence[group_pb2.OffsetTarget],
    directory: Directory,
    committed: Mapping[PartitionId, CommittedOffset],
    limits: ReadingLimits,
) -> list[Move]:
    """Return the moves that targets come to, by topic and partition.

    Raises:
        Refusal: INVALID_REQUEST, LIMIT_EXCEEDED; of a name, or of a partition that cannot tell.
    """
    wanted: dict[PartitionId, tuple[PartitionAccess, group_pb2.OffsetTarget]] = {}
    for target in targets:
        _check(target)
        for access in _meant(target, directory):
            if access.id in wanted:
                raise Refusal(
                    Reason.INVALID_REQUEST,
                    f"partition {access.id.partition} of topic {access.topic!r} is named twice; name "
                    "each once",
                )
            wanted[access.id] = access, target
    check_count("targets", len(wanted), limits)
    chosen = sorted(wanted.values(), key=lambda each: (each[0].topic, each[0].id.partition))
    moves: list[Move] = []
    for at in range(0, len(chosen), _AT_ONCE):
        moves += await asyncio.gather(
            *[
                _move(access, target, committed.get(access.id))
                for access, target in chosen[at : at + _AT_ONCE]
            ]
        )
    return moves


def records_of(group_id: str, moves: Iterable[Move], now_ms: int) -> list[OffsetRecord]:
    """Return what is to be stored for moves."""
    return [
        OffsetRecord(group_id, each.access.id, CommittedOffset(each.offset, None, "", now_ms))
        for each in moves
    ]


def to_message(move: Move) -> group_pb2.OffsetMove:
    """Return a move as it is told."""
    return group_pb2.OffsetMove(
        topic=move.access.topic,
        topic_id=move.access.id.topic_id,
        partition=move.access.id.partition,
        old_offset=None if move.before is None else move.before.offset,
        new_offset=move.offset,
    )


def _check(target: group_pb2.OffsetTarget) -> None:
    to = target.WhichOneof("to")
    if to is None:
        raise Refusal(
            Reason.INVALID_REQUEST,
            "a target says nowhere to go to; set one of from, offset, time_ms, shift",
        )
    places = (consumer_pb2.FROM_EARLIEST, consumer_pb2.FROM_LATEST)
    if to == "from" and (place := getattr(target, "from")) not in places:
        raise unknown_value("from", place, ("FROM_EARLIEST", "FROM_LATEST"))
    if to == "offset" and target.offset < 0:
        raise Refusal(
            Reason.INVALID_REQUEST,
            f"offset {target.offset} is negative; for the ends of a log set `from`",
        )
    if to == "offset" and not target.HasField("partition"):
        raise Refusal(
            Reason.INVALID_REQUEST,
            f"offset {target.offset} is set without `partition`: offsets of different partitions have "
            "nothing to do with one another; name each",
        )


def _meant(target: group_pb2.OffsetTarget, directory: Directory) -> Sequence[PartitionAccess]:
    if directory.is_internal(target.topic):
        raise Refusal(
            Reason.TOPIC_RESERVED,
            f"topic {target.topic!r} belongs to the brokers, and no group reads it; name another one",
        )
    if target.HasField("partition"):
        return [directory.partition(target.topic, b"", target.partition)]
    return directory.partitions(target.topic)


async def _move(
    access: PartitionAccess, target: group_pb2.OffsetTarget, committed: CommittedOffset | None
) -> Move:
    found = None
    if target.WhichOneof("to") == "time_ms":
        found = await access.offset_at_time(target.time_ms)
    marks = await access.watermarks()
    start, end = marks.log_start_offset, marks.high_watermark
    match target.WhichOneof("to"):
        case "from":
            is_start = getattr(target, "from") == consumer_pb2.FROM_EARLIEST
            offset = start if is_start else end
        case "offset":
            offset = target.offset
        case "time_ms":
            offset = end if found is None else found[0]
        case _:
            offset = (start if committed is None else committed.offset) + target.shift
    return Move(access, committed, min(max(offset, start), end))
