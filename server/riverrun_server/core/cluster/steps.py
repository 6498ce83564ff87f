"""A planned change of metadata: steps in order, each one transaction of the store.

Every write and deletion names the revision at which its key must still stand, so a step applies to
the state that it was planned on or not at all, and sending it twice does it once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from riverrun_server.core.cluster.values import Value

# etcd allows 128 operations a transaction by default; some are left for guards.
MAX_CHANGES = 100

ABSENT = 0
# Stands for the revision at which an earlier step of the same plan left the key.
EARLIER = -1

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Write:
    """Set a key that stands at `mod_revision`, which may be `ABSENT` or `EARLIER`."""

    key: str
    value: Value
    mod_revision: int


@dataclass(frozen=True, slots=True)
class Erase:
    """Delete a key that stands at `mod_revision`."""

    key: str
    mod_revision: int


@dataclass(frozen=True, slots=True)
class Guard:
    """Change nothing, but insist that a key stands at `mod_revision`."""

    key: str
    mod_revision: int


Change = Write | Erase | Guard
# A write, and what it insists on beside its own key.
Piece = tuple[tuple[Guard, ...], Write]


@dataclass(frozen=True, slots=True)
class Step:
    """Changes that happen together or not at all."""

    changes: tuple[Change, ...]

    def __post_init__(self) -> None:
        """Keep it within what a store takes."""
        assert 0 < len(self.changes) <= MAX_CHANGES, len(self.changes)
        assert len({change.key for change in self.changes}) == len(self.changes), self.changes


def batched(changes: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Cut a sequence into pieces of at most `size`."""
    for begin in range(0, len(changes), size):
        yield changes[begin : begin + size]


def packed(
    pieces: Iterable[Piece],
    always: Sequence[Guard] = (),
    writes_max: int = MAX_CHANGES,
) -> Iterator[Step]:
    """Put writes that each insist on guards of their own into as few steps as hold them in order.

    Args:
        pieces: each write with what it insists on beside `always`.
        always: what every step insists on.
        writes_max: how many writes a step may have; a step that does not apply holds up all of its.
    """
    guards = {each.key: each for each in always}
    writes: list[Write] = []
    for own, write in pieces:
        more = {each.key: each for each in own if each.key not in guards}
        full = len(guards) + len(more) + len(writes) + 1 > MAX_CHANGES
        if writes and (full or len(writes) == writes_max):
            yield Step((*guards.values(), *writes))
            guards, writes = {each.key: each for each in always}, []
            more = {each.key: each for each in own if each.key not in guards}
        guards |= more
        writes.append(write)
    if writes:
        yield Step((*guards.values(), *writes))


def guarded(guard: Guard, changes: Sequence[Write | Erase]) -> Iterator[Step]:
    """Cut many changes into steps that each insist on the same guard."""
    for piece in batched(changes, MAX_CHANGES - 1):
        yield Step((guard, *piece))
