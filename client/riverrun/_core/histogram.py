"""Latencies in little memory: counts by magnitude, exact to one part in 128.

The layout is that of HdrHistogram (Tene): each power of two is cut into equally wide buckets, so
the relative error is the same everywhere, and recording is two shifts and an addition.
"""

from __future__ import annotations

from dataclasses import dataclass

_SUB_BITS = 7
_SUB = 1 << _SUB_BITS
QUANTILES = {"p50": 0.5, "p99": 0.99, "p999": 0.999}


@dataclass(frozen=True, slots=True)
class Durations:
    """How long something has taken, over all the times that it was measured; 0 without any.

    Attributes:
        count: how many were measured.
        mean_s: the mean, in s.
        p50_s: half of them took no longer, in s, to one part in 128.
        p99_s: so did 99 of 100.
        max_s: the longest, in s.

    Example:
        await producer.send("orders", b"2 apples")
        took = producer.statistics().acknowledgement_time
        print(f"p50 {took.p50_s * 1000:.1f} ms, p99 {took.p99_s * 1000:.1f} ms")
    """

    count: int = 0
    mean_s: float = 0.0
    p50_s: float = 0.0
    p99_s: float = 0.0
    max_s: float = 0.0


class Histogram:
    """Counts of latencies in ns.

    Attributes:
        count: how many were recorded.
        total_ns: all of them together.
        max_ns: the largest, exactly.
    """

    def __init__(self) -> None:
        self.count = 0
        self.total_ns = 0
        self.max_ns = 0
        self._buckets: dict[int, int] = {}

    def record(self, latency_ns: int, count: int = 1) -> None:
        """Count a latency so many times; one below 0, by clocks that differ, counts as 0."""
        latency_ns = max(latency_ns, 0)
        shift = max(latency_ns.bit_length() - _SUB_BITS - 1, 0)
        bucket = (shift << (_SUB_BITS + 1)) + (latency_ns >> shift)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + count
        self.count += count
        self.total_ns += latency_ns * count
        self.max_ns = max(self.max_ns, latency_ns)

    def quantile_ns(self, quantile: float) -> int:
        """Return the smallest latency that at least this share of all does not exceed.

        It is the upper edge of its bucket, so it is never told better than it is; 0 without any.
        """
        assert 0 < quantile <= 1, f"a share lies above 0 and up to 1, not at {quantile}"
        wanted = quantile * self.count
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= wanted:
                shift = bucket >> (_SUB_BITS + 1)
                low = (bucket & (2 * _SUB - 1)) << shift
                return min(low + (1 << shift) - 1, self.max_ns)
        return 0

    def durations(self) -> Durations:
        """Tell it all in s."""
        if not self.count:
            return Durations()
        return Durations(
            self.count,
            self.total_ns / self.count / 1e9,
            self.quantile_ns(0.5) / 1e9,
            self.quantile_ns(0.99) / 1e9,
            self.max_ns / 1e9,
        )

    def summary_ms(self) -> dict[str, float | None]:
        """Tell p50, p99, p999 and max in ms; None where nothing was recorded."""
        if not self.count:
            return dict.fromkeys([*QUANTILES, "max"])
        told: dict[str, float | None] = {
            name: round(self.quantile_ns(quantile) / 1e6, 3) for name, quantile in QUANTILES.items()
        }
        told["max"] = round(self.max_ns / 1e6, 3)
        return told
