"""What a request says of itself in a few bounded words: topics, group, records, bytes.

It goes by the names that fields have in every request of `riverrun.v1`, so that a new method needs
nothing here. Only requests that get a line in the log are looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final, NamedTuple

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from riverrun_server.rpc.call_notes import TOPICS_NAMED

_NAME_MAX: Final = 256
_LOOKED_AT: Final = 64
# Lists of messages that name a topic each.
_LISTS: Final = ("batches", "positions", "offsets", "partitions", "queries")


class Named(NamedTuple):
    """What a request names: the first few topics, and a group or nothing."""

    topics: list[str]
    group_id: str


def named_in(request: object) -> Named:
    """Return the topics and the group that a request names, names cut where they are too long."""
    if not isinstance(request, Message):
        return Named([], "")
    topics = list(islice(dict.fromkeys(_topics(request)), TOPICS_NAMED))
    return Named(topics, str(getattr(request, "group_id", "")))


def records_in(request: object) -> int:
    """Return how many records a request carries."""
    count = len(getattr(request, "records", ()))
    for each in getattr(request, "batches", ()):
        count += each.batch.record_count
    return count


def size_of(message: object) -> int:
    """Return how many bytes a message has on the wire."""
    if isinstance(message, bytes):
        return len(message)
    return message.ByteSize() if isinstance(message, Message) else 0


def allowed_wait_s(request: Any) -> float:
    """Return how long a request allows the broker to wait for data, which is no slowness."""
    if not isinstance(request, Message) or "max_wait" not in request.DESCRIPTOR.fields_by_name:
        return 0.0
    wait: Duration = getattr(request, "max_wait")  # noqa: B009 - only some messages have it
    return max(0.0, wait.seconds + wait.nanos / 1e9)


def _topics(request: Any) -> Iterator[str]:
    topic = getattr(request, "topic", "")
    if topic:
        yield _cut(topic)
    for topic in islice(getattr(request, "topics", ()), _LOOKED_AT):
        yield _cut(topic)
    for name in _LISTS:
        items = getattr(request, name, ())
        if isinstance(items, int):
            continue  # a number of partitions
        for item in islice(items, _LOOKED_AT):
            if item.topic:
                yield _cut(item.topic)


def _cut(name: str) -> str:
    return name if len(name) <= _NAME_MAX else f"{name[:_NAME_MAX]}…"
