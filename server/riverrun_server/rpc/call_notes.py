"""What a call's handler knows of it beside request and reply: for its line in the log and metrics."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final

from riverrun_server.core.errors import Reason, Refusal

# A stream may touch a thousand topics; a line of the log names the first ones.
TOPICS_NAMED: Final = 8


class CallNotes:
    """Notes of one call, taken by whatever serves it.

    Attributes:
        request: the one that the call had; None until it has arrived, and for streams of many.
        failure: why the whole call was refused.
        errors: how many errors the caller was told, in parts of replies or for the whole.
        first_error: the first of them.
        reasons: how many there were of each reason.
        topics: the first few that it dealt with, in order.
        group_id: of which consumer group; empty where there is none.
        records: that a stream took in.
        received_bytes: that a stream took in.
        sent_bytes: that a stream sent.
    """

    __slots__ = (
        "_count", "errors", "failure", "first_error", "group_id", "reasons", "received_bytes",
        "records", "request", "sent_bytes", "topics",
    )  # fmt: skip

    def __init__(self, count: Callable[[Reason], None]) -> None:
        """`count` is told the reason of each error as it happens: streams live for days."""
        self._count = count
        self.request: Any = None
        self.failure: Refusal | None = None
        self.errors = 0
        self.first_error: Refusal | None = None
        self.reasons: dict[Reason, int] = {}
        self.topics: dict[str, None] = {}
        self.group_id = ""
        self.records = self.received_bytes = self.sent_bytes = 0

    def told(self, refusal: Refusal) -> None:
        """Note an error that the caller is told."""
        self.errors += 1
        if self.first_error is None:
            self.first_error = refusal
        self.reasons[refusal.reason] = self.reasons.get(refusal.reason, 0) + 1
        self._count(refusal.reason)

    def took(self, topic: str, records: int) -> None:
        """Note records that came over a stream for a topic."""
        self.records += records
        self.touched(topic)

    def touched(self, topic: str) -> None:
        """Note a topic."""
        if topic not in self.topics and len(self.topics) < TOPICS_NAMED:
            self.topics[topic] = None


def _nothing(_: Reason) -> None:
    """Count for nobody."""


_NOTES: Final[ContextVar[CallNotes]] = ContextVar("riverrun_call_notes")


def begin(notes: CallNotes) -> None:
    """Make these the notes of the call that this task, and all that it starts, serves."""
    _NOTES.set(notes)


def current() -> CallNotes:
    """Return the notes of the call that is being served; outside of calls, some that nobody reads."""
    notes = _NOTES.get(None)
    return CallNotes(_nothing) if notes is None else notes
