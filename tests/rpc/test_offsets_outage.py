"""Offsets that cannot be loaded: how often that is tried and told, in virtual time."""

import asyncio
import itertools
import zlib

import structlog.testing

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.commits import OffsetCommit
from riverrun_server.runtime.offsets import GroupOffsetsSettings
from riverrun_server.runtime.offsets_topic import OFFSETS_TOPIC
from tests.rpc.fake_partitions import FakeDirectory
from tests.rpc.reading_world import World
from tests.sim.loop import simulate

OFFLINE = Refusal(Reason.PARTITION_OFFLINE, "lost what had been synced")
HOUR_S = 3600.0


class Outage:
    """A broker whose sixteen partitions of offsets are offline, and when each was tried."""

    def __init__(self):
        self.directory = FakeDirectory()
        self.directory.create("t")[0].append(b"x")
        self.logs = self.directory.create(OFFSETS_TOPIC, 16)
        self.tries = {log.id.partition: [] for log in self.logs}
        for log in self.logs:
            log.broken = OFFLINE
            log.watermarks = self._noting(log, log.watermarks)

    def _noting(self, log, watermarks):
        async def noted():
            self.tries[log.id.partition].append(asyncio.get_running_loop().time())
            return await watermarks()

        return noted

    def world(self):
        settings = GroupOffsetsSettings(partitions=16, coordinator_wait_s=0)
        return World(self.directory, offsets_settings=settings)

    def mend(self):
        for log in self.logs:
            log.broken = None


def simulated(scenario, seed=1):
    """Return what a scenario logged, with the virtual time of each line."""
    lines = []

    def timed(logger, method, event):
        lines.append((asyncio.get_running_loop().time(), event | {"log_level": method}))
        raise structlog.DropEvent

    async def run():
        with structlog.testing.capture_logs(processors=[timed]):
            await scenario()

    simulate(run(), seed)
    return lines


def test_tries_become_rarer_down_to_a_bound_and_partitions_do_not_come_all_at_once():
    outage = Outage()

    async def scenario():
        async with outage.world():
            await asyncio.sleep(HOUR_S)

    simulated(scenario)
    for tries in outage.tries.values():
        pauses = [after - before for before, after in itertools.pairwise(tries)]
        assert 0.25 <= pauses[0] <= 0.5
        assert 0.5 <= pauses[1] <= 1.0
        assert all(5.0 <= pause <= 10.0 for pause in pauses[5:])
        assert HOUR_S / 10.0 <= len(tries) <= HOUR_S / 5.0 + 10
    third = [round(tries[3], 3) for tries in outage.tries.values()]
    assert len(set(third)) == 16


def test_an_outage_of_all_partitions_is_told_at_its_begin_once_a_minute_and_at_its_end():
    outage = Outage()

    async def scenario():
        async with outage.world():
            await asyncio.sleep(HOUR_S)
            outage.mend()
            await asyncio.sleep(60.0)

    (begin, *lasting, end) = simulated(scenario)
    assert begin[1]["partitions"] == 1
    assert begin[1]["error"] == str(OFFLINE)
    times = [begin[0], *(time for time, _ in lasting)]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert all(60.0 <= gap <= 70.0 for gap in gaps)
    assert 50 <= len(lasting) <= 60
    for _, line in (begin, *lasting):
        assert line["log_level"] == "warning"
        assert line["event"].startswith("offsets of groups cannot be loaded")
    assert {line["partitions"] for _, line in lasting} == {16}
    assert (end[1]["log_level"], end[1]["event"]) == ("info", "offsets of groups are loaded again")
    assert HOUR_S <= end[0] <= HOUR_S + 10.0


def test_a_partition_that_comes_back_serves_its_groups_within_the_bound():
    outage = Outage()

    async def scenario():
        async with outage.world() as world:
            await asyncio.sleep(HOUR_S)
            outage.mend()
            await asyncio.sleep(10.0)
            for number in range(40):
                commit = OffsetCommit("t", b"", 0, 1)
                (outcome,) = await world.offsets.commit(f"g{number}", [commit])
                assert outcome.refusal is None

    simulated(scenario)


def test_after_a_success_the_next_outage_is_tried_again_soon_and_told_anew():
    outage = Outage()
    (log, *others) = outage.logs
    for each in others:
        each.broken = None

    async def scenario():
        async with outage.world() as world:
            await asyncio.sleep(HOUR_S)
            outage.mend()
            await asyncio.sleep(10.0)
            outage.tries[0].clear()
            group = next(g for g in map(str, range(1000)) if zlib.crc32(g.encode()) % 16 == 0)
            log.answers = [Refusal(Reason.NOT_ENOUGH_REPLICAS_AFTER_APPEND, "who knows")]
            log.broken = OFFLINE
            await world.offsets.commit(group, [OffsetCommit("t", b"", 0, 1)])
            await asyncio.sleep(10.0)

    lines = simulated(scenario)
    pauses = [b - a for a, b in zip(outage.tries[0], outage.tries[0][1:], strict=False)]
    assert pauses[0] <= 0.5
    begins = [line for _, line in lines if line.get("for_s") == 0.0]
    assert len(begins) == 2


def test_partitions_that_load_at_once_are_not_worth_a_line():
    outage = Outage()
    outage.mend()

    async def scenario():
        async with outage.world():
            await asyncio.sleep(HOUR_S)

    assert simulated(scenario) == []
