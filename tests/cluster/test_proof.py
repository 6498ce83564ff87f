"""A cluster that is hurt keeps what it has promised; `make torture` does it for longer."""

from __future__ import annotations

import os
import sys

import pytest

import riverrun
from riverrun import PartitionDescription
from tests.cluster.processes import ClusterProcesses
from tests.cluster.proof.crashes import Findings, kill_rounds, term_rounds, too_long
from tests.cluster.proof.cuts import Mains, power_rounds
from tests.cluster.proof.lines import lines_through_a_kill, wrong
from tests.cluster.proof.load import (
    PRODUCER,
    Load,
    Pulse,
    TimedRecorder,
    anomalies,
    digest,
    under_load,
)
from tests.cluster.proof.members import logged
from tests.cluster.proof.outage import (
    Report,
    changed,
    outage,
    outage_and_death,
    roles,
    sacrifice,
    served_by_nobody,
    went_on,
)
from tests.e2e.kill.history import Dumped, Failed, Outcome, Returned, Written
from tests.e2e.kill.world import PARTITIONS, World
from tests.e2e.power.disk import NoCompiler

RATE = 500
DOWN_S = 5.0
SETTLED_S = 4.0
# A machine that runs other tests beside is no reason to fail here; `make torture` is strict.
PAUSE_MAX_S = 20.0
SEED = int(os.environ.get("PROOF_SEED", "0")) or int.from_bytes(os.urandom(4))
pytestmark = pytest.mark.timeout(180)


@pytest.fixture(autouse=True)
def seed():
    sys.stdout.write(f"PROOF_SEED={SEED} makes the same choices again\n")


async def test_a_leader_that_is_killed_takes_nothing_along(shared_cluster):
    found = await kill_rounds(shared_cluster, 1, SEED, RATE, bound_s=PAUSE_MAX_S)
    assert not found.failures
    assert found.silences_s
    assert found.controllers == 1
    assert not logged(shared_cluster)


async def test_a_leader_that_is_told_to_end_makes_no_send_fail(shared_cluster):
    found = await term_rounds(shared_cluster, 1, SEED, RATE, bound_s=None)
    assert not found.failures
    assert found.batches
    assert found.gaps_s
    assert not logged(shared_cluster)


async def test_lines_come_through_a_kill_once_each_and_in_order(shared_cluster):
    assert not await lines_through_a_kill(shared_cluster, "lines", 20_000)


async def test_without_etcd_everything_goes_on_as_it_is(shared_cluster):
    lines, found = await outage(
        shared_cluster, "1", SEED, RATE, DOWN_S, settled_s=SETTLED_S, pause_max_s=PAUSE_MAX_S
    )
    sys.stdout.write("\n".join(lines))
    assert not found.failures
    assert not logged(shared_cluster)


async def test_without_etcd_a_death_stops_only_what_depends_on_the_dead(shared_cluster):
    lines, found = await outage_and_death(
        shared_cluster, "1", SEED, RATE, DOWN_S, pause_max_s=PAUSE_MAX_S
    )
    sys.stdout.write("\n".join(lines))
    assert not found.failures
    assert not logged(shared_cluster)
    assert any("led by it: stopped for" in line for line in lines)


@pytest.fixture
def mains(tmp_path):
    try:
        mains = Mains(tmp_path)
    except NoCompiler as missing:
        pytest.skip(str(missing))
    try:
        mains.cluster.start()
        yield mains
    finally:
        mains.cluster.stop()
        sys.stdout.write(mains.cluster.logs())


async def test_the_power_of_all_brokers_goes_and_nothing_acknowledged_does(mains):
    found = await power_rounds(mains, 1, SEED, RATE)
    assert set(found.failures) <= {"no power cut has taken anything"}
    assert found.silences_s
    assert not logged(mains.cluster)


# Each of the checks above has to be able to fail.


async def loaded(cluster, topic):
    """A short run in which nothing happens."""
    async with under_load(cluster, topic, SEED, rate=RATE) as load:
        await load.goes_on()
    return load


async def test_a_history_that_is_changed_afterwards_is_found_out(shared_cluster):
    load = await loaded(shared_cluster, "lied-about")
    events = load.recorder.events
    assert not anomalies(events)

    def kinds(changed):
        return {line.split(" ", 1)[0] for line in anomalies(changed) if not line.startswith(" ")}

    def dumps(change):
        return [
            each._replace(records=change(list(each.records)))
            if isinstance(each, Dumped) and each.partition == 0
            else each
            for each in events
        ]

    assert {"LOST", "VANISHED"} <= kinds(dumps(lambda log: log[:-1]))
    assert {"DUPLICATE", "FOREIGN"} & kinds(dumps(lambda log: [*log, (len(log), log[0][1])]))
    assert "REORDERED" in kinds(dumps(lambda log: [(0, log[1][1]), (1, log[0][1]), *log[2:]]))
    unread = [e for e in events if not (isinstance(e, Returned) and e.partition == 0)]
    assert "UNREAD" in kinds(unread)
    refused = Written(PRODUCER, 0, 0, load.logs[0][0][1], Outcome.REFUSED)
    assert "REFUSED_VISIBLE" in kinds([*events, refused])
    assert "FAILED" in kinds([*events, Failed(PRODUCER, "a send() raised")])
    nobody = [e for e in events if not isinstance(e, Written)]
    assert "nothing was acknowledged" in anomalies(nobody)


async def test_a_topic_that_changes_after_its_load_is_found_out(shared_cluster):
    load = await loaded(shared_cluster, "changed")
    found = Findings()
    found.ended(load)
    await found.stay(shared_cluster)
    assert not found.failures
    async with (
        riverrun.Client(shared_cluster.bootstrap) as client,
        client.producer() as producer,
    ):
        await producer.send("changed", b"later", partition=2)
    await found.stay(shared_cluster)
    assert found.failures == ["changed is not what it was when its load had ended"]


def test_logs_that_differ_in_anything_have_other_digests():
    logs = {0: [(0, b"a"), (1, b"b")], 1: []}
    assert digest(logs) == digest({1: [], 0: [(0, b"a"), (1, b"b")]})
    others = ({0: [(0, b"a")], 1: []}, {0: [(0, b"a"), (1, b"c")], 1: []}, {0: [], 1: logs[0]})
    assert len({digest(logs), *map(digest, others)}) == 4


def test_silence_counts_from_the_kill_and_only_what_was_sent_after_it_ends_it():
    pulse = Pulse()
    for at_s, sent_s in ((1.0, 0.9), (2.0, 1.8), (7.0, 1.95), (7.5, 2.1), (8.0, 7.9)):
        pulse.beat(at_s, sent_s)
    assert pulse.first_asked_after(2.05) == 7.5
    assert pulse.first_asked_after(7.95) is None
    assert pulse.longest_gap_s(1.0, 8.5) == 5.0
    assert pulse.longest_gap_s(8.1, 20.1) == pytest.approx(12.0)
    assert too_long("silent", [4.9, 5.1], 5.0) == ["silent: 5.100 s, at most 5.0 s are allowed"]
    assert not too_long("silent", [4.9], 5.0)


@pytest.mark.parametrize(
    ("read", "complaint"),
    [
        ([(0, 0), (1, 1), (0, 2)], ""),
        ([(0, 0), (0, 2)], "are missing"),
        ([(0, 0), (1, 1), (0, 2), (1, 1)], "came twice"),
        ([(0, 0), (0, 2), (0, 1)], "stand behind later ones"),
        ([(0, 0), (1, 1), (0, 2), (0, 3)], "were never written"),
    ],
)
def test_lines_that_are_not_what_was_written_are_found_out(read, complaint):
    found = wrong("read", 3, read)
    assert (len(found) == 1 and complaint in found[0]) if complaint else not found


def partition(number, leader, *replicas, epoch=1, in_sync=None):
    return PartitionDescription(number, leader, epoch, replicas, in_sync or replicas)


@pytest.mark.parametrize(
    "later",
    [
        partition(0, 2, 1, 2, 3),
        partition(0, 1, 1, 2, 3, epoch=2),
        partition(0, 1, 1, 2, 3, in_sync=(1, 2)),
    ],
)
def test_a_change_of_leader_epoch_or_replicas_in_sync_without_need_is_found_out(later):
    before = roles([partition(0, 1, 1, 2, 3), partition(1, 2, 2, 3, 1)])
    after = roles([later, partition(1, 2, 2, 3, 1)])
    assert not changed(before, [before, before])
    assert len(changed(before, [before, after, after])) == 1
    assert changed(before, [])


def test_who_dies_without_etcd_leads_something_and_is_not_everywhere():
    dead, kinds = sacrifice([partition(0, 1, 1, 2), partition(1, 2, 2, 3), partition(2, 3, 3, 1)])
    assert (dead, [*kinds.values()]) == (1, [[0], [2], [1]])
    with pytest.raises(AssertionError, match="everything depends on everybody"):
        sacrifice([partition(0, 1, 1, 2, 3)])


@pytest.mark.parametrize("name", ["acknowledged", "read"])
async def test_a_pause_without_etcd_is_found_out(name):
    recorder = TimedRecorder(lambda: 0.0)
    for pulse in (*recorder.acknowledged.values(), *recorder.read.values()):
        for at_s in range(11):
            pulse.beat(at_s, at_s)
    report = Report([], Findings())
    load = Load(World("", 1, recorder), recorder, RATE)
    went_on(report, load, PARTITIONS, (0.0, 10.0), 2.0)
    assert not report.findings.failures
    getattr(recorder, name)[2] = Pulse()
    went_on(report, load, PARTITIONS, (0.0, 10.0), 2.0)
    assert len(report.findings.failures) == 1


async def test_an_answer_in_the_place_of_the_dead_is_found_out():
    recorder = TimedRecorder(lambda: 0.0)
    load = Load(World("", 1, recorder), recorder, RATE)
    # What was sent before may have been written, and its answer is on its way.
    recorder.acknowledged[1].beat(5.1, 4.9)
    assert not served_by_nobody(load, [0, 1], 5.0)
    recorder.acknowledged[1].beat(6.0, 5.5)
    assert len(served_by_nobody(load, [0, 1], 5.0)) == 1


def test_an_error_in_the_log_of_a_broker_is_found_out(tmp_path):
    class Talking:
        def __init__(self, *lines):
            self.logs = lambda: "\n".join(lines)

    cluster = ClusterProcesses(tmp_path)
    cluster.brokers = {1: Talking('{"event": "ready", "level": "info"}'), 2: Talking("ready")}
    assert not logged(cluster)
    cluster.brokers[2] = Talking('{"event": "lost its way", "level": "error"}')
    assert logged(cluster) == ['broker 2 has logged: {"event": "lost its way", "level": "error"}']
