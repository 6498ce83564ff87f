"""A call's search for the coordinator of its group, while coordinators move: when it is tried again.

Intuition: what says that the coordinator is elsewhere, or not ready, is asked again after a moment, or
at once when the metadata names another leadership. Where nobody knows whether a commit was stored,
it is tried again only once that cannot bring an older value behind a newer one: the stream that had
carried it has ended, or another leader epoch has begun. In either case what the first try may have left
in the log stands before whatever the next one writes, and says the same.

Transitions: asking -> pausing (refused, to be tried again) -> asking ... -> given up, with what the
caller is told. Once a try was left in doubt, no later refusal makes the outcome definite.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.offsets import OffsetsUnreadable

FIRST_PAUSE_S: Final = 0.02
MAX_PAUSE_S: Final = 0.25

# Who coordinates the group is only just beginning to, or is not whoever was asked.
_MOVING: Final = frozenset(
    {
        Reason.NOT_LEADER,
        Reason.LEADER_NOT_AVAILABLE,
        Reason.FENCED_LEADER_EPOCH,
        Reason.UNKNOWN_LEADER_EPOCH,
        Reason.OFFSET_NOT_AVAILABLE,
        Reason.COORDINATOR_LOADING,
    }
)
# Whoever was asked cannot; where others can be elected, one of them will soon.
_OF_ANOTHER: Final = _MOVING | {
    Reason.NOT_READY,
    Reason.SHUTTING_DOWN,
    Reason.PARTITION_OFFLINE,
}


def is_moving(refusal: Refusal) -> bool:
    """Return whether a refusal tells of the coordinator and not of what it was asked."""
    return not refusal.meaning.definite or refusal.reason in _OF_ANOTHER


class InDoubt(Refusal):
    """The stream ended on which something was asked: nobody knows, and it may be asked anew."""


class CoordinatorSearch:
    """One call, until it is answered.

    Args:
        group_id: whose coordinator is looked for.
        deadline: until when, in seconds of a monotonic clock, here and everywhere.
        changes: whether the call may have changed something where its outcome is unknown.

    Attributes:
        doubt: why nobody knows what became of an earlier try; None where that is known.
    """

    def __init__(self, group_id: str, deadline: float, *, changes: bool) -> None:
        self._group_id = group_id
        self.deadline = deadline
        self._changes = changes
        self._pause_s = FIRST_PAUSE_S
        self._asked: Hashable = None
        self._not_before = float("-inf")
        self._needs_other = False
        self.doubt: Refusal | None = None
        self._last: Refusal | None = None

    def pause_s(self, leadership: Hashable, now: float) -> float:
        """Return how long to wait for news before asking; 0 is to ask now.

        Args:
            leadership: who leads and in which epoch, as known now; None where nobody is known to.
            now: the time.

        Raises:
            Refusal: what to tell the caller; its time is up.
        """
        is_new = leadership is not None and leadership != self._asked
        due = leadership is not None and now >= self._not_before and not self._needs_other
        if is_new or due:
            return 0.0
        if now >= self.deadline:
            raise self._given_up()
        until = self.deadline
        if leadership is not None and not self._needs_other:
            until = min(until, self._not_before)
        return until - now

    def needs_other(self, leadership: Hashable) -> bool:
        """Return whether asking in this leadership could do harm."""
        return self._needs_other and leadership == self._asked

    def hurry(self) -> None:
        """Learn that something has changed: what was refused is worth asking again now."""
        self._not_before = float("-inf")

    def asked(self, leadership: Hashable) -> None:
        """Note whom the call goes to now."""
        self._asked = leadership
        self._needs_other = False

    def refused(self, refusal: Refusal, now: float, *, alone: bool) -> None:
        """Learn what became of a try that was not answered well.

        Args:
            refusal: what it met.
            now: the time.
            alone: whether no other broker could coordinate the group instead.

        Raises:
            Refusal: what to tell the caller; trying again does not help, or its time is up.
        """
        self._last = refusal
        if not refusal.meaning.definite and self._changes:
            self.doubt = refusal
            # It was not the stream that failed it: only another leadership can do better.
            self._needs_other = not isinstance(refusal, InDoubt)
        elif not self._may_try_again(refusal, alone=alone):
            raise self.doubt or refusal
        if now >= self.deadline:
            raise self._given_up()
        self._not_before = now + self._pause_s
        self._pause_s = min(MAX_PAUSE_S, self._pause_s * 2)

    def _may_try_again(self, refusal: Refusal, *, alone: bool) -> bool:
        if not refusal.meaning.definite:
            return not self._changes
        if alone:
            return refusal.reason in _MOVING and not isinstance(refusal, OffsetsUnreadable)
        return refusal.reason in _OF_ANOTHER

    def _given_up(self) -> Refusal:
        """Return what to say when the time is up: one reason, whoever was asked and what it said."""
        if self.doubt is not None:
            return self.doubt
        last = self._last
        if last is not None and last.reason is Reason.COORDINATOR_LOADING:
            return last
        found = "no broker is known to lead its offsets" if last is None else last.message
        return Refusal(
            Reason.COORDINATOR_LOADING,
            f"the coordinator of group {self._group_id!r} was not reached: {found}; ask again",
        )
