"""Metrics of topics, made from figures that are taken now and then, so that appends cost nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

# Topics beyond the cap are summed up under this name, which no topic can have.
OTHER: Final = "(other)"


@dataclass(frozen=True, slots=True)
class TopicFigures:
    """What one topic's partitions on this broker add up to.

    Attributes:
        records: that were ever appended; offsets that compaction skipped count.
        stored_bytes: of batches from the log starts on.
        online: partitions that serve.
        offline: partitions that are damaged and do not.
        appended_bytes: of batches that were ever appended, as stored.
        delivered_records: handed to readers since the broker started, counted by offsets.
        memory_bytes: of batches handed to readers from memory since the broker started.
        disk_bytes: the same, read from the disk.
    """

    records: int = 0
    stored_bytes: int = 0
    online: int = 0
    offline: int = 0
    appended_bytes: int = 0
    delivered_records: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0

    def __add__(self, other: TopicFigures) -> TopicFigures:
        """Add figures up."""
        return TopicFigures(
            self.records + other.records,
            self.stored_bytes + other.stored_bytes,
            self.online + other.online,
            self.offline + other.offline,
            self.appended_bytes + other.appended_bytes,
            self.delivered_records + other.delivered_records,
            self.memory_bytes + other.memory_bytes,
            self.disk_bytes + other.disk_bytes,
        )


class TopicCollector(Collector):
    """Shows the newest figures; `publish` replaces them, from another thread if need be."""

    def __init__(self, max_topics: int) -> None:
        self._max_topics = max_topics
        self._figures: Mapping[str, TopicFigures] = {}

    def publish(self, figures: Mapping[str, TopicFigures]) -> None:
        """Take new figures by topic; past the cap the last in the alphabet share one label."""
        shown: dict[str, TopicFigures] = {}
        for number, name in enumerate(sorted(figures)):
            label = name if number < self._max_topics else OTHER
            shown[label] = shown.get(label, TopicFigures()) + figures[name]
        self._figures = shown

    def collect(self) -> Iterable[Metric]:
        """Return the families of a scrape."""
        figures = self._figures
        records = CounterMetricFamily(
            "riverrun_topic_records_total",
            "Records that were ever appended to a topic.",
            labels=["topic"],
        )
        appended = CounterMetricFamily(
            "riverrun_topic_appended_bytes_total",
            "Bytes of batches that were ever appended to a topic, as stored.",
            labels=["topic"],
        )
        delivered = CounterMetricFamily(
            "riverrun_topic_delivered_records_total",
            "Records of a topic that readers were handed since the start, counted by offsets.",
            labels=["topic"],
        )
        delivered_bytes = CounterMetricFamily(
            "riverrun_topic_delivered_bytes_total",
            "Bytes of batches that readers were handed since the start, from memory or the disk.",
            labels=["topic", "source"],
        )
        stored = GaugeMetricFamily(
            "riverrun_topic_stored_bytes",
            "Bytes of batches that a topic holds.",
            labels=["topic"],
        )
        partitions = GaugeMetricFamily(
            "riverrun_partitions",
            "Partitions on this broker; an offline one is damaged and serves nothing.",
            labels=["state"],
        )
        for topic, each in figures.items():
            records.add_metric([topic], each.records)
            appended.add_metric([topic], each.appended_bytes)
            delivered.add_metric([topic], each.delivered_records)
            delivered_bytes.add_metric([topic, "memory"], each.memory_bytes)
            delivered_bytes.add_metric([topic, "disk"], each.disk_bytes)
            stored.add_metric([topic], each.stored_bytes)
        partitions.add_metric(["online"], sum(each.online for each in figures.values()))
        partitions.add_metric(["offline"], sum(each.offline for each in figures.values()))
        return [records, appended, delivered, delivered_bytes, stored, partitions]
