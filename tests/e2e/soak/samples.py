"""Measures a broker's process every few seconds: memory, handles, threads, disk, latency, loop, collector; and the machine."""

from __future__ import annotations

import asyncio
import os
import statistics
import threading
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

_METRICS_TIMEOUT_S = 10.0
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Sample:
    """How everything was at a moment; figures of a window are of the time since the last sample.

    Attributes:
        at_s: seconds since the run began.
        rss_mib: memory of the broker's process that is in use.
        handles: its open files and sockets.
        threads: its threads.
        cpu: processor seconds it took in each second of the window.
        disk_mib: what its data takes on the disk.
        wal_mib: the write-ahead log's part of that.
        tables: how many sorted tables there are.
        acks_per_s: records acknowledged to the steady writers in each second of the window.
        p50_ms: of these acknowledgements' latencies; None where there was none.
        loop_lag_ms: the longest that its event loop was late in the last ten to twenty seconds.
        collections: full garbage collections since its start.
        uncollectable: objects that the collector could not free.
        load_rss_mib: memory of the process that makes the load, which is the client library's.
        load_tasks: tasks in it.
        load_handles: its open files and sockets.
        load_threads: its threads.
        load_cpu: processor seconds it took in each second of the window.
        cores: of the machine that a process may use.
        stall_mean_ms: how late the machine let a process run that does nothing else, in the window;
            None where the witness was not heard of.
        stall_p99_ms: the 99th percentile of that,
        stall_worst_ms: and the longest.
        sync_ms: the median of how long a small file of another process took to be synced, likewise.
    """

    at_s: float
    rss_mib: float
    handles: float
    threads: float
    cpu: float
    disk_mib: float
    wal_mib: float
    tables: float
    acks_per_s: float
    p50_ms: float | None
    p99_ms: float | None
    loop_lag_ms: float
    collections: float
    uncollectable: float
    load_rss_mib: float
    load_tasks: float
    load_handles: float
    load_threads: float
    load_cpu: float
    cores: int
    stall_mean_ms: float | None
    stall_p99_ms: float | None
    stall_worst_ms: float | None
    sync_ms: float | None


class Sampler:
    """Takes samples of one broker.

    Args:
        pid: of its process.
        http_address: where it answers probes.
        data_dir: where its data is.
    """

    def __init__(self, pid: int, http_address: str, data_dir: Path) -> None:
        self._process = Path("/proc") / str(pid)
        self._metrics = f"http://{http_address}/metrics"
        self._data_dir = data_dir
        self._began_s = time.monotonic()
        self._last_s = self._began_s
        self._last_cpu_s: float | None = None
        self._last_load_cpu_s = time.process_time()

    async def take(
        self, latencies_ms: Sequence[float], stalls_ms: Sequence[float], syncs_ms: Sequence[float]
    ) -> Sample:
        """Take a sample, with the latencies and the witness's delays and syncs since the last one."""
        figures = await asyncio.to_thread(self._scrape)
        disk, wal, tables = await asyncio.to_thread(self._disk)
        now_s = time.monotonic()
        window_s, self._last_s = now_s - self._last_s, now_s
        cpu_s = figures["process_cpu_seconds_total"]
        used_s = cpu_s - (cpu_s if self._last_cpu_s is None else self._last_cpu_s)
        self._last_cpu_s = cpu_s
        load_cpu_s = time.process_time()
        load_used_s, self._last_load_cpu_s = load_cpu_s - self._last_load_cpu_s, load_cpu_s
        own = Path("/proc/self")
        p50_ms, p99_ms = percentiles(latencies_ms)
        return Sample(
            at_s=now_s - self._began_s,
            rss_mib=_rss_mib(self._process),
            handles=_handles(self._process),
            threads=_threads(self._process),
            cpu=used_s / window_s,
            disk_mib=disk / _MIB,
            wal_mib=wal / _MIB,
            tables=tables,
            acks_per_s=len(latencies_ms) / window_s,
            p50_ms=p50_ms,
            p99_ms=p99_ms,
            loop_lag_ms=1_000 * figures["riverrun_loop_lag_seconds"],
            collections=figures["python_gc_collections_total/2"],
            uncollectable=figures["python_gc_objects_uncollectable_total/2"],
            load_rss_mib=_rss_mib(own),
            load_tasks=len(asyncio.all_tasks()),
            load_handles=_handles(own),
            load_threads=threading.active_count(),
            load_cpu=load_used_s / window_s,
            cores=len(os.sched_getaffinity(0)),
            stall_mean_ms=statistics.fmean(stalls_ms) if stalls_ms else None,
            stall_p99_ms=percentiles(stalls_ms)[1],
            stall_worst_ms=max(stalls_ms, default=None),
            sync_ms=statistics.median(syncs_ms) if syncs_ms else None,
        )

    def _scrape(self) -> dict[str, float]:
        """Return what the broker says of itself, by name and generation of the collector."""
        with urllib.request.urlopen(self._metrics, timeout=_METRICS_TIMEOUT_S) as page:
            text = page.read().decode()
        return {
            "/".join(filter(None, (one.name, one.labels.get("generation")))): one.value
            for family in text_string_to_metric_families(text)
            for one in family.samples
        }

    def _disk(self) -> tuple[int, int, int]:
        """Return bytes of all files, bytes of the write-ahead log, and how many tables there are."""
        disk = wal = tables = 0
        for folder, _, names in os.walk(self._data_dir):
            for name in names:
                try:
                    size = Path(folder, name).stat().st_blocks * 512
                except FileNotFoundError:
                    continue  # deleted in between
                disk += size
                wal += size if name.endswith(".log") else 0
                tables += name.endswith(".sst")
        return disk, wal, tables


def percentiles(latencies_ms: Sequence[float]) -> tuple[float | None, float | None]:
    """Return the median and the 99th percentile; None for both of nothing."""
    if len(latencies_ms) < 2:
        return None, None
    cuts = statistics.quantiles(latencies_ms, n=100, method="inclusive")
    return cuts[49], cuts[98]


def _status(process: Path, field: str) -> int:
    for line in (process / "status").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == field:
            return int(rest.split()[0])
    raise AssertionError(f"{process} has no {field}: has it ended?")


def _rss_mib(process: Path) -> float:
    return _status(process, "VmRSS") / 1024


def _threads(process: Path) -> int:
    return _status(process, "Threads")


def _handles(process: Path) -> int:
    return sum(1 for _ in (process / "fd").iterdir())
