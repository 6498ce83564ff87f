"""What the client knows of topics: asked for when first needed, and again when it has aged."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from riverrun._core.attempts import Attempts
from riverrun._net.channel import Connections
from riverrun._net.failures import from_proto
from riverrun.errors import Reason, TopicNotFoundError
from riverrun.v1 import metadata_pb2

# Partitions that were added are seen after so long at the latest.
_MAX_AGE_S = 30.0


@dataclass(frozen=True, slots=True)
class TopicShape:
    """A topic's id and how many partitions it has, and when that was learnt (monotonic clock)."""

    topic_id: bytes
    partitions: int
    learnt_s: float

    def is_stale(self, now_s: float) -> bool:
        """Whether it is time to ask again."""
        return now_s - self.learnt_s > _MAX_AGE_S

    def renewed(self, now_s: float) -> TopicShape:
        """Return the same as if it had been learnt now."""
        return replace(self, learnt_s=now_s)


async def fetch_topic(connections: Connections, topic: str) -> TopicShape:
    """Ask the cluster for a topic.

    Raises:
        TopicNotFoundError: there is none of this name.
        RiverrunError: no broker answers, or it refuses.
    """
    request = metadata_pb2.GetMetadataRequest(topics=[topic])
    response = await connections.call(
        lambda connection, timeout_s: connection.metadata.GetMetadata(request, timeout=timeout_s),
        f"get metadata of {topic}",
        attempts=Attempts(changes=False),
    )
    for found in response.cluster.topics:
        if found.topic != topic:
            continue
        if found.HasField("error"):
            raise from_proto(found.error, f"topic {topic}")
        now_s = asyncio.get_running_loop().time()
        return TopicShape(found.topic_id, len(found.partitions), now_s)
    raise TopicNotFoundError(
        f"topic {topic}: the broker does not know it; create it with `riverrun topic create "
        f"{topic}` or Admin.create_topic",
        reason=Reason.TOPIC_NOT_FOUND,
    )
