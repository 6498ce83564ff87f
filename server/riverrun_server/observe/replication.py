"""Figures of replication for the metrics page: what is led and followed here, who is behind, who was elected."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector


@dataclass(frozen=True, slots=True)
class ReplicationFigures:
    """A moment of one broker of a cluster; counters run from its start.

    Attributes:
        led: partitions that it leads.
        followed: partitions that it follows.
        stopped: replicas of it whose data cannot be trusted.
        under_replicated: of those led, the ones with a replica that is not in sync.
        under_min_isr: of those led, the ones with too few in sync to take appends of acks=all.
        lag_records: how far the follower that is furthest behind is behind a leader here.
        isr_shrinks: how often a replica left those in sync of a partition led here.
        isr_expands: how often one joined them.
        is_controller: whether it controls the cluster.
        elections: leaders that it elected as controller.
        unclean_elections: those of them that lost data, as their topics accept.
        fenced: brokers that it took out of the cluster as controller, each time counted.
        offline: partitions of the whole cluster that nobody leads; 0 where it is not the controller.
    """

    led: int
    followed: int
    stopped: int
    under_replicated: int
    under_min_isr: int
    lag_records: int
    isr_shrinks: int
    isr_expands: int
    is_controller: bool
    elections: int
    unclean_elections: int
    fenced: int
    offline: int


class ReplicationCollector(Collector):
    """Shows the newest figures, none on a broker that is alone; `publish` replaces them."""

    def __init__(self) -> None:
        self._figures: ReplicationFigures | None = None

    def publish(self, figures: ReplicationFigures) -> None:
        """Take new figures."""
        self._figures = figures

    def collect(self) -> Iterable[Metric]:
        """Return the families of a scrape."""
        figures = self._figures
        families: list[Metric] = []
        for name, explanation, value in _COUNTERS:
            counted = value(figures) if figures else None
            families.append(CounterMetricFamily(name, explanation, counted))
        for name, explanation, value in _GAUGES:
            measured = value(figures) if figures else None
            families.append(GaugeMetricFamily(name, explanation, measured))
        replicas = GaugeMetricFamily(
            "riverrun_replicas",
            "Replicas on this broker, by what they are; a stopped one has damaged data.",
            labels=["role"],
        )
        if figures:
            replicas.add_metric(["leader"], figures.led)
            replicas.add_metric(["follower"], figures.followed)
            replicas.add_metric(["stopped"], figures.stopped)
        return [*families, replicas]


_Shown = tuple[str, str, Callable[[ReplicationFigures], float]]

_COUNTERS: Final[tuple[_Shown, ...]] = (
    (
        "riverrun_isr_shrinks_total",
        "How often a replica left those in sync of a partition that this broker leads.",
        lambda figures: figures.isr_shrinks,
    ),
    (
        "riverrun_isr_expands_total",
        "How often a replica joined those in sync of a partition that this broker leads.",
        lambda figures: figures.isr_expands,
    ),
    (
        "riverrun_elections_total",
        "Leaders that this broker elected while it was the controller.",
        lambda figures: figures.elections,
    ),
    (
        "riverrun_unclean_elections_total",
        "Those of them that did not have all that was committed, as their topics accept.",
        lambda figures: figures.unclean_elections,
    ),
    (
        "riverrun_fenced_brokers_total",
        "How often this broker, as the controller, found another one gone.",
        lambda figures: figures.fenced,
    ),
)
_GAUGES: Final[tuple[_Shown, ...]] = (
    (
        "riverrun_under_replicated_partitions",
        "Partitions led here of which a replica is not in sync.",
        lambda figures: figures.under_replicated,
    ),
    (
        "riverrun_under_min_isr_partitions",
        "Partitions led here that refuse appends of acks=all, for too few replicas are in sync.",
        lambda figures: figures.under_min_isr,
    ),
    (
        "riverrun_replica_lag_records",
        "How far the follower that is furthest behind is behind a leader on this broker.",
        lambda figures: figures.lag_records,
    ),
    (
        "riverrun_controller",
        "1 on the broker that controls the cluster, else 0.",
        lambda figures: figures.is_controller,
    ),
    (
        "riverrun_offline_partitions",
        "Partitions of the whole cluster that nobody leads; only the controller counts them.",
        lambda figures: figures.offline,
    ),
)
