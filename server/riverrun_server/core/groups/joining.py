"""What a process says that wants to be a member, and what is checked of it before anything is looked up."""

from __future__ import annotations

from dataclasses import dataclass

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.commits import check_group_id
from riverrun_server.core.groups.group_limits import GroupsLimits
from riverrun_server.core.groups.members import Assignor, MemberValue
from riverrun_server.core.groups.subscriptions import Subscriptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """The first word of a new stream.

    Attributes:
        topics: the names of topics to read; they need not exist yet.
        pattern: a pattern of names of topics to read; empty is none.
        instance_id: the place in the group that it takes; empty is none, and a new member each time.
        client_id: what its application calls itself.
        address: from where it comes.
        rack: where it runs; empty is nowhere.
        assignor: which one it asks for; None is whichever.
        session_timeout_ms: how long it may be silent; None is the default.
        revocation_timeout_ms: how long it may take to give a partition up; None is the default.
    """

    topics: tuple[str, ...] = ()
    pattern: str = ""
    instance_id: str = ""
    client_id: str = ""
    address: str = ""
    rack: str = ""
    assignor: Assignor | None = None
    session_timeout_ms: int | None = None
    revocation_timeout_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reattach:
    """The first word of a stream that goes on for a member.

    Attributes:
        member_id: the member.
        token: that it was given when it joined.
        address: from where it comes.
        attachment: the stream's number so far, where its gateway goes on by itself; None where the
            member does, with a new one.
    """

    member_id: str
    token: bytes
    address: str = ""
    attachment: int | None = None


def member_of(join: Join, attachment: int, token: bytes, limits: GroupsLimits) -> MemberValue:
    """Return what is kept of a process that joins, which was checked."""
    revocation_ms = join.revocation_timeout_ms
    return MemberValue(
        instance_id=join.instance_id,
        client_id=join.client_id,
        address=join.address,
        # In any order they are the same subscription, which nobody has to move for.
        topics=tuple(sorted(set(join.topics))),
        pattern=join.pattern,
        rack=join.rack,
        assignor=join.assignor,
        session_timeout_ms=_session_ms(join, limits),
        # Not less than the silence that is allowed: a member must have the time to hear of it.
        revocation_timeout_ms=(
            max(limits.revocation_timeout_ms, _session_ms(join, limits))
            if revocation_ms is None
            else revocation_ms
        ),
        attachment=attachment,
        token=token,
    )


def check_join(
    group_id: str, join: Join, limits: GroupsLimits, subscriptions: Subscriptions
) -> None:
    """Check what can be told of a join by itself.

    Raises:
        Refusal: INVALID_REQUEST, LIMIT_EXCEEDED; what there is against the pattern.
    """
    check_group_id(group_id)
    for what, text in (
        ("instance_id", join.instance_id),
        ("client_id", join.client_id),
        ("address", join.address),
        ("rack", join.rack),
    ):
        _check_text(what, text, limits.text_bytes_max)
    _check_timeout(
        "session_timeout",
        join.session_timeout_ms,
        limits.session_timeout_min_ms,
        limits.session_timeout_max_ms,
    )
    _check_timeout(
        "revocation_timeout",
        join.revocation_timeout_ms,
        limits.revocation_timeout_min_ms,
        limits.revocation_timeout_max_ms,
    )
    session_ms, revocation_ms = _session_ms(join, limits), join.revocation_timeout_ms
    if revocation_ms is not None and revocation_ms < session_ms:
        raise Refusal(
            Reason.INVALID_REQUEST,
            f"revocation_timeout is {revocation_ms} ms and must not be less than the session timeout of "
            f"{session_ms} ms; leave it out, or ask for a shorter session timeout",
        )
    _check_subscription(join, limits, subscriptions)


def _session_ms(join: Join, limits: GroupsLimits) -> int:
    given_ms = join.session_timeout_ms
    return limits.session_timeout_ms if given_ms is None else given_ms


def _check_subscription(join: Join, limits: GroupsLimits, subscriptions: Subscriptions) -> None:
    if not join.topics and not join.pattern:
        raise Refusal(
            Reason.INVALID_REQUEST,
            "the start names neither topics nor a pattern; a member reads at least one topic",
        )
    if len(join.topics) > limits.topics_max:
        raise Refusal(
            Reason.LIMIT_EXCEEDED,
            f"the start names {len(join.topics)} topics and {limits.topics_max} are allowed; use a "
            "pattern, or several groups",
        )
    for name in join.topics:
        if not name:
            raise Refusal(Reason.INVALID_REQUEST, "a topic has an empty name; leave it out")
        _check_text("a topic's name", name, limits.text_bytes_max)
    _check_text("pattern", join.pattern, limits.pattern_bytes_max)
    if join.pattern:
        subscriptions.check_pattern(join.pattern)


def _check_text(what: str, text: str, bytes_max: int) -> None:
    size = len(text.encode())
    if size > bytes_max:
        raise Refusal(
            Reason.INVALID_REQUEST,
            f"{what} {text[:80]!r} has {size} bytes and {bytes_max} are allowed; use a shorter one",
        )
    if text and not text.isprintable():
        raise Refusal(
            Reason.INVALID_REQUEST,
            f"{what} {text[:80]!r} has characters that cannot be printed; leave them out",
        )


def _check_timeout(what: str, given_ms: int | None, min_ms: int, max_ms: int) -> None:
    if given_ms is not None and not min_ms <= given_ms <= max_ms:
        raise Refusal(
            Reason.INVALID_REQUEST,
            f"{what} is {given_ms} ms, and {min_ms} to {max_ms} ms are allowed; leave it out where the "
            "default will do",
        )
