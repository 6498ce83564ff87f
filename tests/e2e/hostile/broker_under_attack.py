"""A broker with small limits, what it may hold at the most, and whether it has been hurt."""

from __future__ import annotations

import asyncio
import re
import urllib.request
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.broker_process import BrokerProcess

MIB = 1 << 20

# What no client may make a broker say.
_HURT = re.compile(
    r"failed unexpectedly|Traceback|assert|AssertionError|task crashed|never retrieved|"
    r"\"level\": ?\"(error|critical)\"|Unexpected \[|suppressed",
    re.IGNORECASE,
)


# The lines of rpc/call_log.
_OF_A_CALL = re.compile(r'"event": ?"(call|stream) ended"')
# More tell nobody anything.
_WRONG_MAX = 100


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of an attacked broker; small, so that the memory that they bound can be seen."""

    in_flight_bytes: int = 32 * MIB
    connection_bytes: int = 16 * MIB
    delivery_bytes: int = 32 * MIB
    streams: int = 1024
    streams_per_connection: int = 256
    calls: int = 512
    partitions: int = 200
    hot_tail_bytes: int = 16 * MIB
    connections: int = 12_000

    def environ(self) -> dict[str, str]:
        """Return them as the broker's environment."""
        values = {
            "LIMITS_MAX_IN_FLIGHT_BYTES": self.in_flight_bytes,
            "LIMITS_MAX_IN_FLIGHT_BYTES_PER_CONNECTION": self.connection_bytes,
            "LIMITS_MAX_DELIVERY_BYTES": self.delivery_bytes,
            "LIMITS_MAX_CONNECTIONS": self.connections,
            "LIMITS_MAX_STREAMS_PER_PRINCIPAL": self.streams,
            "LIMITS_MAX_STREAMS_PER_CONNECTION": self.streams_per_connection,
            "LIMITS_MAX_CALLS": self.calls,
            "LIMITS_MAX_PARTITIONS": self.partitions,
            "LIMITS_MAX_PARTITIONS_PER_TOPIC": min(100, self.partitions),
            "STORAGE_HOT_TAIL_BYTES": self.hot_tail_bytes,
            "STORAGE_SLOTS": 32,
            "STORAGE_DISK_LOW_WATER_BYTES": 0,
            "STORAGE_DISK_HIGH_WATER_BYTES": 0,
        }
        return {f"RIVERRUN_{key}": str(value) for key, value in values.items()}


class AttackedBroker(BrokerProcess):
    """A broker process whose memory and log are looked at."""

    def __init__(
        self,
        folder: Path,
        limits: Limits | None = None,
        *options: str,
        config: Path | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self._wrong: list[str] = []
        self._lines: Counter[bool] = Counter()
        super().__init__(
            folder, *options, environ=self.limits.environ(), on_line=self._look_at, config=config
        )

    def _look_at(self, line: str) -> None:
        self._lines[bool(_OF_A_CALL.search(line))] += 1
        if _HURT.search(line) and len(self._wrong) < _WRONG_MAX:
            self._wrong.append(line)

    def rss_bytes(self) -> int:
        """Return the memory that it has now."""
        return self._status("VmRSS")

    def peak_bytes(self) -> int:
        """Return the most that it had since `forget_peak`."""
        return self._status("VmHWM")

    def forget_peak(self) -> None:
        """Begin to look for the peak anew."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def _status(self, key: str) -> int:
        text = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(rf"^{key}:\s+(\d+) kB", text, re.MULTILINE)[1]) * 1024

    def descriptors(self) -> int:
        """Return how many files and sockets it holds open."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def hurt(self) -> list[str]:
        """Return the lines of its log that no client may cause, or that it is gone."""
        assert self._process is not None
        gone = [] if self._process.poll() is None else [f"it ended with {self._process.poll()}"]
        return gone + self._wrong

    def lines(self) -> int:
        """Return how many lines it has logged, those for calls that ended left out."""
        return self._lines[False]

    def call_lines(self) -> int:
        """Return how many lines it has logged for calls that ended; they have a bound of their own."""
        return self._lines[True]

    async def metric(self, name: str) -> float:
        """Return the sum of a metric over its labels."""
        url = f"http://{self.http_address}/metrics"
        text = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=20).read())
        found = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text.decode(), re.MULTILINE)
        return sum(map(float, found))
