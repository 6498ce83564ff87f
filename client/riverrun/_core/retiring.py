"""Partitions that a consumer is to read no more: let be, for what is in hand of them, and then dropped."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from riverrun._core.batch_view import WireBatch
from riverrun._core.reading import ReaderMachine
from riverrun._core.records import TopicPartition

B = TypeVar("B", bound=WireBatch)


def retire(machine: ReaderMachine[B], partitions: Iterable[TopicPartition]) -> None:
    """Return nothing more of partitions, whose readers stay for what is in hand of them."""
    for partition in partitions:
        reader = machine.readers.get(partition)
        if reader is not None:
            machine.ahead.purge(reader)
            reader.dropped = reader.retired = True


def drop(machine: ReaderMachine[B], partitions: Iterable[TopicPartition]) -> None:
    """Forget partitions, and what was read ahead of them."""
    for partition in partitions:
        reader = machine.readers.pop(partition, None)
        if reader is not None:
            machine.ahead.purge(reader)
