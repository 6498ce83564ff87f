"""How a partition of the offsets topic is driven: bounds, batches, pauses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from riverrun_server.core.groups.group_limits import GroupsLimits
from riverrun_server.core.groups.offsets import OffsetsLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetsLogSettings:
    """How a partition of the offsets topic is driven.

    Attributes:
        limits: what it holds of offsets.
        groups: what it holds of groups, and how long they may take.
        batch_bytes: what a turn aims at; one call alone may be larger.
        waiting_max: calls that may wait for the lane.
        read_bytes: how much of the log is read in one step.
        retry_after_s: the pauses before an append is tried again that the disk did not take; then
            its calls fail.
        reload_first_s: how long to wait at most before loading is tried again; doubled each time.
        reload_max_s: where that ends, and so how late a partition that has come back is noticed.
        rewrite_again_after_s: how long to leave a rewrite alone that could not be finished.
        election_first_s: how long to wait at most before a partition is asked again whose leadership
            is only just beginning; doubled each time.
        election_max_s: where that ends.
        expiry_every_s: how often offsets are looked for that nobody needs any more.
    """

    limits: OffsetsLimits = field(default_factory=OffsetsLimits)
    groups: GroupsLimits = field(default_factory=GroupsLimits)
    batch_bytes: int = 256 << 10
    waiting_max: int = 4000
    read_bytes: int = 1 << 20
    retry_after_s: Sequence[float] = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
    reload_first_s: float = 0.5
    reload_max_s: float = 10.0
    rewrite_again_after_s: float = 60.0
    election_first_s: float = 0.02
    election_max_s: float = 0.5
    expiry_every_s: float = 60.0
