"""Operators that elect leaders and drain brokers through any broker do no harm, whatever goes wrong."""

from __future__ import annotations

import dataclasses
from unittest.mock import patch

import pytest

from riverrun_server.core.cluster import keys
from riverrun_server.core.cluster.draining import drain
from riverrun_server.core.cluster.preferred_elections import elect
from riverrun_server.core.errors import Refusal
from riverrun_server.ports.metadata import Compare, Put, Transaction, TransactionResult
from tests.sim.cluster.cluster import simulate
from tests.sim.cluster.nemesis import KINDS, Ongoing
from tests.sim.cluster.options import Options
from tests.sim.cluster.topics import TOPIC
from tests.sim.cluster.world import Life


def session_of(cluster, pick):
    """Return what an operator reaches: any broker that runs, however old its image is."""
    slots = list(cluster.slots.values())
    slot = slots[int(pick * len(slots))]
    if not slot.is_running or slot.process.life is not Life.RUNNING:
        return None
    session = slot.broker.session
    return session if session.broker_epoch else None


def succeeded(answer):
    return isinstance(answer, TransactionResult) and answer.succeeded


def elected_by_an_operator(cluster, each):
    """Somebody asks for preferred leaders again and again, before the controller would."""
    where = [(TOPIC, partition.partition) for partition in cluster.partitions]
    done, ended = [], []

    def ask(number=0):
        if ended:
            return
        session = session_of(cluster, (each.picks[0] + number * each.picks[2]) % 1)
        if session is not None:
            for step in elect(session.image, where, alone=each.picks[1] < 0.5):
                session.commit([step], done.append)
        cluster.world.after(0.02, ask, number + 1)

    ask()
    return Ongoing(lambda: ended.append(True), lambda: any(map(succeeded, done)))


def drained_by_an_operator(cluster, each):
    """Somebody drains a broker whatever that costs, and lets it serve again."""
    session = session_of(cluster, each.picks[0])
    broker = sorted(cluster.slots)[int(each.picks[1] * len(cluster.slots))]
    if session is None:
        return None
    try:
        steps = drain(session.image, broker, force=True).steps
    except Refusal:
        return None
    done = []
    if steps:
        session.commit(steps, done.append)

    def undo():
        entry = cluster.store.get(keys.broker(broker))
        found = dataclasses.replace(
            entry.value,
            draining=False,
            broker_epoch=entry.value.broker_epoch or entry.mod_revision,
        )
        compare = Compare.unchanged(keys.broker(broker), entry.mod_revision)
        cluster.store.transact(Transaction((compare,), (Put(keys.broker(broker), found),)))

    return Ongoing(undo, lambda: any(map(succeeded, done)))


OPERATORS = {each.__name__: each for each in (elected_by_an_operator, drained_by_an_operator)}
WITH = (
    ("isolated_broker", "quick_restart"),
    ("kill", "slow_watch", "pause"),
    ("lost_store_replies", "slow_store", "power_cut"),
    ("orderly_restart", "slow_disk", "another_min_isr"),
)


@pytest.mark.parametrize("others", WITH, ids=",".join)
def test_operators_beside_a_controller_lose_nothing(others):
    counts = dict.fromkeys(OPERATORS, 0)
    with patch.dict(KINDS, OPERATORS):
        for seed in range(20):
            if seed >= 5 and all(counts.values()):
                break
            options = Options(
                brokers=3 + seed % 2,
                partitions=1 + seed % 3,
                kinds=(*OPERATORS, *OPERATORS, *others),
                mean_gap_s=0.4,
                faults_s=8.0,
            )
            result = simulate(seed, options)
            assert result.violation is None, (seed, result.violation)
            assert result.acknowledged > 5
            for kind in counts:
                counts[kind] += result.faults[kind]
    assert all(counts.values()), counts
