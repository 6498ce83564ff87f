"""All streams of a broker to and from the others: envelopes go out on the one that is for them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import structlog

from riverrun_server.core.replication.messages import (
    Acked,
    Diverged,
    Envelope,
    Follow,
    Message,
    Push,
    Refused,
    Restart,
)
from riverrun_server.peer.follower_stream import FollowerStream
from riverrun_server.peer.hello import Myself
from riverrun_server.peer.mailbox import Mailbox
from riverrun_server.peer.replication import ReplicationService
from riverrun_server.ports.clock import Dice
from riverrun_server.ports.peers import Findings, PeerEvents

_log = structlog.stdlib.get_logger(__name__)


class PeerLinks:
    """Implements ports.peers.Links.

    What is sent while there is no stream is lost, as what was under way on one that broke: a new
    stream begins with a question, and what has to be said is said anew.

    Args:
        myself: introduces this broker.
        events: told what others say.
        dice: spreads pauses.
        findings: told which brokers refuse connections, and which take them; None is nobody.
    """

    def __init__(
        self, myself: Myself, events: PeerEvents, dice: Dice, findings: Findings | None = None
    ) -> None:
        self.service = ReplicationService(myself, events)
        self._myself = myself
        self._events = events
        self._dice = dice
        self._findings = findings
        self._streams: dict[int, tuple[FollowerStream, asyncio.Task[None]]] = {}

    def follow(self, leaders: Mapping[int, str]) -> None:
        """Keep a stream to each of these brokers, by address, and to no others."""
        for broker, (stream, task) in [*self._streams.items()]:
            if leaders.get(broker) != stream.address:
                del self._streams[broker]
                task.cancel()
        for broker, address in leaders.items():
            if broker not in self._streams:
                stream = FollowerStream(
                    broker, address, self._myself, self._events, self._dice, self._findings
                )
                task = asyncio.create_task(stream.run(), name=f"follow broker {broker}")
                task.add_done_callback(_tell_of_crash)
                self._streams[broker] = stream, task

    def send(self, envelope: Envelope) -> None:
        """Send messages to a broker, each on the stream that is for it."""
        to_leader = self._to_leader(envelope.to)
        to_follower = self.service.mailbox(envelope.to)
        for message in envelope.messages:
            mailbox = _chosen(message, to_leader, to_follower)
            if mailbox is not None:
                mailbox.put((message,))

    async def close(self) -> None:
        """End all streams."""
        self.service.close()
        tasks = [task for _, task in self._streams.values()]
        self._streams.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _to_leader(self, broker: int) -> Mailbox | None:
        found = self._streams.get(broker)
        return None if found is None else found[0].mailbox


def _tell_of_crash(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("a stream to a leader crashed", stream=task.get_name(), exc_info=error)


def _chosen(
    message: Message, to_leader: Mailbox | None, to_follower: Mailbox | None
) -> Mailbox | None:
    match message:
        case Follow() | Acked():
            return to_leader
        case Push() | Diverged() | Restart():
            return to_follower
        case Refused():
            # Whoever gets it knows by its own role what it answers.
            return to_leader or to_follower
