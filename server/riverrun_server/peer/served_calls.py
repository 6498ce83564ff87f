"""What one gateway has asked of a coordinator, and what it is to be told."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.group_views import MemberView
from riverrun_server.peer import group_messages, member_messages
from riverrun_server.peer.attach_messages import (
    attach_from_wire,
    attached_to_wire,
    view_changed_to_wire,
)
from riverrun_server.peer.coordination_messages import (
    done_to_wire,
    home_from_wire,
    records_from_wire,
    refusal_to_wire,
    stored_to_wire,
    tell_from_wire,
    told_to_wire,
    unknown_kind,
)
from riverrun_server.peer.v1.coordination_pb2 import CoordinatorAnswer, CoordinatorCall
from riverrun_server.ports.coordinators import Coordinating

T = TypeVar("T")


class PartedAnswer(NamedTuple):
    """An answer, and whether its call is over with it."""

    parts: Iterable[CoordinatorAnswer]
    ends_call: bool


class ServedCalls:
    """The calls of one gateway's stream.

    Transitions of a call: under way (`take`) -> answered -> written (`answered`). One that attaches a member
    is open behind its answer: the newest of its views waits to be written, until its end is told.

    Args:
        coordinator: is asked.
        gateway: the broker that asks.
        gateway_ms: its clock.
        under_way_max: calls that may be under way.
    """

    def __init__(
        self,
        coordinator: Coordinating,
        gateway: int,
        gateway_ms: Callable[[], int],
        under_way_max: int,
    ) -> None:
        self.is_over = False
        self._coordinator = coordinator
        self._gateway = gateway
        self._gateway_ms = gateway_ms
        self._under_way = 0
        self._under_way_max = under_way_max
        self._answers: deque[PartedAnswer] = deque()
        # Those with something to tell behind their answers.
        self._open: dict[int, _Feed] = {}
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._telling: set[asyncio.Task[None]] = set()

    async def room(self) -> None:
        """Wait until another call may be taken on."""
        while self._under_way >= self._under_way_max and not self.is_over:
            self._room.clear()
            await self._room.wait()

    def take(self, call: CoordinatorCall) -> None:
        """Begin to carry out a call, before anything that is taken later.

        Raises:
            InvalidMessage
        """
        home_from_wire(call)
        self._under_way += 1
        try:
            self._check(call)
            self._carry_out(call)
        except Refusal as refusal:
            self._answer((refusal_to_wire(call.call_id, refusal),))

    async def answers(self) -> PartedAnswer | None:
        """Wait for an answer, or for something to tell behind one; None once the stream is over."""
        while not self._answers and not self._open and not self.is_over:
            self._changed.clear()
            await self._changed.wait()
        if self.is_over:
            return None
        if self._answers:
            return self._answers.popleft()
        call_id = next(iter(self._open))
        return PartedAnswer((self._open.pop(call_id).take(),), ends_call=False)

    def answered(self) -> None:
        """Note that an answer is on its way: there is room for another call."""
        self._under_way -= 1
        self._room.set()

    def end(self) -> None:
        """Take nothing on and tell nothing any more; what was taken on is carried out."""
        self.is_over = True
        self._answers.clear()
        self._open.clear()
        for task in self._telling:
            task.cancel()
        self._changed.set()
        self._room.set()

    def tell(self, feed: _Feed) -> None:
        """Write what an open call has to tell, when it is its turn."""
        if not self.is_over:
            self._open[feed.call_id] = feed
            self._changed.set()

    # Inside.

    def _check(self, call: CoordinatorCall) -> None:
        if call.origin.hops != 1:
            raise Refusal(
                Reason.INVALID_REQUEST,
                f"the call was passed on {call.origin.hops} times, and may be once; ask the leader",
            )
        late_ms = self._gateway_ms() - call.expires_at_ms
        if late_ms > 0:
            raise Refusal(
                Reason.REQUEST_TIMED_OUT,
                f"the call arrived {late_ms} ms after its caller was told that nobody knows; it was "
                "passed over",
            )

    def _carry_out(self, call: CoordinatorCall) -> None:
        coordinator, home, epoch = self._coordinator, home_from_wire(call), call.leader_epoch
        group_id = call.group_id
        match call.WhichOneof("kind"):
            case "store":
                records = records_from_wire(group_id, call.store.offsets)
                stored = coordinator.commit(home, group_id, records, epoch)
                self._when(call, stored, lambda _: (stored_to_wire(call.call_id, {}),))
            case "tell":
                self._begin_to_tell(call)
            case "attach":
                self._attach(call)
            case "beat":
                beats = member_messages.beats_from_wire(call.beat)
                beaten = coordinator.beat(home, beats, epoch)
                self._when(
                    call, beaten, lambda it: (member_messages.beaten_to_wire(call.call_id, it),)
                )
            case "revoked":
                revoked = member_messages.revoked_from_wire(call.revoked)
                self._done(call, coordinator.revoked(home, group_id, revoked, epoch))
            case "leave":
                leave = member_messages.leave_from_wire(call.leave)
                self._done(call, coordinator.leave(home, group_id, leave, epoch))
            case "detached":
                detached = member_messages.detached_from_wire(call.detached)
                self._done(call, coordinator.detached(home, group_id, detached, epoch))
            case "store_for_member":
                commit = member_messages.commit_from_wire(group_id, call.store_for_member)
                kept = coordinator.commit_for_member(home, group_id, commit, epoch)
                self._when(call, kept, lambda it: (stored_to_wire(call.call_id, it),))
            case _:
                self._operate(call)

    def _operate(self, call: CoordinatorCall) -> None:
        """Carry out what operators ask."""
        coordinator, home, epoch = self._coordinator, home_from_wire(call), call.leader_epoch
        group_id, call_id = call.group_id, call.call_id
        match call.WhichOneof("kind"):
            case "describe":
                described = coordinator.describe(home, group_id, epoch)
                self._when(
                    call, described, lambda it: group_messages.described_to_wire(call_id, it)
                )
            case "list":
                query = group_messages.query_from_wire(call.list)
                listed = coordinator.list_groups(home, query, epoch)
                self._when(call, listed, lambda it: (group_messages.listed_to_wire(call_id, it),))
            case "remove":
                name = group_messages.remove_from_wire(call.remove)
                removed = coordinator.remove_member(home, group_id, name, epoch)
                self._when(call, removed, lambda it: (group_messages.removed_to_wire(call_id, it),))
            case "delete":
                self._done(call, coordinator.delete_group(home, group_id, epoch))
            case "reset":
                records = group_messages.reset_from_wire(group_id, call.reset)
                within_s = max(0, call.expires_at_ms - self._gateway_ms()) / 1000
                self._done(
                    call, coordinator.reset_offsets(home, group_id, records, within_s, epoch)
                )
            case _:
                raise unknown_kind()

    def _attach(self, call: CoordinatorCall) -> None:
        start, feed = attach_from_wire(call.attach), _Feed(self, call.call_id)
        attached = self._coordinator.attach(
            home_from_wire(call),
            call.group_id,
            start,
            self._gateway,
            feed,
            call.leader_epoch,
        )
        self._when(call, attached, lambda it: (attached_to_wire(call.call_id, it),), feed.opened)

    def _begin_to_tell(self, call: CoordinatorCall) -> None:
        task = asyncio.create_task(self._tell_offsets(call), name="tell offsets of a group")
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell_offsets(self, call: CoordinatorCall) -> None:
        home, only = home_from_wire(call), tell_from_wire(call.tell)
        try:
            found = await self._coordinator.committed(home, call.group_id, call.leader_epoch)
        except Refusal as refusal:
            self._answer((refusal_to_wire(call.call_id, refusal),))
        else:
            if only is not None:
                found = {each: value for each, value in found.items() if each in only}
            self._answer(told_to_wire(call.call_id, found))

    # Answers.

    def _done(self, call: CoordinatorCall, done: asyncio.Future[None]) -> None:
        self._when(call, done, lambda _: (done_to_wire(call.call_id),))

    def _when(
        self,
        call: CoordinatorCall,
        done: asyncio.Future[T],
        to_wire: Callable[[T], Iterable[CoordinatorAnswer]],
        then: Callable[[], None] | None = None,
    ) -> None:
        """Answer a call once it is carried out."""

        def answered(done: asyncio.Future[T]) -> None:
            error = done.exception()
            if error is None:
                self._answer(to_wire(done.result()))
                if then is not None:
                    then()
            elif isinstance(error, Refusal):
                self._answer((refusal_to_wire(call.call_id, error),))
            else:
                raise error

        done.add_done_callback(answered)

    def _answer(self, parts: Iterable[CoordinatorAnswer]) -> None:
        if not self.is_over:
            self._answers.append(PartedAnswer(parts, ends_call=True))
            self._changed.set()


class _Feed:
    """Implements ports.coordination.MemberEvents for a call that attaches a member.

    Transitions: asked -> open (`opened`, its answer waits to be written) -> ended. What is told before it is
    open waits until then.
    """

    def __init__(self, served: ServedCalls, call_id: int) -> None:
        self.call_id = call_id
        self._served = served
        self._is_open = False
        self._next: CoordinatorAnswer | None = None

    def changed(self, view: MemberView) -> None:
        """Tell a view, instead of one that was not told yet."""
        self._tell(view_changed_to_wire(self.call_id, view))

    def ended(self, why: Refusal) -> None:
        """Tell the end, instead of a view that was not told yet."""
        self._tell(refusal_to_wire(self.call_id, why))

    def opened(self) -> None:
        """Tell what there is to tell: the answer goes before it."""
        self._is_open = True
        if self._next is not None:
            self._served.tell(self)

    def take(self) -> CoordinatorAnswer:
        """Return what is to be told now."""
        told, self._next = self._next, None
        assert told is not None, "only what has something to tell is asked"
        return told

    def _tell(self, answer: CoordinatorAnswer) -> None:
        self._next = answer
        if self._is_open:
            self._served.tell(self)
