"""What a consumer says of itself as a member of its group, checked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypedDict, get_args

from riverrun._core.argument_checks import check_callable, check_seconds, out_of_range
from riverrun._core.records import TopicPartition
from riverrun._net.durations import duration
from riverrun._net.subscribe_settings import SubscribeSettings
from riverrun.errors import Reason, UsageError
from riverrun.v1 import consumer_pb2 as pb

AssignorName: TypeAlias = Literal["uniform", "range"]
"""How partitions are shared out: evenly, or the same numbers of every topic to one member."""

OnPartitions: TypeAlias = Callable[[Sequence[TopicPartition]], Awaitable[None] | None]
"""Told of partitions; may be async."""

_ASSIGNORS: dict[str, pb.Assignor.ValueType] = {
    "uniform": pb.ASSIGNOR_UNIFORM,
    "range": pb.ASSIGNOR_RANGE,
}


class MemberOptions(TypedDict, total=False):
    """What `Client.consumer` takes of a member of a group, which is what a consumer with a `group` is.

    instance_id: names a place in the group: whoever comes with it within the session timeout gets the
        partitions of whoever had it before, and nobody else moves. Closing keeps them for that time.
    topic_pattern: topics to read by name, those made later included: RE2's syntax, for whole names.
    session_timeout_s: how long the member may be silent before others get its partitions.
    revocation_timeout_s: how long it may take to finish with a partition that another one is to get.
    rack: where it runs, to be given partitions that have a replica there.
    assignor: "uniform" or "range"; the group uses what most of its members ask for.
    client_id: what it is called where operators see it.
    direct: read each partition from its leader, on a stream to each, rather than everything on one stream
        through whichever broker answers: more connections, and one way less for each record.
    on_assigned: called with partitions that the group has given it, before their first record.
    on_revoked: called with partitions that another member is to get, when the application is through with
        what it has of them: the moment to commit what goes with them. Then they are let go.
    on_lost: called with partitions that others may have already; nothing of them can be committed.

    Example:
        options: riverrun.MemberOptions = {"instance_id": "till-3", "session_timeout_s": 30.0}
        async with client.consumer("orders", group="billing", **options) as consumer:
            print(await consumer.getmany(10, timeout_s=1))
    """

    instance_id: str | None
    topic_pattern: str | None
    session_timeout_s: float | None
    revocation_timeout_s: float | None
    rack: str | None
    assignor: AssignorName | None
    client_id: str | None
    direct: bool | None
    on_assigned: OnPartitions | None
    on_revoked: OnPartitions | None
    on_lost: OnPartitions | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberSettings:
    """As `MemberOptions`; what is empty or None is not said.

    Raises:
        UsageError: a value is none.
    """

    instance_id: str | None = None
    topic_pattern: str | None = None
    session_timeout_s: float | None = None
    revocation_timeout_s: float | None = None
    rack: str | None = None
    assignor: str | None = None
    client_id: str | None = None
    direct: bool | None = None
    on_assigned: OnPartitions | None = None
    on_revoked: OnPartitions | None = None
    on_lost: OnPartitions | None = None

    def __post_init__(self) -> None:
        """Check."""
        for name in ("instance_id", "topic_pattern", "rack", "client_id"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value):
                raise out_of_range(name, value, "a str that is not empty, or None")
        for name in ("session_timeout_s", "revocation_timeout_s"):
            value = getattr(self, name)
            if value is not None:
                check_seconds(name, value, above=True)
        for name in ("on_assigned", "on_revoked", "on_lost"):
            check_callable(name, getattr(self, name))
        if not isinstance(self.direct, bool | None):
            raise out_of_range("direct", self.direct, "True, False or None")
        if self.assignor not in (None, *get_args(AssignorName)):
            raise UsageError(
                f'assignor is {self.assignor!r}; use "uniform" or "range", or None',
                reason=Reason.INVALID_REQUEST,
            )

    def said(self) -> list[str]:
        """Return the names of what is said."""
        return [name for name in MemberOptions.__annotations__ if getattr(self, name) is not None]

    def fill(self, start: pb.SubscribeStart) -> None:
        """Say it in a stream's start."""
        start.instance_id = self.instance_id or ""
        start.topic_pattern = self.topic_pattern or ""
        start.rack = self.rack or ""
        start.client_id = self.client_id or ""
        if self.assignor is not None:
            start.assignor = _ASSIGNORS[self.assignor]
        if self.session_timeout_s is not None:
            start.session_timeout.CopyFrom(duration(self.session_timeout_s))
        if self.revocation_timeout_s is not None:
            start.revocation_timeout.CopyFrom(duration(self.revocation_timeout_s))


def member_settings(settings: SubscribeSettings, options: MemberOptions) -> MemberSettings | None:
    """Return what a consumer says as a member; None where it is none.

    Raises:
        UsageError: it says something, and is none; or a value is none.
    """
    member = MemberSettings(**options)
    if settings.group and (settings.topics or member.topic_pattern) and not settings.places:
        return member
    for name in member.said():
        raise UsageError(
            f"{name} is for members of a group; a member has a `group`, reads whole topics, and names no "
            "`partitions`",
            reason=Reason.INVALID_REQUEST,
        )
    return None
