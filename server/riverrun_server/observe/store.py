"""Figures of the store for the metrics page: what it has written, what it holds, how it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector


@dataclass(frozen=True, slots=True)
class StoreFigures:
    """A moment of a store; counters run from its opening.

    Attributes:
        wal_bytes: written to write-ahead logs.
        flushed_bytes: written into tables from memory.
        compacted_bytes: written into tables from other tables.
        compaction_read_bytes: read for that.
        memtable_bytes: in memory, not yet in tables.
        table_bytes: of all tables.
        tables: how many there are.
        writes: write calls.
        write_us: how long they took together, microseconds.
        stall_us: how long of that they were held back, microseconds.
        write_stopped: RocksDB refuses writes until it has caught up.
        unsynced_writes: written, but not known to be on the disk.
        slots: how many there are.
        slots_free: those that no partition occupies.
        partitions_sharing: partitions whose slot is not theirs alone.
    """

    wal_bytes: int
    flushed_bytes: int
    compacted_bytes: int
    compaction_read_bytes: int
    memtable_bytes: int
    table_bytes: int
    tables: int
    writes: int
    write_us: int
    stall_us: int
    write_stopped: bool
    unsynced_writes: int
    slots: int
    slots_free: int
    partitions_sharing: int

    @property
    def write_amplification(self) -> float:
        """Bytes written to the disk for each byte written to the store; 0 before any."""
        written = self.wal_bytes + self.flushed_bytes + self.compacted_bytes
        return written / self.wal_bytes if self.wal_bytes else 0.0


class StoreCollector(Collector):
    """Shows the newest figures; `publish` replaces them, from another thread if need be."""

    def __init__(self) -> None:
        self._figures: StoreFigures | None = None

    def publish(self, figures: StoreFigures | None) -> None:
        """Take new figures; None where the store cannot say, which shows rather than old ones."""
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
        slots = GaugeMetricFamily(
            "riverrun_store_slots",
            "Slots of the store; partitions share slots and cost more writes when none is free.",
            labels=["state"],
        )
        if figures:
            slots.add_metric(["free"], figures.slots_free)
            slots.add_metric(["occupied"], figures.slots - figures.slots_free)
        return [*families, slots]


_Shown = tuple[str, str, Callable[[StoreFigures], float]]

_COUNTERS: Final[tuple[_Shown, ...]] = (
    (
        "riverrun_store_wal_bytes_total",
        "Bytes written to the write-ahead log: all that was produced, and what goes with it.",
        lambda figures: figures.wal_bytes,
    ),
    (
        "riverrun_store_flushed_bytes_total",
        "Bytes written into tables from memory.",
        lambda figures: figures.flushed_bytes,
    ),
    (
        "riverrun_store_compacted_bytes_total",
        "Bytes written into tables from other tables.",
        lambda figures: figures.compacted_bytes,
    ),
    (
        "riverrun_store_compaction_read_bytes_total",
        "Bytes read from tables to write others from them.",
        lambda figures: figures.compaction_read_bytes,
    ),
    (
        "riverrun_store_writes_total",
        "Writes to the store, each an append, a commit or the like.",
        lambda figures: figures.writes,
    ),
    (
        "riverrun_store_write_seconds_total",
        "How long these writes took together, without their syncs.",
        lambda figures: figures.write_us / 1e6,
    ),
    (
        "riverrun_store_stall_seconds_total",
        "How long writes were held back together, for the store's own work could not keep up.",
        lambda figures: figures.stall_us / 1e6,
    ),
)
_GAUGES: Final[tuple[_Shown, ...]] = (
    (
        "riverrun_store_write_amplification_ratio",
        "Bytes written (log, flushed, compacted) for each in the write-ahead log, since the start.",
        lambda figures: figures.write_amplification,
    ),
    (
        "riverrun_store_memtable_bytes",
        "Bytes that are in memory and the write-ahead log, and not in tables yet.",
        lambda figures: figures.memtable_bytes,
    ),
    (
        "riverrun_store_table_bytes",
        "Bytes of all tables on the disk.",
        lambda figures: figures.table_bytes,
    ),
    (
        "riverrun_store_tables",
        "Tables on the disk, each a file.",
        lambda figures: figures.tables,
    ),
    (
        "riverrun_store_write_stopped",
        "1 while the store takes no writes until its own work has caught up, else 0.",
        lambda figures: figures.write_stopped,
    ),
    (
        "riverrun_store_unsynced_writes",
        "Writes that are not known to be on the disk; more and more of them when syncs hang.",
        lambda figures: figures.unsynced_writes,
    ),
    (
        "riverrun_store_partitions_sharing",
        "Partitions whose slot is not theirs alone; more slots (storage.slots) help new ones.",
        lambda figures: figures.partitions_sharing,
    ),
)
