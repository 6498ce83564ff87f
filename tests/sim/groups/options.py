"""What a seed's groups are like: brokers, topics, members, timeouts, and what goes wrong."""

from __future__ import annotations

import random
from dataclasses import dataclass

from tests.sim.groups.nemesis import KINDS

# Kinds of faults of one seed: few, so that each happens often, in many mixtures.
_KINDS_MIN, _KINDS_MAX = 3, 6
# And one that always finds somebody to harm.
_ALWAYS = ("leader_elected_again", "member_paused", "offsets_read", "stream_lost")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a seed's groups are like.

    Attributes:
        brokers: so many.
        homes: partitions of the offsets topic.
        groups: so many.
        topics: with so many partitions each.
        members: of each group.
        static: of these, those with an instance id.
        session_timeout_ms: of all members.
        revocation_timeout_ms: of all members.
        produce_every_s: a record somewhere.
        commit_every_s: of each member.
        append_s: how long a commit of the offsets topic takes.
        kinds: faults.
        mean_gap_s: between two faults.
        faults_s: for how long there are some.
        half_closed: the share of members that say nothing behind their start.
        rewrite_records: how long the log of offsets may become before it is rewritten.
    """

    brokers: int
    homes: int
    groups: int
    topics: tuple[int, ...]
    members: int
    static: int
    session_timeout_ms: int
    revocation_timeout_ms: int
    produce_every_s: float
    commit_every_s: float
    append_s: float
    kinds: tuple[str, ...]
    mean_gap_s: float
    faults_s: float
    rewrite_records: int
    half_closed: float


def draw(seed: int) -> Options:
    """Return what a seed's groups are like."""
    dice = random.Random(f"options of {seed}")
    members = dice.choice((2, 2, 3, 4))
    session_ms = dice.choice((1000, 1500, 2000))
    number = dice.randint(_KINDS_MIN, _KINDS_MAX)
    return Options(
        brokers=dice.choice((2, 3, 3)),
        homes=dice.choice((1, 2)),
        groups=dice.choice((1, 1, 2)),
        topics=dice.choice(((2,), (3,), (2, 2), (4,), (1, 3))),
        members=members,
        static=dice.randint(0, members),
        session_timeout_ms=session_ms,
        revocation_timeout_ms=session_ms + dice.choice((0, 500, 2000)),
        produce_every_s=dice.choice((0.1, 0.2)),
        commit_every_s=dice.choice((0.1, 0.3)),
        append_s=dice.choice((0.002, 0.01, 0.05)),
        kinds=tuple(sorted({*dice.sample(sorted(KINDS), number), dice.choice(_ALWAYS)})),
        mean_gap_s=dice.choice((0.25, 0.5, 0.8)),
        faults_s=9.0,
        rewrite_records=dice.choice((30, 100, 1000)),
        half_closed=dice.choice((0.0, 0.0, 0.3)),
    )
