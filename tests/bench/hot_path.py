"""Where the broker's microseconds go: each step of an append and of a delivery, by itself.

    .venv/bin/python -m tests.bench.hot_path

The steps are those of the broker's event loop, called as it calls them, on a real store in a folder of
its own. Times are of the processor, the best of many rounds: other work on the machine makes them longer
and never shorter. What gRPC and the kernel do for a message is the echo of `rpc_ceiling.py`; what the client
does for a record is in `encode.py`.
"""

from __future__ import annotations

import gc
import os
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from riverrun.v1.producer_pb2 import ProduceRequest, ProduceResponse
from riverrun.v1.records_pb2 import Record, RecordBatch, RecordSet
from riverrun_server.core.log.batch import PartitionId, StoredBatch
from riverrun_server.core.log.hot_tail import HotTail, TailBudget
from riverrun_server.core.log.partition import PartitionMachine
from riverrun_server.core.log.state import LogState
from riverrun_server.core.producers import ProducerTable
from riverrun_server.observe import logs
from riverrun_server.ports.partitions import Appended
from riverrun_server.rpc.appends import tell
from riverrun_server.runtime.clock import SystemDice
from riverrun_server.storage.store import open_store
from riverrun_server.wire.ingress import IngressLimits, accept, join, pack_records
from riverrun_server.wire.stored import scan_batch, stored_batch

ROUNDS = 60
VALUE_BYTES = 100
NOW_MS = 1_700_000_000_000
LIMITS = IngressLimits(1 << 20)
PARTITION = PartitionId(bytes(range(16)), 0)
SIZES = {"1 record": 1, "64 KB": 546, "256 KB": 2184}


def best(prepare: Callable[[], object], step: Callable[[object], object], repeat: int) -> float:
    """Return the shortest time of a step in us; what it is given is prepared outside of the time."""
    times = []
    gc.collect()
    gc.disable()
    for _ in range(ROUNDS):
        inputs = [prepare() for _ in range(repeat)]
        began = time.thread_time()
        for each in inputs:
            step(each)
        times.append((time.thread_time() - began) / repeat)
    gc.enable()
    return min(times) * 1e6


class Append:
    """The steps of an append of so many records, each with what it needs."""

    def __init__(self, records: int, folder: Path) -> None:
        self.repeat = max(1, 400 // records)
        self.records = [
            Record(key=b"key-%04d" % n, value=os.urandom(VALUE_BYTES), timestamp_ms=NOW_MS)
            for n in range(records)
        ]
        self.data = RecordSet(records=self.records).SerializeToString()
        self.crc = zlib.crc32(self.data)
        self.store = open_store(
            folder, broker_id=1, parse=stored_batch, scan=scan_batch, dice=SystemDice()
        )
        self.log = self.store.open(PARTITION)
        self.machine = PartitionMachine(LogState(), ProducerTable(1), leader_epoch=1)
        self.tail = HotTail(TailBudget(64 << 20))
        self.header = self.batch().header
        self.stamp = self.machine.decide(self.header, None, NOW_MS)

    def message(self) -> RecordBatch:
        return RecordBatch(
            records=self.data,
            records_crc=self.crc,
            record_count=len(self.records),
            first_timestamp_ms=NOW_MS,
            max_timestamp_ms=NOW_MS,
        )

    def batch(self):
        return accept(self.message(), LIMITS, NOW_MS)

    def written(self) -> None:
        stamp = self.machine.decide(self.header, None, NOW_MS)
        data = self.batch().stamped(PARTITION, stamp)
        rows = self.machine.rows(self.header, stamp, len(data))
        batch = StoredBatch(stamp.base_offset, stamp.next_offset, 1, data)
        began = time.thread_time()
        self.log.append(batch, rows.state, index=rows.index)
        self._writing.append(time.thread_time() - began)
        self.machine.appended(self.header, stamp, rows)

    def write_us(self) -> float:
        """Return what the store's write takes: it wants each offset once, so it is timed within."""
        self._writing: list[float] = []
        for _ in range(ROUNDS * self.repeat):
            self.written()
        self._writing.sort()
        return self._writing[len(self._writing) // 4] * 1e6

    def steps(self) -> dict[str, float]:
        """Return us by step."""
        wire = self.message().SerializeToString()
        stored = self.batch().stamped(PARTITION, self.stamp)
        repeat = self.repeat
        found = {
            "parse the message": best(lambda: wire, RecordBatch.FromString, repeat),
            "validate: checksum, typed parse, limits": best(
                self.message, lambda batch: accept(batch, LIMITS, NOW_MS), repeat
            ),
            "decide: duplicate, offsets, rows beside it": best(
                lambda: None,
                lambda _: self.machine.rows(
                    self.header, self.machine.decide(self.header, None, NOW_MS), len(stored)
                ),
                repeat,
            ),
            "stamp and serialise": best(
                self.batch, lambda batch: batch.stamped(PARTITION, self.stamp), repeat
            ),
            "write to RocksDB (log and memtable)": self.write_us(),
            "keep in memory for readers": best(self._next_stored(stored), self.tail.append, repeat),
            "the answer": best(lambda: None, self._answer, repeat),
            "deliver: read the header of a stored batch": best(
                lambda: stored, stored_batch, repeat
            ),
        }
        self.store.close()
        return found

    def _next_stored(self, data: bytes) -> Callable[[], StoredBatch]:
        offset = iter(range(10**9))

        def make() -> StoredBatch:
            base = next(offset)
            return StoredBatch(base, base + 1, 1, data)

        return make

    def _answer(self, _: object) -> bytes:
        response = ProduceResponse()
        tell(response.results.add(), ("topic", bytes(16), 0), Appended(1, 1))
        return response.SerializeToString()


def small_call() -> dict[str, float]:
    """Return us by step of what unary calls do instead of parsing a batch."""
    record = Record(key=b"key-0001", value=os.urandom(VALUE_BYTES))
    wire = ProduceRequest(topic="t", records=[record]).SerializeToString()
    packed = pack_records([record], LIMITS, NOW_MS)
    return {
        "parse the request": best(lambda: wire, ProduceRequest.FromString, 400),
        "validate and serialise its record": best(
            lambda: [record], lambda records: pack_records(records, LIMITS, NOW_MS), 400
        ),
        "join 12 calls' records, a call": best(
            lambda: [packed] * 12, lambda group: join(group, NOW_MS), 40
        )
        / 12,
    }


def main() -> None:
    """Print both tables."""
    logs.configure("console", "warning")
    console = Console()
    columns = {}
    for name, records in SIZES.items():
        with tempfile.TemporaryDirectory() as folder:
            columns[name] = Append(records, Path(folder) / "data").steps()
    table = Table("us on the broker's loop, for each batch of", *SIZES)
    for step in columns["1 record"]:
        table.add_row(step, *(f"{columns[name][step]:.1f}" for name in SIZES))
    table.add_row("together", *(f"{sum(columns[name].values()):.0f}" for name in SIZES))
    table.add_row(
        "for each record",
        *(f"{sum(columns[name].values()) / records:.3f}" for name, records in SIZES.items()),
    )
    console.print(table)
    table = Table("us on the broker's loop, for each unary call of one record", "us")
    for step, us in small_call().items():
        table.add_row(step, f"{us:.1f}")
    console.print(table)


if __name__ == "__main__":
    main()
