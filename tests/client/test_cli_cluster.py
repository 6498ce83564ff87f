"""`riverrun cluster`: what is told of brokers and partitions, elections, and draining to its end."""

from __future__ import annotations

import asyncio
import json

import pytest

from riverrun.cli.cluster_elect import read_target
from riverrun.cli.exits import Exit
from riverrun.v1 import admin_pb2 as a
from tests.client.cli_process import SCRIPT, CommandLine
from tests.client.fake_broker import FakeBroker
from tests.client.fake_log import FakeRefusal
from tests.client.terminal import Terminal, plain


def member(broker, **fields):
    well = {
        "broker_epoch": broker * 10,
        "endpoint": f"h{broker}:7171",
        "rack": "r1",
        "host": f"m{broker}",
        "alive": True,
        "leaders": 4,
        "preferred_leaders": 4,
        "replicas": 12,
        "in_sync_replicas": 12,
    }
    return a.BrokerDescription(broker_id=broker, **(well | fields))


def cluster(*brokers, **fields):
    fields = {"topics": 2, "partitions": 12, "controller": 2} | fields
    return a.DescribeClusterResponse(
        cluster_id="c", revision=99, served_by=1, brokers=brokers, **fields
    )


def lacking(partition, leader, isr, elr=(), least=2, **lags):
    return a.LackingPartition(
        lags=[a.ReplicaLag(broker_id=int(each[1:]), lag=lag) for each, lag in lags.items()],
        topic="orders",
        partition=partition,
        leader=leader,
        leader_epoch=7,
        partition_epoch=9,
        replicas=[1, 2, 3],
        in_sync_replicas=isr,
        eligible_leader_replicas=elr,
        min_in_sync_replicas=least,
    )


UNWELL = cluster(
    member(1),
    member(2, controller=True, draining=True),
    member(3, alive=False, fenced=True, leaders=0, in_sync_replicas=1),
    offline_partitions=1,
    under_min_isr_partitions=2,
    under_replicated_partitions=3,
    lacking=[lacking(0, -1, [3]), lacking(4, 1, [1], [2], b2=7), lacking(5, 1, [1, 2], b3=1_234)],
)


class Operator:
    """Runs the command line beside a fake broker."""

    def __init__(self, broker, address):
        self.broker = broker
        self.cli = CommandLine(address)
        self.cli.env.pop("NO_COLOR", None)

    async def run(self, *args, code=0):
        done = await asyncio.to_thread(self.cli.run, *args, code=code)
        # A machine that is busy lets the command wait for its broker, and say so.
        said = [
            line
            for line in done.stderr.decode().splitlines(keepends=True)
            if not line.startswith(("note: no broker answers", "note: back again"))
        ]
        return done.stdout.decode(), "".join(said)

    async def json(self, *args, code=0):
        out, _ = await self.run(*args, "--output", "json", code=code)
        return json.loads(out)


@pytest.fixture
async def operator():
    broker = FakeBroker()
    async with broker.serving() as address:
        yield Operator(broker, address)


# --- cluster describe


async def test_brokers_are_told_with_role_state_and_what_they_have(operator):
    operator.broker.clusters = [UNWELL]
    out, _ = await operator.run("cluster", "describe")
    lines = [line.split() for line in out.splitlines()]
    assert ["controller", "broker", "2"] in lines
    assert ["offline", "1"] in lines
    assert ["under", "min", "ISR", "2"] in lines
    assert ["under-replicated", "3"] in lines
    assert lines[11] == [
        "BROKER",
        "STATE",
        "ROLE",
        "ENDPOINT",
        "RACK",
        "HOST",
        "LEADS",
        "HOLDS",
        "IN-SYNC",
    ]
    assert lines[12] == ["1", "ok", "-", "h1:7171", "r1", "m1", "4", "12", "12"]
    assert lines[13] == ["2", "draining", "controller", "h2:7171", "r1", "m2", "4", "12", "12"]
    assert lines[14] == ["3", "fenced", "-", "h3:7171", "r1", "m3", "0", "12", "1"]
    assert lines[16] == [
        "TOPIC",
        "PARTITION",
        "STATE",
        "LEADER",
        "REPLICAS",
        "IN-SYNC",
        "ELR",
        "MIN",
        "LAG",
    ]
    assert lines[17] == ["orders", "0", "offline", "none", "1,2,3", "3", "-", "2", "-"]
    # Of one of two nobody can tell.
    assert lines[18] == ["orders", "4", "under", "min", "ISR", "1", "1,2,3", "1", "2", "2", "-"]
    assert lines[19][2:] == ["under-replicated", "1", "1,2,3", "1,2", "-", "2", "1234"]
    assert max(map(len, out.splitlines())) <= 80


async def test_programs_are_told_everything(operator):
    operator.broker.clusters = [UNWELL]
    told = await operator.json("cluster", "describe")
    assert (told["controller"], told["partitions_without_leader"]) == (2, 1)
    assert told["partitions_under_min_isr"] == 2
    assert told["partitions_under_replicated"] == 3
    assert [broker["state"] for broker in told["brokers"]] == ["ok", "draining", "fenced"]
    assert told["brokers"][1]["broker_epoch"] == 20
    assert told["brokers"][1]["preferred_leaders"] == 4
    assert told["lacking"][1] == {
        "topic": "orders",
        "partition": 4,
        "offline": False,
        "under_min_isr": True,
        "under_replicated": True,
        "leader": 1,
        "leader_epoch": 7,
        "partition_epoch": 9,
        "replicas": [1, 2, 3],
        "in_sync_replicas": [1],
        "eligible_leader_replicas": [2],
        "min_in_sync_replicas": 2,
        "lags": {"2": 7},
    }


async def test_a_long_list_is_cut_for_people_and_whole_for_programs(operator):
    many = [lacking(number, 1, [1, 2]) for number in range(30)]
    operator.broker.clusters = [cluster(member(1), lacking=many, controller=-1)]
    out, _ = await operator.run("cluster", "describe")
    assert out.count("under-replicated ") == 21
    assert out.endswith("and 10 more; --output json tells of them\n")
    told = await operator.json("cluster", "describe")
    assert len(told["lacking"]) == 30
    assert told["controller"] is None


async def test_states_are_coloured_and_fit_a_terminal(operator):
    operator.broker.clusters = [UNWELL]
    with Terminal(80) as terminal:
        args = [SCRIPT, "cluster", "describe"]
        said = await asyncio.to_thread(terminal.run, args, env=operator.cli.env)
    assert b"\x1b[1;31mfenced" in said
    assert b"\x1b[33mdraining" in said
    assert max(map(len, plain(said).splitlines())) <= 80


# --- cluster elect-leaders


def result(partition, outcome, leader=1, topic="orders", error=None):
    made = a.ElectionResult(
        topic=topic,
        partition=partition,
        outcome=a.ElectionOutcome.Value(f"ELECTION_OUTCOME_{outcome}"),
        leader=leader,
        leader_epoch=5,
    )
    if error:
        made.error.CopyFrom(error.proto)
    return made


BEHIND = FakeRefusal("PREFERRED_LEADER_NOT_AVAILABLE", "broker 2 is not in sync")
MISSING = FakeRefusal("TOPIC_NOT_FOUND", "there is no topic 'ordres'")


def elections(*results, left=0):
    return a.ElectLeadersResponse(results=results, left=left)


async def test_leaders_are_elected_where_it_was_asked_for(operator):
    operator.broker.elections = [elections(result(0, "ELECTED"), result(1, "UNCHANGED", 2))]
    out, said = await operator.run("cluster", "elect-leaders", "orders", "clicks:3")
    assert [line.split() for line in out.splitlines()] == [
        ["TOPIC", "PARTITION", "RESULT", "LEADER", "EPOCH", "WHY"],
        ["orders", "0", "elected", "1", "5"],
        ["orders", "1", "unchanged", "2", "5"],
    ]
    assert said == "elected preferred leaders of 1 partition\n"
    whole, one = operator.broker.asked[0].targets
    assert (whole.topic, whole.HasField("partition")) == ("orders", False)
    assert (one.topic, one.partition) == ("clicks", 3)


async def test_everything_is_elected_in_as_many_calls_as_it_takes(operator):
    operator.broker.elections = [
        elections(result(0, "ELECTED"), left=2),
        elections(result(1, "ELECTED"), result(0, "UNCHANGED"), left=1),
        elections(result(2, "FAILED", 2, error=BEHIND), left=1),
    ]
    told = await operator.json("cluster", "elect-leaders", "--all", code=Exit.PARTLY)
    assert [(one["partition"], one["outcome"]) for one in told] == [
        (0, "elected"),
        (1, "elected"),
        (2, "failed"),
    ]
    assert told[2]["reason"] == "PREFERRED_LEADER_NOT_AVAILABLE"
    assert len(operator.broker.asked) == 3
    assert not operator.broker.asked[0].targets


@pytest.mark.parametrize(
    ("results", "code"),
    [
        ([result(0, "ELECTED"), result(1, "FAILED", 2, error=BEHIND)], Exit.PARTLY),
        ([result(0, "UNCHANGED"), result(1, "FAILED", 2, error=BEHIND)], Exit.FAILED),
        ([result(None, "FAILED", -1, "ordres", MISSING)], Exit.NOT_FOUND),
        (
            [result(None, "FAILED", -1, "ordres", MISSING), result(1, "FAILED", error=BEHIND)],
            Exit.FAILED,
        ),
        (
            [
                result(0, "ELECTED"),
                result(1, "FAILED", error=FakeRefusal("STORAGE_FAILED", "lost", known=False)),
            ],
            Exit.UNKNOWN_OUTCOME,
        ),
    ],
)
async def test_what_could_not_be_elected_is_an_error_with_its_reason(operator, results, code):
    operator.broker.elections = [elections(*results)]
    _, said = await operator.run("cluster", "elect-leaders", "orders", code=code)
    (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "without the preferred leader: " in error
    assert results[-1].error.message in error


async def test_where_preferred_leaders_lead_already_it_says_so(operator):
    operator.broker.elections = [elections()]
    out, said = await operator.run("cluster", "elect-leaders", "--all")
    assert (out, said) == ("", "nothing to elect: preferred leaders lead already\n")


async def test_nothing_is_elected_unless_it_is_said_where(operator):
    for args in ((), ("--all", "orders"), ("orders:x",), (":3",)):
        await operator.run("cluster", "elect-leaders", *args, code=Exit.USAGE)
    assert not operator.broker.asked


@pytest.mark.parametrize("text", ["", ":", ":1", "t:", "t:-1", "t:1:2", "t:²"])
def test_what_is_no_target_is_refused(text):
    with pytest.raises(ValueError, match="neither TOPIC nor TOPIC:PARTITION"):
        read_target(text)


# --- cluster drain


def drained(broker, *, changed=True, stranded=0, short=0):
    return a.DrainBrokerResponse(
        broker=broker, changed=changed, stranded_partitions=stranded, short_partitions=short
    )


def draining(leaders, in_sync, **fields):
    return member(3, draining=True, leaders=leaders, in_sync_replicas=in_sync, **fields)


async def test_a_drain_waits_until_nothing_depends_on_the_broker(operator):
    operator.broker.drains = [drained(draining(4, 12))]
    operator.broker.clusters = [cluster(draining(*left)) for left in ((2, 9), (0, 3), (0, 0))]
    _, said = await operator.run("cluster", "drain", "3")
    assert said == "broker 3 is drained: it leads nothing, and can be stopped\n"
    assert operator.broker.calls.count("DescribeCluster") == 3
    assert operator.broker.asked[0] == a.DrainBrokerRequest(broker_id=3)


async def test_a_broker_that_nothing_depends_on_is_drained_at_once(operator):
    operator.broker.drains = [drained(draining(0, 0), changed=False)]
    told = await operator.json("cluster", "drain", "3")
    assert (told["broker_id"], told["leads"], told["changed"]) == (3, 0, False)
    assert "DescribeCluster" not in operator.broker.calls


async def test_the_wait_shows_a_bar_on_a_terminal(operator):
    operator.broker.drains = [drained(draining(4, 12))]
    operator.broker.clusters = [cluster(draining(*left)) for left in ((2, 9), (0, 3), (0, 0))]
    with Terminal() as terminal:
        args = [SCRIPT, "cluster", "drain", "3"]
        said = await asyncio.to_thread(terminal.run, args, env=operator.cli.env)
    assert b"of 12 partitions" in said
    assert plain(said).splitlines()[-1].endswith("it leads nothing, and can be stopped")


async def test_a_drain_that_takes_too_long_goes_on_and_says_what_is_left(operator):
    operator.broker.drains = [drained(draining(4, 12))]
    operator.broker.clusters = [cluster(draining(2, 5))]
    args = ("cluster", "drain", "3", "--timeout", "1s", "--output", "json")
    _, said = await operator.run(*args, code=Exit.PARTLY)
    error = json.loads(said)["error"]
    assert error["reason"] == "DRAIN_UNFINISHED"
    assert (error["leads"], error["in_sync_replicas"]) == (2, 5)
    assert error["message"].startswith(
        "after 1 s broker 3 still leads 2 partitions and is in sync in 5; it goes on draining"
    )


async def test_a_broker_that_drains_no_more_is_a_conflict(operator):
    operator.broker.drains = [drained(draining(4, 12))]
    for now, how in (
        (member(3), "was told to serve again"),
        (a.BrokerDescription(broker_id=3, broker_epoch=31, alive=True), "was restarted"),
    ):
        operator.broker.clusters = [cluster(now)]
        _, said = await operator.run("cluster", "drain", "3", code=Exit.CONFLICT)
        assert f"broker 3 {how} while it drained" in said


async def test_a_broker_that_ends_meanwhile_is_drained(operator):
    operator.broker.drains = [drained(draining(4, 12))]
    operator.broker.clusters = [cluster(draining(0, 4, fenced=True))]
    _, said = await operator.run("cluster", "drain", "3")
    assert said == "broker 3 has ended\n"


async def test_what_stays_with_the_broker_is_told_where_that_was_forced(operator):
    refusal = FakeRefusal("BROKER_NEEDED", "bring replicas back first, or have it with force")
    operator.broker.refuse["DrainBroker"] = [refusal]
    operator.broker.drains = [drained(draining(2, 3), stranded=2, short=1)]
    operator.broker.clusters = [cluster(draining(2, 2))]
    _, said = await operator.run("cluster", "drain", "3", code=Exit.FAILED)
    assert said.endswith("or have it with --force\n")
    _, said = await operator.run("cluster", "drain", "3", "--force")
    assert said == (
        "broker 3 is drained but for 2 partitions that nobody else may lead, and that have no leader "
        "once it ends; 1 partition cannot be written until more replicas are in sync\n"
    )
    assert operator.broker.asked[1] == a.DrainBrokerRequest(broker_id=3, force=True)


async def test_a_broker_serves_again(operator):
    operator.broker.drains = [drained(member(3)), drained(member(3), changed=False)]
    assert (await operator.run("cluster", "drain", "3", "--undo"))[1] == "broker 3 serves again\n"
    assert (await operator.run("cluster", "drain", "3", "--undo"))[1] == "broker 3 did not drain\n"
    assert operator.broker.asked[0] == a.DrainBrokerRequest(broker_id=3, undo=True)
    await operator.run("cluster", "drain", "3", "--undo", "--force", code=Exit.USAGE)


async def test_a_broker_that_is_not_there_is_not_found(operator):
    operator.broker.refuse["DrainBroker"] = [FakeRefusal("BROKER_NOT_FOUND", "there is none")]
    await operator.run("cluster", "drain", "9", code=Exit.NOT_FOUND)
