"""A commit as a client says it, and what is checked of it before anything is looked up."""

from __future__ import annotations

from typing import NamedTuple

from riverrun_server.core.errors import Reason, Refusal

METADATA_BYTES_MAX = 4096
GROUP_ID_BYTES_MAX = 249


class OffsetCommit(NamedTuple):
    """How far a group has come in one partition, as a client says it.

    Attributes:
        topic: the topic's name; may be empty where `topic_id` is set.
        topic_id: the topic's id; may be empty.
        partition: the partition.
        offset: the next offset to read.
        leader_epoch: of the last record read, where known.
        metadata: whatever the application wants to find again.
    """

    topic: str
    topic_id: bytes
    partition: int
    offset: int
    leader_epoch: int | None = None
    metadata: str = ""


def check_group_id(group_id: str) -> None:
    """Check a group's name: 1 to 249 bytes of UTF-8, any printable characters.

    Kafka's users have spaces, colons and slashes in theirs, so they may; control characters, with
    which a name could write into logs and terminals, may not.

    Raises:
        Refusal: INVALID_REQUEST.
    """
    size = len(group_id.encode())
    if 0 < size <= GROUP_ID_BYTES_MAX and group_id.isprintable():
        return
    if not size:
        problem = "it is empty"
    elif size > GROUP_ID_BYTES_MAX:
        problem = f"it has {size} bytes"
    else:
        problem = "it has characters that cannot be printed"
    raise Refusal(
        Reason.INVALID_REQUEST,
        f"group_id {group_id[:80]!r} is no name for a group: {problem}; use 1 to "
        f"{GROUP_ID_BYTES_MAX} bytes of printable text",
    )


def check_commit(commit: OffsetCommit) -> None:
    """Check what can be checked of a commit without its partition.

    Raises:
        Refusal: INVALID_REQUEST, LIMIT_EXCEEDED.
    """
    if commit.offset < 0:
        raise Refusal(
            Reason.INVALID_REQUEST,
            f"offset {commit.offset} is negative; commit the next offset to read, which is 0 or "
            "more",
        )
    if commit.leader_epoch is not None and commit.leader_epoch < 0:
        raise Refusal(
            Reason.INVALID_REQUEST,
            f"leader_epoch {commit.leader_epoch} is negative; leave it out where it is not known",
        )
    size = len(commit.metadata.encode())
    if size > METADATA_BYTES_MAX:
        raise Refusal(
            Reason.LIMIT_EXCEEDED,
            f"metadata has {size} bytes and {METADATA_BYTES_MAX} are allowed; keep it elsewhere "
            "and commit a reference",
        )


def check_within(commit: OffsetCommit, log_start: int, log_end: int) -> None:
    """Check that an offset does not lie beyond the log end.

    Kafka takes any offset, and the reader is reset silently later. What was deleted may be
    committed: a slow reader may have read it.

    Raises:
        Refusal: OFFSET_OUT_OF_RANGE.
    """
    if commit.offset > log_end:
        raise Refusal(
            Reason.OFFSET_OUT_OF_RANGE,
            f"offset {commit.offset} lies beyond the log end {log_end} and cannot have been read; "
            "commit a delivery's next_offset",
            available=(log_start, log_end),
        )
