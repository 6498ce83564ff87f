"""What a simulated cluster is like and what goes wrong in it, drawn from the seed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from riverrun_server.core.replication.terms import Terms
from tests.sim.cluster import faults as _faults  # noqa: F401 - registers their kinds
from tests.sim.cluster.nemesis import KINDS
from tests.sim.cluster.world import World

# Kinds of faults that together make what each of them alone does not: logs that part again and again,
# changes of the ISR of which nobody knows whether they happened, replicas that begin from nothing.
_TOGETHER = (
    ("leaders_isolated_in_turn",),
    ("leaders_isolated_in_turn", "power_cut", "quick_restart"),
    ("leaders_isolated_in_turn", "slow_disk", "store_cut_off", "pause"),
    ("isolated_broker", "pause", "kill"),
    ("isolated_broker", "power_cut_of_all", "slow_disk"),
    ("cut_one_way", "quick_restart", "power_cut"),
    ("store_cut_off", "slow_watch", "lost_store_replies", "slow_disk"),
    ("lost_store_replies", "slow_watch", "pause", "slow_link"),
    ("slow_store", "slow_watch", "kill", "slow_disk", "cut_between_two"),
    ("replaced_disk", "flipped_bit", "kill"),
    ("flipped_bit", "broken_streams", "slow_disk", "slow_store"),
    ("another_topic", "one_more_partition", "power_cut", "slow_watch"),
    ("another_topic", "one_more_partition", "kill", "full_disk", "store_cut_off"),
    ("flipped_bit", "cut_between_two", "lost_store_replies", "power_cut"),
    ("replaced_disk", "trimmed", "slow_link"),
    ("another_class", "slow_disk", "power_cut", "power_cut_of_all"),
    ("swizzle", "quick_restart", "another_min_isr"),
    ("orderly_restart", "slow_disk", "full_disk"),
    ("leases_end_early", "slow_watch", "pause"),
)


@dataclass(frozen=True, slots=True)
class Options:
    """What a cluster is like and what happens to it; drawn from the seed where nobody says.

    Attributes:
        brokers: how many.
        partitions: of the one topic.
        replication_factor: of the topic.
        min_isr: of the topic.
        unclean: the topic accepts losses when all of its data is gone; then disks are replaced
            without a thought for what is on the others.
        relaxed: appends count once they are written.
        kinds: which faults may happen.
        mean_gap_s: about so long from one fault to the next.
        faults_s: for how long faults begin.
        producers: of each partition: what they wait for ("all", "leader"), or that they try each
            batch "once"; drawn where it is empty.
        produce_every_s: about so long from one batch of a producer to the next.
        terms: times and bounds of replication.
        tail_bytes: memory for the newest batches of a broker.
        snapshot_interval_bytes: between two snapshots of a partition's producers.
    """

    brokers: int = 3
    partitions: int = 1
    replication_factor: int = 3
    min_isr: int = 2
    unclean: bool = False
    relaxed: bool = False
    kinds: tuple[str, ...] = tuple(KINDS)
    mean_gap_s: float = 1.5
    faults_s: float = 10.0
    producers: tuple[str, ...] = ()
    produce_every_s: float = 0.25
    terms: Terms = field(default_factory=Terms)
    tail_bytes: int = 1 << 16
    snapshot_interval_bytes: int = 1 << 20


def draw(seed: int) -> Options:
    """Return the options of a seed: few kinds of faults at once, so that each gets its turn."""
    dice = World(seed).dice("options")
    brokers = dice.choice((3, 3, 3, 4, 5))
    replication_factor = dice.choice((2, 3, 3, 3))
    kinds = dice.choice(_TOGETHER)
    if dice.random() < 0.6:
        kinds = tuple(sorted(dice.sample(sorted(KINDS), dice.randint(1, 8))))
    unclean = dice.random() < 0.15
    # Now and then more partitions than the controller changes in one step.
    partitions = 40 if dice.random() < 0.02 else dice.choice((1, 1, 1, 2, 3))
    options = Options(
        brokers=brokers,
        partitions=partitions,
        replication_factor=replication_factor,
        min_isr=dice.randint(1, replication_factor - 1) if dice.random() < 0.4 else 2,
        unclean=unclean or "another_class" in kinds,
        relaxed=unclean and dice.random() < 0.4,
        kinds=kinds,
        mean_gap_s=dice.choice((0.3, 0.5, 0.8, 1.5)),
        faults_s=dice.choice((4.0, 7.0, 10.0)),
        produce_every_s=2.0 if partitions > 3 else dice.choice((0.08, 0.15, 0.3)),
        terms=Terms(
            lag_s=dice.choice((0.4, 1.5, 4.0, 10.0)),
            probe_s=dice.choice((0.3, 1.0)),
            retry_s=dice.choice((0.3, 1.0)),
            begin_s=dice.choice((0.5, 10.0)),
            max_push_bytes=dice.choice((1, 300)),
            max_under_way_bytes=dice.choice((300, 1000, 8 << 20)),
        ),
        tail_bytes=dice.choice((0, 500, 1 << 16)),
        snapshot_interval_bytes=dice.choice((100, 1000, 1 << 20)),
    )
    more = World(seed).dice("more options")
    terms = dataclasses.replace(options.terms, refetch_s=more.choice((0.1, 0.5)))
    options = dataclasses.replace(options, terms=terms)
    return leading_in_turn(options) if dice.random() < 0.05 else options


def leading_in_turn(options: Options) -> Options:
    """Return a cluster whose two replicas lead in turn, each with a tail that the other never saw."""
    return dataclasses.replace(
        options,
        kinds=("leaders_isolated_in_turn",),
        brokers=3,
        partitions=1,
        replication_factor=2,
        min_isr=2,
        producers=("leader", "leader"),
        produce_every_s=0.1,
        mean_gap_s=8.0,
        faults_s=25.0,
    )
