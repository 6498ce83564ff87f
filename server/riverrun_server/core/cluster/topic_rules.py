"""What a topic may be called and how many partitions it may have, and how a missing one is told."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from riverrun_server.core.cluster.naming import did_you_mean, quoted
from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.limits import Limits

INTERNAL_PREFIX: Final = "__"
# The names of Kafka's topics. They fit file names and paths of every tool that makes some of them.
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,249}", re.ASCII)
_REPLICAS_MAX: Final = 1_000


def is_internal(name: str) -> bool:
    """Return whether topics of this name belong to the brokers."""
    return name.startswith(INTERNAL_PREFIX)


def is_valid_name(name: str) -> bool:
    """Return whether a topic may have this name."""
    return _NAME.fullmatch(name) is not None and name not in {".", ".."}


def check_name(name: str) -> None:
    """Refuse a name that no topic may have.

    Raises:
        Refusal: INVALID_NAME.
    """
    if is_valid_name(name):
        return
    if len(name) > 249:
        wrong = f"has {len(name)} characters, at most 249 are allowed"
    elif not name:
        wrong = "is empty"
    else:
        wrong = 'is not made of A-Z a-z 0-9 . _ - or is "." or ".."'
    raise Refusal(
        Reason.INVALID_NAME,
        f"topic name {quoted(name)} {wrong}; expected [A-Za-z0-9._-]{{1,249}}",
    )


def check_not_reserved(name: str) -> None:
    """Refuse what a client wants to do with a topic that belongs to the brokers.

    Raises:
        Refusal: TOPIC_RESERVED.
    """
    if is_internal(name):
        raise Refusal(
            Reason.TOPIC_RESERVED,
            f'topic {quoted(name)} is reserved: names that begin with "__" belong to the brokers; '
            "choose another name",
        )


def check_partitions(count: int, limits: Limits, other_partitions: int) -> None:
    """Refuse a number of partitions that a topic may not have.

    Args:
        count: of the topic.
        limits: of the broker.
        other_partitions: that the broker has beside this topic's.

    Raises:
        Refusal: INVALID_REQUEST, LIMIT_EXCEEDED.
    """
    if count < 1:
        raise Refusal(Reason.INVALID_REQUEST, f"partitions is {count}, expected at least 1")
    if count > limits.max_partitions_per_topic:
        raise Refusal(
            Reason.LIMIT_EXCEEDED,
            f"partitions is {count}, a topic has at most {limits.max_partitions_per_topic} "
            "(setting limits.max_partitions_per_topic)",
        )
    if count + other_partitions > limits.max_partitions:
        raise Refusal(
            Reason.LIMIT_EXCEEDED,
            f"with {count} partitions of this topic the broker would have "
            f"{count + other_partitions}, at most {limits.max_partitions} are allowed (setting "
            "limits.max_partitions); delete topics, or raise the setting",
        )


def check_replication_factor(count: int, usable: int, registered: int | None = None) -> None:
    """Refuse a replication factor that cannot be had now.

    Args:
        count: of the topic.
        usable: how many brokers take replicas.
        registered: how many brokers there are, with those that are fenced or draining.

    Raises:
        Refusal: INVALID_REQUEST, NOT_ENOUGH_BROKERS.
    """
    if not 1 <= count <= _REPLICAS_MAX:
        raise Refusal(
            Reason.INVALID_REQUEST,
            f"replication_factor is {count}, expected 1 to {_REPLICAS_MAX}",
        )
    if count > usable:
        registered = usable if registered is None else registered
        away = registered - usable
        raise Refusal(
            Reason.NOT_ENOUGH_BROKERS,
            f"replication factor {count} needs {count} broker{'s' * (count > 1)}, {registered} "
            f"{'is' if registered == 1 else 'are'} registered"
            + (f" and {away} of them fenced or draining" if away else "")
            + "; start more, or ask for a smaller replication_factor (flag --replication-factor; "
            "where none is named, setting topic_defaults.replication_factor counts; a broker with "
            'the setting metadata = "embedded" is always alone)',
        )


def missing_topic(name: str, known: Sequence[str], *, to_change: bool = False) -> Refusal:
    """Return the refusal for a topic that is not there; `known` are the names that are, sorted.

    Who wanted to change or delete it is not told how to make it. Topics of the brokers are never
    what was meant.
    """
    if is_internal(name):
        hint = '; names that begin with "__" belong to the brokers'
    elif not is_valid_name(name):
        hint = "; no topic can have this name: expected [A-Za-z0-9._-]{1,249}"
    else:
        hint = ""
    shown = [each for each in known if not is_internal(each)]
    if not is_internal(name) and (meant := did_you_mean(name, shown)):
        hint = meant
    if not hint and not to_change:
        hint = f"; make it with: riverrun topic create {name}"
    return Refusal(Reason.TOPIC_NOT_FOUND, f"there is no topic {quoted(name)}{hint}")


def missing_partition(name: str, partition: int, partitions: int) -> Refusal:
    """Return the refusal for a partition that a topic does not have."""
    return Refusal(
        Reason.PARTITION_NOT_FOUND,
        f"topic {quoted(name)} has no partition {partition}; it has {partitions}, from 0",
    )


def wrong_topic_id(name: str, actual: bytes, given: bytes) -> Refusal:
    """Return the refusal for a name and an id that do not belong together."""
    return Refusal(
        Reason.TOPIC_ID_MISMATCH,
        f"topic {quoted(name)} has id {actual.hex()}, not {quoted(given.hex())}: it was deleted "
        "and made again; refresh the metadata",
    )
