"""Retention looks at every partition, and nothing that one of them meets ends the broker."""

import pytest

from riverrun_server.core.cluster.topic_config import TopicConfig
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.guarded_clock import TimeGap
from riverrun_server.ports.log import CorruptData, StorageFailed, StorageStalled
from riverrun_server.runtime.broker_clock import BrokerClock
from riverrun_server.runtime.retention import Look, Retention, last_persisted_ms
from tests.runtime.manual import StillClock

DAY_MS = 86_400_000


class Partition:
    """Remembers the rules that it was asked to keep, or raises."""

    offline = None

    def __init__(self, *, config=None, error=None, log_start=None):
        self.config = config or TopicConfig()
        self.error = error
        self.log_start = log_start
        self.rules = []

    async def retain(self, rule, now_ms):
        if self.error is not None:
            raise self.error
        self.rules.append(rule)
        return self.log_start


class Table:
    def __init__(self):
        self.rows, self.error = {}, None

    def get(self, key):
        return self.rows.get(key)

    def write(self, puts, deletes=()):
        if self.error is not None:
            raise self.error
        self.rows.update(puts)


@pytest.fixture
def table():
    return Table()


def retention(table, *partitions, gap=None):
    clock = StillClock()
    gap = gap or TimeGap(None, clock.wall_ms())
    return Retention(lambda: partitions, BrokerClock(clock), gap, table, 30.0)


async def test_each_partition_is_asked_to_keep_its_topics_rule(table):
    partition = Partition(config=TopicConfig(retention_ms=5, retention_bytes=7))
    await retention(table, partition).look()
    rule = partition.rules[0]
    assert (rule.retention_ms, rule.retention_bytes, rule.time_paused) == (5, 7, False)


@pytest.mark.parametrize(
    "error",
    [Refusal(Reason.CORRUPT_DATA, "x"), StorageStalled("x"), CorruptData("x")],
    ids=["refusal", "stall", "damage"],
)
async def test_what_one_partition_meets_does_not_keep_the_others_from_their_turn(table, error):
    other = Partition()
    await retention(table, Partition(error=error), other).look()
    assert other.rules


async def test_a_disk_that_failed_for_good_ends_it(table):
    with pytest.raises(StorageFailed):
        await retention(table, Partition(error=StorageFailed("EIO"))).look()


async def test_a_stall_while_the_time_is_written_down_is_put_off(table):
    looks = retention(table, Partition())
    table.error = StorageStalled("x")
    await looks.look()
    assert last_persisted_ms(table) is None
    table.error = None
    await looks.look()
    assert last_persisted_ms(table) == StillClock().wall_ms()


async def test_deletion_by_age_waits_after_a_gap_that_cannot_be_believed(table):
    now = StillClock().wall_ms()
    partition = Partition(config=TopicConfig(retention_ms=DAY_MS))
    gap = TimeGap(now - 3 * DAY_MS, now)
    await retention(table, partition, gap=gap).look()
    assert partition.rules[0].time_paused
    assert last_persisted_ms(table) == now - 3 * DAY_MS  # a restart does not lift the pause


async def test_a_start_at_which_nothing_could_be_opened_keeps_the_gap(table):
    now = StillClock().wall_ms()
    await retention(table, gap=TimeGap(now - 3 * DAY_MS, now)).look()
    assert last_persisted_ms(table) is None


async def test_each_look_tells_what_it_came_to(table):
    now = StillClock().wall_ms()
    day = TopicConfig(retention_ms=DAY_MS)
    partitions = [
        Partition(config=day),
        Partition(config=TopicConfig(retention_ms=None), log_start=5),
        Partition(config=day, error=Refusal(Reason.CORRUPT_DATA, "x")),
    ]
    told = []
    looks = retention(table, *partitions, gap=TimeGap(now - 3 * DAY_MS, now))
    looks.told = told.append
    await looks.look()
    assert told == [Look(trimmed=1, failed=1, paused=2, ended_ms=now)]
