"""Resets of offsets that wait until the members of their groups have given the partitions up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.holds import HoldState
from riverrun_server.core.groups.offsets import OffsetRecord
from riverrun_server.runtime.group_turn import Turn, refuse


class _Reset(NamedTuple):
    group_id: str
    hold: int
    records: Sequence[OffsetRecord]
    done: asyncio.Future[None]


class Resets:
    """The resets of all groups of a partition of the offsets topic.

    Transitions: waiting (`add`) -> written, in the turn in which nobody has any of the partitions, which
    also lifts the hold, so that whoever is given one begins at the new place -> answered with that turn;
    or given up, when its hold is over, or its caller is gone.
    """

    def __init__(self) -> None:
        self._waiting: list[_Reset] = []

    @property
    def has_orphans(self) -> bool:
        """Whether the caller of one has gone, so that its hold is to be lifted."""
        return any(reset.done.done() for reset in self._waiting)

    def add(
        self, group_id: str, hold: int, records: Sequence[OffsetRecord], done: asyncio.Future[None]
    ) -> None:
        """Let a reset wait for its hold."""
        self._waiting.append(_Reset(group_id, hold, records, done))

    def write(self, turn: Turn) -> None:
        """Write what can be written."""
        waiting, self._waiting = self._waiting, []
        for reset in waiting:
            operations = turn.groups.operations
            state = operations.hold_state(reset.group_id, reset.hold)
            if reset.done.done():
                operations.lift(reset.group_id, reset.hold)
            elif state is HoldState.OVER:
                refuse(reset.done, _too_late(reset.group_id))
            elif state is HoldState.WAITING:
                self._waiting.append(reset)
            else:
                self._write(turn, reset)

    def _write(self, turn: Turn, reset: _Reset) -> None:
        try:
            turn.store(reset.group_id, reset.records)
        except Refusal as refusal:
            turn.answer(reset.done, refusal)
        else:
            turn.answer(reset.done, _nothing)
        turn.groups.operations.lift(reset.group_id, reset.hold)

    def end(self, why: Refusal) -> None:
        """Give everything up, with the machine that held the partitions; nothing was written."""
        waiting, self._waiting = self._waiting, []
        for reset in waiting:
            refuse(reset.done, why)


def _too_late(group_id: str) -> Refusal:
    return Refusal(
        Reason.CONFLICT,
        f"members of group {group_id!r} have not given the partitions up in time, so nothing was "
        "changed and they go on where they were; allow more time, or remove the member that is stuck",
    )


def _nothing() -> None:
    return None
