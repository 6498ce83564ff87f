"""Which of many searches for one coordinator asks while it cannot be had, for all of them.

Intuition: where a coordinator is gone or only just beginning, it is so for all of its groups. Ten thousand
calls that each ask again and again would keep the brokers busy that are to take over, so one goes ahead; the
others follow once it was answered.
"""

from __future__ import annotations

from collections.abc import Hashable


class Scouts:
    """The searches for one coordinator that would wait for each other.

    Transitions: clear -> in trouble (`refused`: that search is the scout; `doubted`: there is none yet) -> clear
    (`answered`). In trouble, a scout that is gone (`left`), or asks a leadership that is over, is followed by the
    next that may ask (`asked`).
    """

    def __init__(self) -> None:
        self._is_in_trouble = False
        self._scout: object = None
        self._asked: Hashable = None
        self._answered_at = float("-inf")

    @property
    def is_clear(self) -> bool:
        """Whether everybody may ask."""
        return not self._is_in_trouble

    def may_ask(self, search: object, leadership: Hashable) -> bool:
        """Return whether a search may ask in a leadership; else it waits for the one that does."""
        if not self._is_in_trouble or self._scout is None or self._scout is search:
            return True
        return self._asked != leadership

    def asked(self, search: object, leadership: Hashable) -> None:
        """Learn that a search asks."""
        if self._is_in_trouble:
            self._scout, self._asked = search, leadership

    def refused(self, search: object, leadership: Hashable) -> None:
        """Learn that a search was told, or has found, that nobody coordinates in a leadership for now."""
        if not self._is_in_trouble:
            self._is_in_trouble = True
            self._scout, self._asked = search, leadership

    def doubted(self, lost_at: float) -> None:
        """Learn that what stood with a coordinator was lost at a time, unless it has answered since."""
        if not self._is_in_trouble and self._answered_at < lost_at:
            self._is_in_trouble = True

    def answered(self, now: float) -> bool:
        """Learn that a coordinator has answered; return whether others have waited for that."""
        self._answered_at = now
        was_in_trouble = self._is_in_trouble
        self._is_in_trouble, self._scout, self._asked = False, None, None
        return was_in_trouble

    def left(self, search: object) -> bool:
        """Learn that a search is over without an answer; return whether another one is to go ahead."""
        if self._scout is not search or not self._is_in_trouble:
            return False
        self._scout = self._asked = None
        return True
