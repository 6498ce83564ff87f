"""Who is measured: Riverrun and Kafka, each with its defaults and with the settings that matter."""

from __future__ import annotations

from dataclasses import dataclass

FSYNC = "fsync"
"""An acknowledged record is on the disk."""
PAGE_CACHE = "page cache"
"""An acknowledged record is in the kernel's memory: a power cut can take it."""


@dataclass(frozen=True, slots=True)
class System:
    """A broker with settings.

    Attributes:
        name: how it is called in tables.
        broker: whose process it is: "riverrun" or "kafka".
        durability: what an acknowledgement stands for.
        topic: the configuration of its topics.
        producer: settings of its producer.
        share: how much of a workload's records it gets, where it is too slow for all of them.
    """

    name: str
    broker: str
    durability: str
    topic: tuple[tuple[str, str], ...] = ()
    producer: tuple[str, ...] = ()
    share: float = 1.0


# What Kafka calls log.flush.interval.messages for a broker, for one topic.
_FLUSH = (("flush.messages", "1"),)
_TUNED = ("batch.size=262144", "linger.ms=5")
_AT_ONCE = ("linger.ms=0",)

RIVERRUN = System("riverrun", "riverrun", FSYNC)
RELAXED = System("riverrun, fsync=relaxed", "riverrun", PAGE_CACHE, (("fsync", "relaxed"),))
KAFKA = System("kafka", "kafka", PAGE_CACHE)
KAFKA_TUNED = System("kafka, batches of 256 KiB", "kafka", PAGE_CACHE, (), _TUNED)
KAFKA_FSYNC = System("kafka, flush.messages=1", "kafka", FSYNC, _FLUSH, (), 0.2)
KAFKA_TUNED_FSYNC = System(
    "kafka, batches of 256 KiB, flush.messages=1", "kafka", FSYNC, _FLUSH, _TUNED, 0.4
)
KAFKA_AT_ONCE = System("kafka, linger.ms=0", "kafka", PAGE_CACHE, (), _AT_ONCE)
KAFKA_AT_ONCE_FSYNC = System(
    "kafka, linger.ms=0, flush.messages=1", "kafka", FSYNC, _FLUSH, _AT_ONCE
)

PRODUCING = (RIVERRUN, RELAXED, KAFKA, KAFKA_TUNED, KAFKA_FSYNC, KAFKA_TUNED_FSYNC)
READING = (RIVERRUN, KAFKA, KAFKA_TUNED)
"""Who is read from: what its producer has written before, for that decides how large batches are."""
ANSWERING = (RIVERRUN, RELAXED, KAFKA, KAFKA_AT_ONCE, KAFKA_AT_ONCE_FSYNC)
ROUND_TRIPS = (RIVERRUN, RELAXED, KAFKA_AT_ONCE, KAFKA_AT_ONCE_FSYNC)
"""Kafka's tool for these sets linger.ms=0 itself."""
