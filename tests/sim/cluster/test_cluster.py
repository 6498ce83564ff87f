"""Whole clusters: a few seeds hold, equal seeds are equal, faults bite, and a planted bug is found."""

from __future__ import annotations

import dataclasses

import pytest

from tests.sim.cluster.cluster import FAULTS_MIN, simulate
from tests.sim.cluster.history import Outcome
from tests.sim.cluster.mutants import MUTANTS
from tests.sim.cluster.nemesis import KINDS, Fault, plan
from tests.sim.cluster.options import Options
from tests.sim.cluster.run import STEPS_MIN, explain
from tests.sim.cluster.seeds import FOUND
from tests.sim.cluster.session import LEASE_S
from tests.sim.cluster.world import World


@pytest.mark.parametrize("seed", [*range(6), *FOUND])
def test_a_cluster_loses_nothing_whatever_goes_wrong(seed):
    result = simulate(seed)
    assert result.violation is None, explain(seed)
    assert result.steps >= STEPS_MIN
    assert result.faults.total() >= FAULTS_MIN
    assert result.acknowledged > 5


def test_the_same_seed_twice_is_the_same_run():
    one, other = simulate(7), simulate(7)
    assert one.cluster.world.trace.digest() == other.cluster.world.trace.digest()
    assert one.steps == other.steps
    assert simulate(8).cluster.world.trace.digest() != one.cluster.world.trace.digest()


@pytest.mark.parametrize("seed", [4, 11])
def test_a_run_that_went_on_until_enough_did_harm_can_be_had_again_by_its_plan(seed):
    first = simulate(seed)
    planned_until_s = 2.0 + first.cluster.options.faults_s
    assert first.cluster.faults[-1].at_s > planned_until_s, "this seed is enough by itself"
    again = simulate(seed, first.cluster.options, first.cluster.faults)
    assert again.cluster.world.trace.digest() == first.cluster.world.trace.digest()


def test_a_cluster_without_faults_elects_nobody_and_every_batch_is_acknowledged_at_once():
    result = simulate(1, Options(faults_s=3.0), faults=[])
    assert result.violation is None
    assert result.events["leads"] == 1
    assert result.events["sent again"] == 0
    assert result.faults.total() == 0
    sends = result.cluster.history.sends
    assert max(send.done_s - send.sent_s for send in sends) < 0.2


def test_a_rolling_restart_fails_no_batch_that_is_sent_again_and_costs_a_moment():
    faults = [Fault(2.5 + 5 * n, 2.0, "orderly_restart", (n / 3, 0.9, 0.9, 0.5)) for n in range(3)]
    for seed in range(3):
        result = simulate(seed, Options(faults_s=16.0, partitions=3), faults)
        assert result.violation is None
        assert result.faults["orderly_restart"] == 3
        for send in result.cluster.history.sends:
            sent_once = send.batch.producer_id == 0
            assert send.outcome is Outcome.OK or (sent_once and send.outcome is Outcome.FAILED)
            assert send.done_s - send.sent_s < 0.5


def test_a_leader_without_power_is_replaced_within_a_lease_and_a_look():
    for seed in range(3):
        fault = Fault(3.0, 7.0, "power_cut", (0.1, 0.1, 0.1, 0.5))
        result = simulate(seed, Options(faults_s=10.0), [fault])
        assert result.violation is None
        lines = result.cluster.world.trace.text(10_000).splitlines()
        led = [float(line.split()[0]) for line in lines if " leads " in line]
        assert 3.0 < led[1] < 3.0 + LEASE_S + 1.0


def test_a_cluster_of_more_partitions_than_one_step_holds_loses_nothing():
    options = Options(brokers=4, partitions=40, produce_every_s=2.0, faults_s=5.0, mean_gap_s=0.7)
    result = simulate(0, options)
    assert result.violation is None, result.violation
    assert result.faults.total() > 3


def test_every_kind_of_fault_does_harm():
    options = Options(mean_gap_s=0.2, faults_s=8.0, produce_every_s=0.15)
    harmless = set(KINDS)
    for seed in range(60):
        # Only a topic that may lose what is not synced is ever anything else than durable.
        result = simulate(seed, dataclasses.replace(options, unclean=seed % 2 == 1))
        assert result.violation is None, (seed, result.violation)
        harmless -= {kind for kind, count in result.faults.items() if count}
        if not harmless:
            return
    pytest.fail(f"these did no harm in any of 60 seeds: {sorted(harmless)}")


def test_a_plan_is_fixed_by_its_dice_and_keeps_to_its_time_and_kinds():
    def made(seed: int) -> list[Fault]:
        return plan(World(seed).dice("faults"), 2.0, 12.0, ("kill", "split"), 0.5)

    assert made(3) == made(3) != made(4)
    assert all(2.0 <= each.at_s < 12.0 for each in made(3))
    assert {each.kind for each in made(3)} == {"kill", "split"}


def test_a_failure_names_its_seed_and_the_least_that_it_takes():
    with MUTANTS["min_isr_is_not_looked_at"].plant():
        seed = next(seed for seed in range(100) if simulate(seed).violation)
        text = explain(seed, tries=4)
    assert text.startswith(f"seed {seed} failed: ")
    assert "planned faults are needed:" in text
    assert f"again: make sim-cluster SEEDS=1 FROM={seed}" in text


def test_a_damaged_follower_takes_the_leaders_data_by_itself():
    faults = [Fault(4.0, 1.0, "flipped_bit", (0.9, 0.9, 0.1, 0.5))]
    for seed in range(3):
        result = simulate(seed, Options(faults_s=8.0), faults)
        assert result.violation is None, result.violation
        assert result.faults["flipped_bit"] == 1
        assert (result.events["throws away"], result.events["restored"]) == (1, 0)


def test_a_damaged_leader_resigns_and_takes_its_successors_data():
    faults = [Fault(4.0, 1.0, "flipped_bit", (0.1, 0.9, 0.1, 0.5))]
    led = 0
    for seed in range(12):
        result = simulate(seed, Options(faults_s=8.0), faults)
        assert result.violation is None, result.violation
        assert result.events["throws away"] == 1
        led += result.events["leads"] > 1
    assert led


def test_of_a_deleted_topic_nothing_is_left_and_its_successor_begins_empty():
    faults = [
        Fault(3.0, 9.0, "power_cut", (0.1, 0.9, 0.1, 0.5)),  # one broker sleeps through it
        Fault(4.0, 0.0, "another_topic", (0.1, 0.1, 0.1, 0.5)),
    ]
    for seed in range(3):
        result = simulate(seed, Options(faults_s=12.0), faults)
        assert result.violation is None, result.violation
        assert result.events["dropped"] >= 3
        cluster = result.cluster
        for disk in cluster.disks.values():
            assert disk.store.partitions() == cluster.partitions
        (consumer,) = cluster.consumers
        firsts = [each for each in cluster.history.deliveries if each.consumer == consumer.name]
        assert firsts[0].position == 0


def test_partitions_that_are_added_are_led_and_read():
    faults = [Fault(3.0 + n, 0.0, "one_more_partition", (0.1, 0.1, 0.1, 0.5)) for n in range(3)]
    result = simulate(1, Options(faults_s=8.0), faults)
    assert result.violation is None, result.violation
    assert len(result.cluster.partitions) == len(result.cluster.consumers) == 4
    assert all(each.position > 5 for each in result.cluster.consumers)
