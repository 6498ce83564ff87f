"""From the start of a member's stream to how it joins its group, and what is delivered to it."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration

from riverrun.v1 import consumer_pb2
from riverrun.v1.consumer_pb2 import SubscribeStart
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.commits import check_group_id
from riverrun_server.core.groups.joining import Join, Reattach
from riverrun_server.core.groups.members import Assignor
from riverrun_server.core.reading.limits import ReadingLimits
from riverrun_server.core.reading.places import Place, PlaceKind
from riverrun_server.core.reading.subscription import SubscriptionSettings
from riverrun_server.rpc.reading_plans import check_distinct, subscription_settings
from riverrun_server.rpc.reading_requests import (
    check_count,
    commits_on_delivery,
    form_of,
    place_of,
    unknown_value,
)
from riverrun_server.wire.forms import Form

_ASSIGNORS = {
    consumer_pb2.ASSIGNOR_UNSPECIFIED: None,
    consumer_pb2.ASSIGNOR_UNIFORM: Assignor.UNIFORM,
    consumer_pb2.ASSIGNOR_RANGE: Assignor.RANGE,
}
# What only a member says of itself, and says once.
_OF_MEMBERS = (
    "topic_pattern",
    "instance_id",
    "rack",
    "assignor",
    "session_timeout",
    "revocation_timeout",
    "client_id",
)


@dataclass(frozen=True, slots=True)
class MemberPlan:
    """How a stream becomes a member's, and what is delivered to it.

    Attributes:
        group_id: the group.
        start: how it joins, or goes on; without an address.
        place: where to begin in a partition.
        settings: of the subscription.
        form: how deliveries look.
        commit_on_delivery: whether the broker commits.
        delivers: whether anything is delivered; else the member reads from leaders itself.
    """

    group_id: str
    start: Join | Reattach
    place: Place
    settings: SubscriptionSettings
    form: Form
    commit_on_delivery: bool
    delivers: bool


def is_member(start: SubscribeStart) -> bool:
    """Return whether a stream is to be a member's.

    Raises:
        Refusal: INVALID_REQUEST, where it says what only a member does, and is none.
    """
    if start.group_id and (start.topics or start.topic_pattern or start.HasField("resume")):
        return True
    fields = {field.name for field, _ in start.ListFields()}
    said = [each for each in (*_OF_MEMBERS, "resume", "membership_only") if each in fields]
    if not said:
        return False
    if not start.group_id:
        raise Refusal(
            Reason.INVALID_REQUEST,
            f"`{said[0]}` is for members of a group, and `group_id` is not set; set it, or leave "
            f"`{said[0]}` out",
        )
    raise Refusal(
        Reason.INVALID_REQUEST,
        f"`{said[0]}` is for members of a group, and a member names `topics` or `topic_pattern`, or goes "
        "on by `resume`; a stream with `positions` alone is no member",
    )


def member_plan(start: SubscribeStart, limits: ReadingLimits) -> MemberPlan:
    """Return how a member's stream begins.

    Raises:
        Refusal: INVALID_REQUEST, LIMIT_EXCEEDED.
    """
    check_group_id(start.group_id)
    _check_member(start)
    check_count("topics", len(start.topics), limits)
    check_distinct(start.topics)
    place = place_of(start, start.group_id)
    if place.kind is not PlaceKind.COMMITTED:
        place = Place(PlaceKind.COMMITTED, otherwise=place)
    return MemberPlan(
        start.group_id,
        _resumed(start) if start.HasField("resume") else _join(start),
        place,
        subscription_settings(start, limits, is_member=True),
        form_of(start.form, start.accept_codecs),
        commits_on_delivery(start.commit_mode, start.group_id),
        not start.membership_only,
    )


def _check_member(start: SubscribeStart) -> None:
    if start.positions:
        raise Refusal(
            Reason.INVALID_REQUEST,
            "a member is given its partitions by its group: name `topics` and no `positions`; to read "
            "partitions of your own choice leave `topics` out, or `group_id`",
        )
    if start.do_not_proxy and not start.membership_only:
        raise Refusal(
            Reason.INVALID_REQUEST,
            "the broker that holds a member's stream gathers its partitions from their leaders; leave "
            "`do_not_proxy` out, or set `membership_only` and read from the leaders yourself",
        )
    if start.membership_only and (start.stop_at_end or start.max_records):
        raise Refusal(
            Reason.INVALID_REQUEST,
            "nothing is delivered on a stream with `membership_only`, so it never comes to an end; leave "
            "`stop_at_end` and `max_records` out",
        )
    if start.membership_only and start.commit_mode == consumer_pb2.COMMIT_MODE_ON_DELIVERY:
        raise Refusal(
            Reason.INVALID_REQUEST,
            "nothing is delivered on a stream with `membership_only`, so nothing could be committed "
            "with it; leave `commit_mode` out, and commit yourself",
        )


def _resumed(start: SubscribeStart) -> Reattach:
    fields = {field.name for field, _ in start.ListFields()}
    said = [each for each in ("topics", *_OF_MEMBERS) if each in fields]
    if said:
        raise Refusal(
            Reason.INVALID_REQUEST,
            f"`{said[0]}` is set beside `resume`: a member says what it reads when it joins; leave "
            f"`{said[0]}` out, or join anew without `resume`",
        )
    if not start.resume.member_id:
        raise Refusal(
            Reason.INVALID_REQUEST,
            "`resume` names no member; set `member_id` and `token` from `SubscribeStarted.member`",
        )
    return Reattach(member_id=start.resume.member_id, token=start.resume.token)


def _join(start: SubscribeStart) -> Join:
    if start.assignor not in _ASSIGNORS:
        raise unknown_value("assignor", start.assignor, consumer_pb2.Assignor.keys())
    return Join(
        topics=tuple(start.topics),
        pattern=start.topic_pattern,
        instance_id=start.instance_id,
        client_id=start.client_id,
        rack=start.rack,
        assignor=_ASSIGNORS[start.assignor],
        session_timeout_ms=(
            _milliseconds(start.session_timeout) if start.HasField("session_timeout") else None
        ),
        revocation_timeout_ms=(
            _milliseconds(start.revocation_timeout)
            if start.HasField("revocation_timeout")
            else None
        ),
    )


def _milliseconds(duration: Duration) -> int:
    return duration.seconds * 1000 + duration.nanos // 1_000_000
