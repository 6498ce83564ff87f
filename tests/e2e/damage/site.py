"""A broker with data that is about to be damaged, and what it has told everybody about that data."""

from __future__ import annotations

import copy
import random
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

from riverrun.v1.admin_pb2 import CreateTopicRequest
from riverrun_server.storage.watermark import read_watermark
from tests.e2e.broker_process import BrokerProcess
from tests.e2e.damage.calls import CALL_TIMEOUT_S, Calls, Place, calling
from tests.e2e.damage.wal import wal_records

OPTIONS = ("--set", "storage.slots=8", "--set", "offsets.partitions=1")
# A quarter more than a family holds in memory: it becomes a table, and a second log begins.
LARGE_BYTES = 40 << 20
# The watermark is written about once a second.
_SETTLE_TIMEOUT_S = 20.0


FSYNC = (Place("synced", 0), Place("synced", 1))
RELAXED = (Place("relaxed", 0),)
ACCEPTING = (Place("accepting", 0),)
PLACES = (*FSYNC, *RELAXED, *ACCEPTING)

_TOPICS: dict[str, dict[str, str]] = {
    "synced": {},
    "relaxed": {"fsync": "relaxed"},
    "accepting": {"fsync": "relaxed", "unclean.recovery": "accept"},
}


@dataclass
class Told:
    """What was acknowledged.

    Attributes:
        values: of each partition, by offset.
        epochs: the leader epoch of each of them.
        commits: of the group, by partition: the newest, and all before it.
    """

    values: dict[Place, list[bytes]] = field(default_factory=dict)
    epochs: dict[Place, list[int]] = field(default_factory=dict)
    commits: dict[Place, list[int]] = field(default_factory=dict)

    def copy(self) -> Told:
        """Return one that can be added to by itself."""
        return copy.deepcopy(self)


class Site:
    """A broker that is being filled; copies of its folder are what gets damaged.

    Args:
        folder: for it.
        seed: of what is written.

    Attributes:
        broker: the broker.
        told: what it has acknowledged.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.broker = BrokerProcess(folder, *OPTIONS)
        self.told = Told(*({place: [] for place in PLACES} for _ in range(3)))
        self._dice = random.Random(seed)

    def make_topics(self) -> None:
        """Make the topics, the partitions of which are `PLACES`."""
        with calling(self.broker) as calls:
            for topic, configs in _TOPICS.items():
                partitions = sum(place.topic == topic for place in PLACES)
                request = CreateTopicRequest(topic=topic, partitions=partitions, configs=configs)
                calls.admin.CreateTopic(request, timeout=CALL_TIMEOUT_S)

    def write(self, batches: int, places: tuple[Place, ...] = PLACES, size: int = 300) -> None:
        """Write so many batches of one to four records, each somewhere."""
        with calling(self.broker) as calls:
            for _ in range(batches):
                place = self._dice.choice(places)
                known = self.told.values[place]
                values = [
                    b"<%s/%d/%06d>" % (place.topic.encode(), place.partition, len(known) + each)
                    + self._dice.randbytes(self._dice.randint(0, 2 * size))
                    for each in range(self._dice.randint(1, 4))
                ]
                offset = calls.produce(place, values)
                assert offset == len(known), (place, offset, len(known))
                known += values
            for place in places:
                self._note_epochs(calls, place)

    def commit(self) -> None:
        """Let the group commit the end of every partition."""
        ends = {place: len(values) for place, values in self.told.values.items() if values}
        with calling(self.broker) as calls:
            calls.commit({p: (end, self.told.epochs[p][end - 1]) for p, end in ends.items()})
        for place, end in ends.items():
            self.told.commits[place].append(end)

    def _note_epochs(self, calls: Calls, place: Place) -> None:
        values, epochs = self.told.values[place], self.told.epochs[place]
        if len(epochs) < len(values):
            epochs += [calls.last_epoch(place)] * (len(values) - len(epochs))

    def settle(self) -> int:
        """Wait until the watermark vouches for everything; return the number of the last write.

        Until then nothing on the disk tells a synced write at the very end from one that was not.
        """
        written = last_write(self.broker.data_dir)
        deadline_s = time.monotonic() + _SETTLE_TIMEOUT_S
        while True:
            mark = read_watermark(self.broker.data_dir)
            if mark is not None and mark.written >= written:
                return written
            assert time.monotonic() < deadline_s, f"{mark} never comes to {written}"
            time.sleep(0.05)


def killed(folder: Path, seed: int, *, tail: int = 40, large_bytes: int = 0) -> Site:
    """Return a site that was killed with tables, write-ahead logs and an unsynced tail.

    Args:
        folder: for it.
        seed: of what is written.
        tail: batches in the tail, which nothing was promised of.
        large_bytes: about so much goes into one partition, so that its family becomes a table and
            a new write-ahead log begins.
    """
    site = Site(folder, seed)
    try:
        _fill(site)
        if large_bytes:
            site.write(large_bytes // 250_000, FSYNC[:1], size=100_000)
            site.write(60)
            site.commit()
        site.settle()
        site.write(tail, (*RELAXED, *ACCEPTING))
        site.broker.kill9()
    finally:
        site.broker.stop()
    return site


def stopped(folder: Path, seed: int) -> Site:
    """Return a site that was stopped in order: everything is in tables."""
    site = Site(folder, seed)
    try:
        _fill(site)
        assert site.broker.term() == 0
    finally:
        site.broker.stop()
    return site


def _fill(site: Site) -> None:
    """Write through two lives, so that there are tables and a write-ahead log."""
    site.broker.start()
    site.make_topics()
    site.write(120)
    site.commit()
    assert site.broker.term() == 0
    site.broker.restart()
    site.write(80)
    site.commit()


def copied(site: Site, folder: Path) -> Path:
    """Return a copy of a site's data directory, to be damaged."""
    return Path(shutil.copytree(site.broker.data_dir, folder / "data"))


def wals(data_dir: Path) -> list[Path]:
    """Return the write-ahead logs, oldest first."""
    return sorted((data_dir / "store").glob("*.log"))


def last_write(data_dir: Path) -> int:
    """Return the number of the last write in the write-ahead logs."""
    return max(record.number for wal in wals(data_dir) for record in wal_records(wal))
