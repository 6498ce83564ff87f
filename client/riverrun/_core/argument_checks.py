"""What can be told of a call's arguments before anything is done: their types and ranges."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from operator import index
from typing import Any, TypeVar, cast

from riverrun._core.records import TopicPartition
from riverrun.errors import Reason, UsageError

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1

Value = TypeVar("Value")


def out_of_range(name: str, value: object, expected: str) -> UsageError:
    """Say that a setting or an argument is not what it may be."""
    return UsageError(f"{name} is {value!r}; it must be {expected}", reason=Reason.INVALID_REQUEST)


def whole_number(
    name: str, value: object, least: int = 0, most: int = INT64_MAX, expected: str = ""
) -> int:
    """Return a whole number as an int; anything that stands for one is taken, such as numpy's.

    >>> whole_number("partition", 3)
    3

    Raises:
        UsageError: it is none, or not from `least` to `most`.
    """
    try:
        number = index(cast("Any", value)) if not isinstance(value, bool) else None
    except TypeError:
        number = None
    if number is None or not least <= number <= most:
        top = "" if most in (INT32_MAX, INT64_MAX) else f" to {most}"
        raise out_of_range(name, value, expected or f"a whole number from {least}{top}")
    return number


def is_whole(value: object, least: int = 0, most: int = INT64_MAX) -> bool:
    """Whether a value is such a whole number."""
    try:
        whole_number("it", value, least, most)
    except UsageError:
        return False
    return True


def check_seconds(
    name: str, value: object, least: float = 0.0, most: float = float("inf"), *, above: bool = False
) -> None:
    """Check a length of time in seconds.

    Raises:
        UsageError: it is no number, or not from `least` to `most`, or not above `least`.
    """
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else None
    if number is not None and (least < number if above else least <= number) and number <= most:
        return
    text = f"above {least:g}" if above else f"{least:g} or more"
    raise out_of_range(
        name,
        value,
        f"a number of seconds, {text if most == float('inf') else f'{least:g} to {most:g}'}",
    )


def check_timeout(timeout_s: object) -> None:
    """Check how long a call may wait; None is for ever.

    Raises:
        UsageError: it is neither None nor a number of seconds.
    """
    if timeout_s is not None:
        check_seconds("timeout_s", timeout_s)


def check_topic(topic: object) -> None:
    """Check what is to be the name of a topic; which names there can be, the broker says.

    Raises:
        UsageError: it is no text, or empty.
    """
    _check_name("topic", topic, "orders")


def check_group(group: object) -> None:
    """Check what is to be the name of a group.

    Raises:
        UsageError: it is no text, or empty.
    """
    _check_name("group", group, "billing")


def _check_name(of: str, name: object, example: str) -> None:
    if not isinstance(name, str):
        raise out_of_range(f"the {of}", name, f'its name, a str such as "{example}"')
    if not name:
        raise UsageError(f"the {of}'s name is empty", reason=Reason.INVALID_NAME)


def texts(name: str, given: Iterable[str], expected: str) -> tuple[str, ...]:
    """Return several texts; one alone, of which each character would count, is refused.

    Raises:
        UsageError: they are not several, or one is no text.
    """
    if not isinstance(given, str | bytes) and isinstance(given, Iterable):
        several = tuple(given)
        if all(isinstance(one, str) for one in several):
            return several
    raise out_of_range(name, given, expected)


def check_records(records: object, *, or_async: bool) -> None:
    """Check what is to be several records; bytes and text, of which each part would be one, are not.

    Raises:
        UsageError: they cannot be iterated over.
    """
    kinds = ("__iter__", "__getitem__", "__aiter__") if or_async else ("__iter__", "__getitem__")
    if isinstance(records, str | bytes) or not any(hasattr(records, kind) for kind in kinds):
        raise out_of_range(
            "records", records, 'an iterable of records, as [b"one", b"two"]; `send` takes one'
        )


def check_callable(name: str, value: object) -> None:
    """Check what is to be called back; None is nobody.

    Raises:
        UsageError: it cannot be called.
    """
    if value is not None and not callable(value):
        raise out_of_range(name, value, "a function, or None")


def topic_partition(given: object) -> TopicPartition:
    """Return one partition of one topic; a plain pair is taken too.

    >>> str(topic_partition(("orders", 0)))
    'orders[0]'

    Raises:
        UsageError: it is none.
    """
    if isinstance(given, tuple) and len(given) == 2:
        with suppress(TypeError):
            topic, number = given[0], index(given[1])
            if isinstance(topic, str) and topic and 0 <= number <= INT32_MAX:
                return TopicPartition(topic, number)
    raise UsageError(
        f"{given!r} names no partition: a topic and a number from 0 are needed, as "
        'riverrun.TopicPartition("orders", 0)',
        reason=Reason.INVALID_REQUEST,
    )


def topic_partitions(given: Iterable[object]) -> tuple[TopicPartition, ...]:
    """Return some partitions.

    Raises:
        UsageError: they are not several, or one of them is none.
    """
    if isinstance(given, str | TopicPartition) or not isinstance(given, Iterable):
        raise out_of_range(
            "partitions", given, 'several, as in [riverrun.TopicPartition("orders", 0)]'
        )
    return tuple([topic_partition(one) for one in given])


def by_partition(name: str, given: Mapping[TopicPartition, Value]) -> dict[TopicPartition, Value]:
    """Return what is given by partition.

    Raises:
        UsageError: it is no mapping, or one of its keys is no partition.
    """
    if not isinstance(given, Mapping):
        raise out_of_range(
            name, given, 'a mapping by partition, as {riverrun.TopicPartition("orders", 0): …}'
        )
    return {topic_partition(one): value for one, value in given.items()}
