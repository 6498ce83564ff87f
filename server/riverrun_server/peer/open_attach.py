"""A gateway's side of an AttachMember that is open: what comes behind its answer, as a member's events."""

from __future__ import annotations

from collections.abc import Callable

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.peer.attach_messages import attached_from_wire, view_from_wire
from riverrun_server.peer.coordination_messages import refusal_from_wire
from riverrun_server.peer.messages import InvalidMessage
from riverrun_server.peer.v1.coordination_pb2 import CoordinatorAnswer
from riverrun_server.ports.coordination import Attached, MemberEvents


class OpenAttach:
    """Implements peer.coordinator_stream.OpenCall.

    Transitions: open -> over: a refusal, a message that cannot be read, or the end of the stream.

    Args:
        events: is told.
        given_up: called with an answer that nobody waits for any more.
    """

    def __init__(self, events: MemberEvents, given_up: Callable[[Attached], None]) -> None:
        self._events = events
        self._given_up = given_up
        self._over: Callable[[], object] | None = None
        self._is_over = False

    def is_over_then(self, over: Callable[[], object]) -> None:
        """Call this once it is over."""
        self._over = over

    def told(self, answer: CoordinatorAnswer) -> None:
        """Tell a view, or the end."""
        if self._is_over:
            return
        if answer.HasField("refused"):
            self.lost(refusal_from_wire(answer.refused))
        elif answer.HasField("view_changed"):
            try:
                view = view_from_wire(answer.view_changed)
            except InvalidMessage as invalid:
                why = f"a coordinator told what cannot be: {invalid}"
                self.lost(Refusal(Reason.INTERNAL, why))
            else:
                self._events.changed(view)

    def given_up(self, answer: CoordinatorAnswer) -> None:
        """Take an answer for which nobody waits."""
        if answer.HasField("attached"):
            try:
                attached = attached_from_wire(answer.attached)
            except InvalidMessage:
                return
            self._given_up(attached)

    def lost(self, why: Refusal) -> None:
        """Tell the end."""
        if self._is_over:
            return
        self._is_over = True
        if self._over is not None:
            self._over()
        self._events.ended(why)
