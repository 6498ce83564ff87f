"""Read what Kafka's measuring tools print."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

_PRODUCED = re.compile(
    r"^(?P<count>\d+) (?P<steady>steady state )?records sent, (?P<rate>[\d.]+) records/sec .*?"
    r"(?P<p50>\d+) ms 50th, \d+ ms 95th, (?P<p99>\d+) ms 99th, (?P<p999>\d+) ms 99\.9th\.$",
    re.MULTILINE,
)
_MEAN = re.compile(r"^Avg latency: (?P<mean>[\d.]+) ms$", re.MULTILINE)
_FETCH_RATE = "fetch.nMsg.sec"
_FETCHED = "data.consumed.in.nMsg"


@dataclass(frozen=True, slots=True)
class Produced:
    """What ProducerPerformance tells: records a second, and whole milliseconds, cut off.

    Attributes:
        records: how many count.
        records_per_s: how fast.
        p50_ms: half of the acknowledgements took at most this long; 0 is less than one.
    """

    records: int
    records_per_s: float
    p50_ms: int
    p99_ms: int
    p999_ms: int


def produced(output: str) -> Produced:
    """Return what was produced; after a warm-up, what was produced after it.

    Raises:
        ValueError: there is no such line; the text has what there is.
    """
    found = list(_PRODUCED.finditer(output))
    steady = [one for one in found if one["steady"]] or found
    if not steady:
        raise ValueError(f"no line with a rate and percentiles in: {output.strip()[-500:]!r}")
    last = steady[-1]
    return Produced(
        int(last["count"]),
        float(last["rate"]),
        int(last["p50"]),
        int(last["p99"]),
        int(last["p999"]),
    )


def consumed(output: str, records: int) -> float:
    """Return records a second, without the time until partitions were assigned.

    Raises:
        ValueError: there is no such table, or fewer than `records` were read.
    """
    lines = [line.split(", ") for line in output.splitlines() if ", " in line]
    for names, figures in itertools.pairwise(lines):
        if _FETCH_RATE in names and len(names) == len(figures):
            row = dict(zip(names, figures, strict=True))
            if int(row[_FETCHED]) < records:
                raise ValueError(f"read {row[_FETCHED]} records, {records} are there")
            return float(row[_FETCH_RATE])
    raise ValueError(f"no table with {_FETCH_RATE} in: {output.strip()[-500:]!r}")


def round_trip_ms(output: str) -> float:
    """Return the mean of round trips; the percentiles beside it are cut to whole milliseconds.

    Raises:
        ValueError: there is no such line.
    """
    found = _MEAN.search(output)
    if found is None:
        raise ValueError(f"no line with a mean in: {output.strip()[-500:]!r}")
    return float(found["mean"])
