"""What bare RocksDB does on this machine: the ceiling of everything that is stored in it.

    .venv/bin/python tests/bench/rocks_ceiling.py [MB]

Values as large as batches, into one column family and into sixteen, without syncs and with one sync
for every 16 MiB, and all of it read back. Rates are medians of the rounds.
"""

from __future__ import annotations

import os
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rocksdict import DBCompressionType, Options, Rdict, WriteBatch, WriteOptions

ROUNDS = 3
SYNC_EVERY_BYTES = 16 << 20


def options() -> Options:
    """Return plain options, raw and uncompressed."""
    made = Options(raw_mode=True)
    made.create_if_missing(True)
    made.create_missing_column_families(True)
    made.set_compression_type(DBCompressionType.none())
    return made


def write(database: Rdict, families: int, size: int, total: int, *, sync: bool) -> None:
    """Write `total` bytes as values of `size`, round robin."""
    handles = [database.get_column_family_handle(f"cf{n}") for n in range(families)]
    value, plain, unsynced = os.urandom(size), WriteOptions(), 0
    for number in range(total // size):
        batch = WriteBatch(raw_mode=True)
        key = struct.pack(">Q", number // families)
        batch.put(key, value, handles[number % families])
        database.write(batch, plain)
        unsynced += size
        if sync and unsynced >= SYNC_EVERY_BYTES:
            database.flush_wal(True)
            unsynced = 0


def read(database: Rdict, families: int) -> None:
    """Touch every value once."""
    for number in range(families):
        rows = database.get_column_family(f"cf{number}").iter()
        rows.seek(b"\x00" * 8)
        while rows.valid():
            rows.value()
            rows.next()
        rows.status()


def timed(work: Callable[[], None]) -> float:
    """Return how long something takes, in seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    """Print a line for each shape."""
    total = int(sys.argv[1] if len(sys.argv) > 1 else 256) << 20
    print(f"{'families':>8} {'value':>9} {'sync':>5} {'write MB/s':>11} {'read MB/s':>10}")
    for families in (1, 16):
        for size in (64_000, 256_000, 1_000_000):
            for sync in (False, True):
                writes, reads = [], []
                for _ in range(ROUNDS):
                    with tempfile.TemporaryDirectory() as folder:
                        columns = {f"cf{n}": options() for n in range(families)}
                        path = str(Path(folder) / "db")
                        database = Rdict(path, options(), column_families=columns)
                        spent = timed(lambda: write(database, families, size, total, sync=sync))  # noqa: B023
                        writes.append(total / 1e6 / spent)
                        reads.append(total / 1e6 / timed(lambda: read(database, families)))  # noqa: B023
                        database.close()
                print(
                    f"{families:8} {size:9} {'yes' if sync else 'no':>5} "
                    f"{statistics.median(writes):11.0f} {statistics.median(reads):10.0f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
