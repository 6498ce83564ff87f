"""Calls between brokers: in order, late, and cut in the middle, when nobody knows what became of them."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import Any

from riverrun_server.core.errors import Reason, Refusal
from riverrun_server.core.groups.search import InDoubt
from riverrun_server.ports.coordination import Attached, Detached
from tests.sim.groups.world import World


class _Request:
    """One call under way."""

    def __init__(self, make, until, generation, feed=None):
        self.make = make
        self.until = until
        self.generation = generation
        self.feed = feed
        self.done = asyncio.get_running_loop().create_future()


class _Feed:
    """Implements ports.coordination.MemberEvents at the coordinator; what is told goes behind the answer."""

    def __init__(self, link, events, generation):
        self.events = events
        self.generation = generation
        self.next = None
        self.is_over = False
        self._link = link
        self._is_open = False
        self._waits = False

    def changed(self, view):
        self._tell(("changed", view))

    def ended(self, why):
        self._tell(("ended", why))

    def opened(self):
        self._is_open = True
        if self.next is not None:
            self._send()

    def take(self):
        self._waits = False
        told, self.next = self.next, None
        return told

    def _tell(self, told):
        self.next = told
        if self._is_open and not self._waits:
            self._send()

    def _send(self):
        self._waits = True
        self._link.send_down(self.generation, self)


class Link:
    """The stream of one gateway's process to one broker.

    Transitions: open -> cut (what was not answered is in doubt) -> open, with the next call; some of what was
    under way arrives at the other end before anything new, and the rest never.
    """

    def __init__(self, world: World, gateway: Any, to_id: int, cluster: Any) -> None:
        self._world = world
        self._gateway = gateway
        self._to_id = to_id
        self._cluster = cluster
        self._dice: random.Random = world.dice(f"link {gateway.process} {to_id}")
        self.generation = 0
        self._up: deque[_Request] = deque()
        self._down: deque[tuple[int, Any]] = deque()
        self._waiting: dict[_Request, None] = {}
        self._feeds: dict[tuple[str, int], _Feed] = {}

    def ask(self, make, within_s, *, events=None) -> asyncio.Future:
        loop = self._world.loop
        feed = None if events is None else _Feed(self, events, self.generation)
        request = _Request(make, loop.time() + within_s, self.generation, feed)
        if not self._cluster.reaches(self._gateway, self._to_id):
            why = Refusal(Reason.NOT_READY, f"broker {self._to_id} was not reached")
            self._gateway.process.after(self._delay_s(), self._fail, request, why)
            return request.done
        self._waiting[request] = None
        self._up.append(request)
        there = self._cluster.brokers[self._to_id].process
        there.after(self._delay_s(), self._arrive)
        return request.done

    def cut(self) -> None:
        """Lose the stream; the gateway notices now."""
        self.generation += 1
        survivors = self._dice.randint(0, len(self._up))
        while len(self._up) > survivors:
            self._up.pop()
        self._down.clear()
        waiting, self._waiting = self._waiting, {}
        feeds, self._feeds = self._feeds, {}
        doubt = "the stream to the coordinator has ended; nobody knows what became of the call"
        self._gateway.process.after(0, self._cut, list(waiting), list(feeds.values()), doubt)

    def forget(self, member_id: str, attachment: int) -> None:
        """Tell nothing any more of a member that was detached."""
        feed = self._feeds.pop((member_id, attachment), None)
        if feed is not None:
            feed.is_over = True

    def send_down(self, generation, what) -> None:
        """Send something to the gateway, at the coordinator."""
        if generation != self.generation or self._gateway.process.has_ended:
            return
        self._down.append((generation, what))
        self._gateway.process.after(self._delay_s(), self._deliver)

    # At the coordinator.

    def _arrive(self) -> None:
        if not self._up:
            return
        request = self._up.popleft()
        if self._world.loop.time() > request.until:
            late = Refusal(Reason.REQUEST_TIMED_OUT, "the call came late and was passed over")
            self.send_down(request.generation, (request, late))
            return
        try:
            done = request.make(self._cluster.brokers[self._to_id].coordinator, request.feed)
        except Refusal as refusal:
            self.send_down(request.generation, (request, refusal))
            return

        def answered(done: asyncio.Future) -> None:
            if done.cancelled():
                return
            error = done.exception()
            if error is not None and not isinstance(error, Refusal):
                raise error
            self.send_down(request.generation, (request, error or (done.result(),)))
            if error is None and request.feed is not None:
                request.feed.opened()

        done.add_done_callback(answered)

    # At the gateway.

    def _deliver(self) -> None:
        if not self._down:
            return
        _, what = self._down.popleft()
        if isinstance(what, _Feed):
            self._tell(what)
            return
        request, answer = what
        self._waiting.pop(request, None)
        if isinstance(answer, Refusal):
            self._fail(request, answer)
            return
        (result,) = answer
        if isinstance(result, Attached):
            self._attached(request, result)
        if not request.done.done():
            request.done.set_result(result)

    def _attached(self, request: _Request, attached: Attached) -> None:
        if not request.done.done():
            self._feeds[attached.member_id, attached.attachment] = request.feed
            return
        # Its caller is gone, and must not hold the instance id.
        request.feed.is_over = True
        said = Detached(attached.member_id, attached.attachment)
        self.ask(lambda there, _: request.detach(there, said), 5.0)

    def _tell(self, feed: _Feed) -> None:
        told = feed.take()
        if feed.is_over or told is None:
            return
        kind, what = told
        if kind == "ended":
            feed.is_over = True
        getattr(feed.events, kind)(what)

    def _fail(self, request: _Request, why: Refusal) -> None:
        if not request.done.done():
            request.done.set_exception(why)
            request.done.exception()

    def _cut(self, waiting, feeds, doubt) -> None:
        for request in waiting:
            self._fail(request, InDoubt(Reason.REQUEST_TIMED_OUT, doubt))
        for feed in feeds:
            if not feed.is_over:
                feed.is_over = True
                feed.events.ended(InDoubt(Reason.REQUEST_TIMED_OUT, doubt))

    def _delay_s(self) -> float:
        return self._dice.uniform(0.0005, 0.003) + (
            self._dice.uniform(0, 0.05) if self._dice.random() < 0.05 else 0
        )


def _call(name: str) -> Callable[..., asyncio.Future]:
    """Return a method of the port that passes its arguments on."""

    def ask(self, home, *args):
        # What every method has before its own: home; and behind them: origin, within_s.
        *said, _origin, within_s = args
        return self.link(home.leader).ask(
            lambda there, _: getattr(there, name)(home.partition, *said, home.leader_epoch),
            within_s,
        )

    return ask


class Links:
    """Implements ports.coordination.Coordinators for one process of a broker."""

    def __init__(self, world: World, gateway: Any, cluster: Any) -> None:
        self._world = world
        self._gateway = gateway
        self._cluster = cluster
        self.links: dict[int, Link] = {}

    def link(self, to_id: int) -> Link:
        if to_id not in self.links:
            self.links[to_id] = Link(self._world, self._gateway, to_id, self._cluster)
        return self.links[to_id]

    commit = _call("commit")
    revoked = _call("revoked")
    leave = _call("leave")
    commit_for_member = _call("commit_for_member")
    describe = _call("describe")
    remove_member = _call("remove_member")
    delete_group = _call("delete_group")

    def reset_offsets(self, home, group_id, records, origin, within_s):
        def make(there, _):
            return there.reset_offsets(
                home.partition, group_id, records, within_s, home.leader_epoch
            )

        return self.link(home.leader).ask(make, within_s)

    def beat(self, home, beats, within_s):
        def make(there, _):
            return there.beat(home.partition, beats, home.leader_epoch)

        return self.link(home.leader).ask(make, within_s)

    def attach(self, home, group_id, start, events, origin, within_s):
        gateway, epoch = self._gateway.broker_id, home.leader_epoch

        def make(there, feed):
            return there.attach(home.partition, group_id, start, gateway, feed, epoch)

        def detach(there, said):
            return there.detached(home.partition, group_id, said, epoch)

        link = self.link(home.leader)
        done = link.ask(make, within_s, events=events)
        link_request = next(reversed(link._waiting), None)
        if link_request is not None and link_request.done is done:
            link_request.detach = detach
        return done

    def detached(self, home, group_id, detached, origin, within_s):
        link = self.link(home.leader)
        link.forget(detached.member_id, detached.attachment)

        def make(there, _):
            return there.detached(home.partition, group_id, detached, home.leader_epoch)

        return link.ask(make, within_s)

    async def committed(self, home, group_id, origin, within_s, partitions=None):
        def make(there, _):
            broker = self._cluster.brokers[home.leader]
            return broker.process.spawn(
                there.committed(home.partition, group_id, home.leader_epoch), "tell offsets"
            )

        found = await self.link(home.leader).ask(make, within_s)
        if partitions is None:
            return found
        return {each: found[each] for each in partitions if each in found}
