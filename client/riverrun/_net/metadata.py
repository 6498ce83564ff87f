"""What the client knows of topics: asked for when first needed, and again when it has aged."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from riverrun._net.cluster import Cluster
from riverrun._net.failures import from_proto
from riverrun.errors import Reason, TopicNotFoundError

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


async def fetch_topic(cluster: Cluster, topic: str) -> TopicShape:
    """Ask the cluster for a topic, and be told of its leaders from then on.

    Raises:
        TopicNotFoundError: there is none of this name.
        RiverrunError: no broker answers, or it refuses.
    """
    told = await cluster.ask([topic])
    for found in told.topics:
        if found.topic != topic:
            continue
        if found.HasField("error"):
            raise from_proto(found.error, f"topic {topic}")
        cluster.follow([topic])
        now_s = asyncio.get_running_loop().time()
        return TopicShape(found.topic_id, len(found.partitions), now_s)
    raise TopicNotFoundError(
        f"topic {topic}: the broker does not know it; create it with `riverrun topic create "
        f"{topic}` or Admin.create_topic",
        reason=Reason.TOPIC_NOT_FOUND,
    )
