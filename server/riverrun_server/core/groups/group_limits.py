"""The bounds of the groups of one partition of the offsets topic, in one value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupsLimits:
    """The bounds of the groups of one partition of the offsets topic.

    Attributes:
        groups_max: groups with members, or with a record of having had some.
        members_max: members of all these groups together.
        group_members_max: members of one group.
        bytes_max: memory for all of them. It is looked at when somebody joins: what the members are
            given then may take it over by what one group can have.
        topics_max: topics that one member may name.
        text_bytes_max: of each name that a member gives: of topics, instance, client, rack.
        pattern_bytes_max: of a pattern.
        session_timeout_min_ms: how long any member may at least be silent. A second is as short as
            beats over a loaded network allow.
        session_timeout_max_ms: how long any member may at most be silent, and keep its partitions
            from the others.
        session_timeout_ms: how long, where the member does not say.
        revocation_timeout_min_ms: the shortest time to give a partition up in.
        revocation_timeout_max_ms: the longest.
        revocation_timeout_ms: how long, where the member does not say.
        doubt_ms: for how long after a load an instance whose gateway has not spoken yet may be at
            work; gateways find a new coordinator within that time.
        stall_ms: a coordinator that looks at its timers so much later than they were due has stood
            still itself, and whoever seems silent by that gets `doubt_ms` more.
        pause_us_per_member: how long a group's targets stay at least before they are computed anew, for
            each of its members. Computing takes some 30 us for each on the same machine, so a group
            that changes all the time takes less than a tenth of a core.
        pause_max_ms: and at most, however large the group is.
        holds_max: resets of one group that may be under way.
        retention_ms: for how long what a group without members has committed is kept; -1 is for good.
    """

    groups_max: int = 20_000
    members_max: int = 20_000
    group_members_max: int = 10_000
    bytes_max: int = 64 << 20
    topics_max: int = 1_000
    text_bytes_max: int = 249
    pattern_bytes_max: int = 1_000
    session_timeout_min_ms: int = 1_000
    session_timeout_max_ms: int = 1_800_000
    session_timeout_ms: int = 10_000
    revocation_timeout_min_ms: int = 1_000
    revocation_timeout_max_ms: int = 1_800_000
    revocation_timeout_ms: int = 60_000
    doubt_ms: int = 3_000
    stall_ms: int = 1_000
    pause_us_per_member: int = 500
    pause_max_ms: int = 1_000
    holds_max: int = 16
    retention_ms: int = 7 * 86_400_000

    def pause_ms(self, members: int) -> int:
        """Return how long the targets of a group of so many members stay at least."""
        return min(members * self.pause_us_per_member // 1000, self.pause_max_ms)
